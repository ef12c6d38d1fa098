"""Sheets, studies and sets as a visitor sees them in a headless browser."""

import csv
import io
import itertools
import json
import re
import shutil
import threading
import xml.etree.ElementTree as ElementTree
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from serving import serving

import hieramp
from app import page, set_verdict
from app.scheduling import Device
from app.visitor_limits import VisitorLimits
from hieramp.checkpoints import save_part, write_config
from hieramp.classifier import Classifier
from hieramp.config import ClassifierConfig, to_json
from hieramp.figures import SETTINGS_KEY, STUDY

CLASSES = ("airplane", "cat", "dog", "frog")
FINISHED = '.viewer[aria-busy="false"]'


@pytest.fixture(scope="module")
def judged_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a classifier that knows nothing."""
    folder = tmp_path_factory.mktemp("judged") / "tiny"
    shutil.copytree(model_folder, folder)
    torch.manual_seed(0)
    config = ClassifierConfig(num_classes=4, image_size=16, channels=(8, 8, 8, 8), layers=(1, 1, 1, 1))
    classifier = Classifier(config).eval()
    save_part(folder, "classifier", classifier.state_dict())
    write_config(folder, classifier=to_json(config))
    return folder


def real_images(root: Path) -> Path:
    """A few coloured pictures of the tiny model's classes, to train on and to test on."""
    rng = np.random.default_rng(0)
    for split, count in {"train": 6, "test": 3}.items():
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 90, (16, 16, 3)) + 40 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def address(judged_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = hieramp.load(judged_folder, "cpu")
    data = real_images(tmp_path_factory.mktemp("real"))
    yield from serving(
        page.build(model, VisitorLimits(ipc=50), job_root=tmp_path_factory.mktemp("jobs"), data=str(data))
    )


@contextmanager
def opened(browser: Any, address: str, name: str, width: int = 1280) -> Iterator[Any]:
    """A tab of the page; nothing may fail in its console."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    tab, failures = context.new_page(), []
    tab.set_default_timeout(90_000)
    tab.on("pageerror", lambda error: failures.append(str(error)))
    tab.goto(address)
    tab.wait_for_selector(FINISHED)
    tab.get_by_role("tab", name=name).click()
    yield tab
    context.close()
    assert not failures


def downloaded(tab: Any, name: str) -> tuple[str, bytes]:
    with tab.expect_download() as got:
        tab.get_by_role("link", name=name).last.click()
    return got.value.suggested_filename, Path(got.value.path()).read_bytes()


def test_a_sheet_of_own_values_shows_numbers_differences_and_a_tile_beside(browser: Any, address: str) -> None:
    with opened(browser, f"{address}?class=cat&seed=3", "Ablate") as tab:
        tab.get_by_role("radio", name="Strength × ρ, fine").check(force=True)
        tab.wait_for_function(
            "document.querySelector('#row-values textarea, #row-values input').value.startsWith('0.1')"
        )
        tab.get_by_label("Values of the columns").fill("2, 9")
        tab.get_by_label("Values of the rows").fill("0.5")
        tab.get_by_label("number input for Seeds, a row each").fill("2")
        tab.get_by_role("button", name="Draw the sheet").click()
        tab.get_by_role("link", name="Save SVG").wait_for()
        assert tab.locator(".sheet .tile").count() == 6
        assert tab.locator(".tiles .column").all_inner_texts() == ["baseline", "fine β 2", "fine β 9"]
        assert tab.locator(".tiles .row").all_inner_texts() == ["fine ρ 50%, seed 3", "fine ρ 50%, seed 4"]
        captions = tab.locator(".tiles figcaption")
        assert all(text.endswith("%") for text in captions.all_inner_texts())
        name, data = downloaded(tab, "Save CSV")
        rows = list(csv.DictReader(io.StringIO(data.decode())))
        assert name.startswith("cat-seed3-") and [row["seed"] for row in rows] == ["3"] * 3 + ["4"] * 3
        assert captions.nth(5).inner_text() == f"{float(rows[5]['probability']):.0%}"
        tab.locator("[data-measure]").select_option("distance")
        assert captions.nth(5).inner_text() == f"{float(rows[5]['distance']):.3f}"
        tile = tab.locator(".sheet .tile").nth(5)
        tile.hover()
        base = tab.locator(".sheet .tile").nth(3).locator("img").get_attribute("src")
        assert tile.locator("img.over").get_attribute("src") == base
        assert f"differ by {float(rows[5]['distance']):.3f} (RMS)" in tab.locator(".sheet .hint").inner_text()
        tile.click()
        beside = tab.locator(".beside")
        assert beside.get_by_role("heading", name="cat, seed 4, fine ρ 50%, seed 4, fine β 9").is_visible()
        assert tile.is_visible() and beside.locator("img").count() == 4  # the tile, its baseline, both as difference
        name, data = downloaded(tab, "Save JSON")
        assert json.loads(data)["tiles"][5]["settings"]["stages"]["fine"] == [0.5, 9.0]
        assert downloaded(tab, "Save PNG")[1].startswith(b"\x89PNG") and b"fine" in downloaded(tab, "Save SVG")[1]
        note = tab.locator(".stale-note").first
        tab.get_by_label("range slider for fine β (scales 4–5)").focus()
        tab.keyboard.press("ArrowLeft")
        tab.wait_for_url("**fine_strength=4.9**")
        assert not note.is_visible()  # what is on an axis
        tab.get_by_label("range slider for mid β (scales 2–3)").focus()
        tab.keyboard.press("ArrowLeft")
        note.wait_for()
        beside.get_by_role("link", name="Open in Explore").click()
        tab.wait_for_url("**fine_strength=9**")
        tab.get_by_alt_text("Amplified picture of cat, seed 4", exact=True).wait_for()


def test_a_bad_sheet_is_one_sentence_and_a_phone_holds_the_sheet(browser: Any, address: str) -> None:
    with opened(browser, address, "Ablate", 390) as tab:
        tab.get_by_label("Values of the columns").fill("loud")
        tab.get_by_role("button", name="Draw the sheet").click()
        tab.get_by_text("There is no schedule 'loud'").first.wait_for()
        tab.get_by_label("Values of the columns").fill("")
        tab.get_by_role("button", name="Draw the sheet").click()
        tab.get_by_role("link", name="Save SVG").wait_for()
        tab.locator(".sheet .tile").nth(2).click()
        assert tab.locator(".beside").is_visible()
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_studies_show_paired_differences_and_say_whether_the_paper_holds(browser: Any, address: str) -> None:
    with opened(browser, f"{address}?class=cat&seed=3&mid_strength=0", "What changed") as tab:
        tab.get_by_label("number input for Samples", exact=True).fill("4")
        tab.get_by_role("button", name="Count tokens").click()
        tab.get_by_role("link", name="differences.svg").wait_for()
        name, data = downloaded(tab, "differences.csv")
        text = data.decode()
        assert name == "cat-seed3-n4-differences.csv" and "# seeds: [3, 4, 5, 6]" in text and '# class: "cat"' in text
        rows = {row["where"]: row for row in csv.DictReader(line for line in text.splitlines() if line[0] != "#")}
        fine = rows["fine"]
        said = tab.locator("#usage-words .finding").all_inner_texts()
        assert [line.split()[3] for line in said] == ["coarse", "fine"]  # mid is not amplified
        value, low, high = (f"{float(fine[k]):+.3f}" for k in ("entropy_nats", "entropy_low", "entropy_high"))
        value, low, high = (one.replace("-", "−") for one in (value, low, high))
        assert f"{value} nats (95 % interval {low} to {high}, n = 4 pairs)" in said[1]
        picture = tab.locator("#usage-difference img")
        assert "4 pairs. Seeds 3–6." in (picture.get_attribute("alt") or "") and picture.bounding_box()["width"] > 500
        assert "Seeds 3–6" in downloaded(tab, "differences.svg")[1].decode()
        assert downloaded(tab, "differences.png")[1].startswith(b"\x89PNG")
        for what in ("usage", "changed"):
            is_a_plot(tab, f"cat-seed3-n4-{what}", what, {"class": "cat", "seeds": [3, 4, 5, 6]}, "4 pairs. Seeds 3–6")
        with tab.expect_download() as got:  # the interactive plot has a camera, whose file tells what it is of
            tab.locator(".js-plotly-plot").first.hover()
            tab.locator(".modebar-btn[data-title^='Download plot']").first.click()
        assert got.value.suggested_filename == "cat-seed3-n4-usage.svg"
        assert "entropy" in Path(got.value.path()).read_text().lower()
        buttons = [plot.locator(".modebar-btn").count() for plot in tab.locator(".js-plotly-plot").all()]
        assert buttons[0] == buttons[1] > 0 == buttons[2]  # none over the plot that is yet to come
        tab.get_by_label("number input for Classes").fill("2")
        tab.get_by_label("number input for Samples of each").fill("2")
        tab.get_by_role("button", name="Compare schedules").click()
        tab.locator("#risen-words").get_by_role("link", name="differences.png").wait_for()
        assert len(tab.locator("#risen-words .finding").all_inner_texts()) == 3
        assert "n = 2 classes" in tab.locator("#risen-words .finding").first.inner_text()
        name, data = downloaded(tab, "differences.csv")
        text = data.decode()
        assert name == "tiny-2-classes-seed3-n2-differences.csv"
        assert len([line for line in text.splitlines() if line[0] != "#"]) == 1 + 7 * 2 * 3
        assert tab.locator("#class-difference img").is_visible()
        about = {"model": "tiny", "classes": rows_of(text), "seeds": [3, 4]}
        is_a_plot(
            tab, "tiny-2-classes-seed3-n2-schedules", "schedules", about, "2 classes, 2 pairs a class, tiny. Seeds 3–4"
        )
        tab.set_viewport_size({"width": 390, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390  # the plot scrolls by itself


def is_a_plot(tab: Any, start: str, what: str, about: dict[str, Any], told: str) -> None:
    """The links of a plot give a PNG and an SVG that open, with their settings inside, and words in the plot."""
    name, data = downloaded(tab, f"{what}.png")
    assert name == f"{start}.png"
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        inside = json.loads(picture.info[SETTINGS_KEY])
        assert picture.width >= 1200 and about.items() <= inside.items() and STUDY in inside
    name, data = downloaded(tab, f"{what}.svg")
    tree, svg = ElementTree.fromstring(data), "{http://www.w3.org/2000/svg}"
    assert name == f"{start}.svg" and json.dumps(inside) in data.decode().replace("&quot;", '"')
    assert told in " ".join(" ".join(text.text or "" for text in tree.iter(f"{svg}text")).split())


def rows_of(table: str) -> list[str]:
    """The classes of a table, in their order."""
    lines = csv.DictReader(line for line in table.splitlines() if line[0] != "#")
    return list(dict.fromkeys(row["class"] for row in lines))


def test_dose_and_response_is_saved_as_the_terminal_saves_it(browser: Any, address: str, judged_folder: Path) -> None:
    with opened(browser, f"{address}?class=cat&seed=3", "Ablate") as tab:
        tab.get_by_role("button", name="Draw the curves").click()
        tab.get_by_role("link", name="dose.svg").wait_for()
        start = "cat-seed3-n8-dose-fine-strength"
        is_a_plot(tab, start, "dose", {"class": "cat", "seeds": list(range(3, 11))}, "n = 8 seeds a dose. Seeds 3–10")
        name, data = downloaded(tab, "dose.json")
        found = json.loads(data)
        assert name == f"{start}.json" and found["study"]["doses"] == list(range(9)) and len(found["doses"]) == 9
        name, data = downloaded(tab, "dose.csv")
        assert name == f"{start}.csv" and b"# seeds: [3, 4, 5, 6, 7, 8, 9, 10]" in data
        assert f"{found['doses'][8]['probability']['mean']:.3f}" in tab.locator(".dose .readout").inner_text()
        png = {"name": "a.png", "mimeType": "image/png", "buffer": downloaded(tab, "dose.png")[1]}
    with opened(browser, address, "Explore") as tab:  # a saved plot opens the pictures that it is of
        tab.locator("input[type=file]").first.set_input_files(png)
        tab.wait_for_url("**class=cat&seed=3&count=8**")


def test_a_study_tells_its_progress(browser: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study is held up after its first class."""
    gate, job, begun = threading.Event(), Device.job, itertools.count()

    @contextmanager
    def held_up(device: Device) -> Iterator[None]:
        if next(begun) >= 1:
            gate.wait(60)
        with job(device):
            yield

    with opened(browser, address, "What changed") as tab:
        tab.get_by_label("number input for Classes").fill("4")
        tab.get_by_label("number input for Samples of each").fill("1")
        monkeypatch.setattr(Device, "job", held_up)
        tab.get_by_role("button", name="Compare schedules").click()
        bar = tab.get_by_role("progressbar", name="Progress")
        bar.wait_for()
        assert bar.get_attribute("aria-valuenow") == "25"
        assert re.search(r"1 of 4, about \d+ s left", tab.locator(".study").inner_text())
        gate.set()
        tab.get_by_role("link", name="differences.png").wait_for()
        assert not tab.locator(".study").count()


def test_a_set_fills_a_grid_is_judged_and_opens_in_explore(
    browser: Any, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_verdict, "STUDENT_SECONDS", 5.0)
    with opened(browser, f"{address}?mid_strength=2", "Distill") as tab:
        for name in ("cat", "dog"):
            tab.get_by_label("Classes (none chosen: all)").fill(name)
            tab.keyboard.press("Enter")
        tab.get_by_label("number input for Images per class (IPC)").fill("3")
        tab.get_by_label("Seed of the set").fill("2")
        tab.get_by_role("button", name="Make the set").click()
        tab.get_by_alt_text("dog, seed 2000002", exact=True).wait_for()
        assert tab.locator(".pictures .row b").all_inner_texts() == ["cat", "dog"]
        assert tab.locator(".pictures img").count() == 6
        verdict = tab.locator("#verdict")
        verdict.get_by_role("link", name="Save JSON").wait_for()
        found = json.loads(downloaded(tab, "Save JSON")[1])["verdict"]
        assert f"calls {found['agreement']:.1%} of 6 images" in verdict.inner_text()
        assert f"coarse {found['tokens']['coarse'][0]:.2f} nats" in verdict.inner_text()
        assert f"median distance {found['nearest']:.3f} (RMS of pixels) among 12" in verdict.inner_text()
        students = found["students"]
        assert f"{students['accuracy']:.1%} from this set" in verdict.inner_text() and students["test_images"] == 6
        tab.get_by_label("Seed of the set").fill("5")  # a second set
        tab.get_by_role("button", name="Make the set").click()
        tab.get_by_alt_text("dog, seed 5000002", exact=True).wait_for()
        sets = tab.locator("#my-sets")
        sets.get_by_label(re.compile("tiny-ipc3-seed5: 6 images of 2 classes, done")).wait_for()
        tab.reload()
        tab.get_by_role("tab", name="Distill").click()
        sets.get_by_label(re.compile("tiny-ipc3-seed2")).check(force=True)
        last = tab.get_by_alt_text("dog, seed 2000002", exact=True)
        last.wait_for()
        assert not tab.get_by_alt_text("dog, seed 5000002", exact=True).count()
        tab.get_by_text("Verdict on tiny-ipc3-seed2.zip").wait_for()  # as it was found before
        source, other = (one.get_attribute("src") for one in (last, tab.locator(".pictures img").first))
        tab.set_viewport_size({"width": 390, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        tab.set_viewport_size({"width": 1280, "height": 900})
        tab.locator(".pictures a").last.focus()
        tab.keyboard.press("Enter")
        tab.wait_for_url("**class=dog**seed=2000002**")
        drawn = tab.get_by_alt_text("Amplified picture of dog, seed 2000002", exact=True)
        drawn.wait_for()
        away = np.abs(pixels_of(source) - pixels_of(drawn.get_attribute("src"))).mean()
        assert away < 8 < np.abs(pixels_of(source) - pixels_of(other)).mean()  # the page enlarges it


def pixels_of(source: str) -> np.ndarray:
    picture = Image.open(io.BytesIO(b64decode(source.split(",")[1]))).convert("RGB")
    return np.asarray(picture.resize((16, 16), Image.Resampling.BOX), dtype=float)
