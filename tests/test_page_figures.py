"""Sheets, studies and sets as a visitor sees them in a headless browser."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import hieramp
from app import page
from app.visitor_limits import VisitorLimits
from hieramp.checkpoints import save_part, write_config
from hieramp.classifier import Classifier
from hieramp.config import ClassifierConfig, to_json

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
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


@pytest.fixture(scope="module")
def address(judged_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = hieramp.load(judged_folder, "cpu")
    demo = page.build(model, VisitorLimits(ipc=50), job_root=tmp_path_factory.mktemp("jobs"))
    page.launch(demo, prevent_thread_lock=True, quiet=True)
    yield demo.local_url
    demo.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


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
