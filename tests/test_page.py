"""The page: its handlers as plain functions, its endpoint through a client, and all of it in a headless browser."""

import base64
import io
import math
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import hieramp
from app import figures, handlers, page
from hieramp import Amplification

NUMBERS = {"seed": 7, "count": 2, "guidance": 4.0}
SCALES, AMPLIFIED = ("coarse", "mid", "fine"), {"rho": 0.5, "strength": 5.0}
STAGES = {f"{stage}_{name}": value for stage in SCALES for name, value in AMPLIFIED.items()}
FIELDS: dict[str, Any] = {"class_name": "cat", **NUMBERS, **STAGES, "mode": "logit"}
ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
FINISHED = '.result[aria-busy="false"]'


def fields(**changes: Any) -> list[Any]:
    return list({**FIELDS, **changes}.values())


def decoded(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))


def sources(html: str, alt: str) -> list[str]:
    """Of the images whose alternative text begins with `alt`."""
    return re.findall(rf'<img class="\w+" src="([^"]+)" alt="{alt}', html)


# Handlers


def test_every_field_arrives_in_the_order(model: hieramp.Model) -> None:
    order = handlers.read_order(model, "dog", 3, 2, 1.5, 0.1, 1, 0.2, 2, 0.3, 3, "attention")
    amplification = Amplification((0.1, 1.0), (0.2, 2.0), (0.3, 3.0), "attention")
    assert order == handlers.Order(2, (3, 4), 1.5, amplification)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"class_name": "unicorn"}, "unknown class 'unicorn'"),
        ({"class_name": None}, "no class is chosen"),
        ({"class_name": 4}, "class 4 does not exist"),
        ({"seed": None}, "the seed is empty"),
        ({"seed": math.nan}, "the seed is nan"),
        ({"seed": -1}, "the seed is -1"),
        ({"count": 9}, "the number of images is 9; give a whole number from 1 to 8"),
        ({"count": 1.5}, "the number of images is 1.5"),
        ({"guidance": math.nan}, "guidance is nan"),
        ({"guidance": -1.0}, "guidance is -1"),
        ({"coarse_rho": 0.0}, "rho of coarse is 0; it must be over 0"),
        ({"mid_rho": math.nan}, "rho of mid is nan"),
        ({"fine_strength": math.inf}, "the strength of fine is inf"),
        ({"fine_strength": "5"}, "the strength of fine is '5'; give a number"),
        ({"mode": "other"}, "mode is 'other'"),
    ],
)
def test_a_bad_field_is_one_clear_sentence(model: hieramp.Model, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        next(handlers.draw(model, *fields(**changes)))
    assert "\n" not in str(caught.value)


def test_drawing_yields_every_scale_and_ends_with_what_generate_draws(model: hieramp.Model) -> None:
    scenes = list(handlers.grow(model, handlers.read_order(model, *fields())))
    assert [len(scene.images) for scene in scenes] == [1, 2, 3, 4, 5, 6]
    amplification = Amplification(*[(0.5, 5.0)] * 3)
    drawing = model.generate([1] * 4, [7, 8, 7, 8], [None, None, amplification, amplification])
    assert scenes[-1].images[-1].equal(drawing.images)
    assert all(a.equal(b) for a, b in zip(scenes[-1].saliency, drawing.saliency, strict=True))


def test_the_result_shows_every_picture_and_map_with_a_text(model: hieramp.Model) -> None:
    *_, before, html = handlers.draw(model, *fields())
    assert 'aria-busy="true"' in before and 'aria-busy="false"' in html
    assert not sources(before, "Saliency")
    for seed in (7, 8):
        for side in ("Baseline", "Amplified"):
            final = sources(html, f"{side} picture of cat, seed {seed}")
            growing = sources(html, f"{side} so far: cat, seed {seed}, scale ")
            maps = sources(html, f"Saliency over the {side.lower()} picture: cat, seed {seed}, scale ")
            assert (len(final), len(growing), len(maps)) == (1, 6, 6)
            assert [decoded(m).size for m in maps] == [(n, n) for n in model.var.scales.sides]
            assert decoded(final[0]).tobytes() == decoded(growing[-1]).tobytes()


def test_pictures_are_exact_and_carry_their_settings(model: hieramp.Model, tmp_path: Path) -> None:
    answer = handlers.generate(model, *fields())
    drawing = model.generate([1, 1], [7, 8])
    path = tmp_path / "saved.png"
    for i, source in enumerate(answer["baseline"]):
        assert decoded(source).tobytes() == hieramp.figures.to_picture(drawing.images[i]).tobytes()
    path.write_bytes(base64.b64decode(answer["amplified"][1].partition(",")[2]))
    settings = hieramp.figures.read_settings(path)
    assert settings["seeds"] == [8] and settings["class"] == "cat" and settings["stages"]["mid"] == [0.5, 5.0]


def test_baseline_and_amplified_maps_share_their_colours(model: hieramp.Model) -> None:
    *_, scene = handlers.grow(model, handlers.read_order(model, *fields(count=1)))
    highest = max(scene.map(0, side, 5).max() for side in (0, 1))
    brightest = figures.heat(scene.map(0, 1, 5), float(highest))
    own = figures.heat(scene.map(0, 1, 5))
    assert scene.map(0, 0, 5).max() != scene.map(0, 1, 5).max()
    assert (brightest.tobytes() == own.tobytes()) == bool(scene.map(0, 1, 5).max() == highest)


def test_class_names_are_text_not_html(model: hieramp.Model) -> None:
    scene = figures.Scene('<b>"cat"</b>', (0,), model.var.scales, model.image_size, "<i>", {})
    assert "<b>&quot;" not in figures.result(scene) and "<i>&" not in figures.result(scene)
    assert "&lt;b&gt;" in figures.result(scene)


def test_labels_say_which_scales_they_mean(model: hieramp.Model) -> None:
    assert handlers.rho_label(model, "coarse") == "coarse ρ (scale 1)"
    assert handlers.strength_label(model, "mid", "logit") == "mid β (scales 2–3)"
    assert handlers.strength_label(model, "fine", "attention") == "fine γ (scales 4–5)"


def test_a_newer_ticket_makes_the_older_stale() -> None:
    turns = handlers.Turns()
    first, other, second = turns.take("ann"), turns.take("bob"), turns.take("ann")
    assert turns.is_stale("ann", first)
    assert not turns.is_stale("ann", second) and not turns.is_stale("bob", other)


# Start


def test_a_bad_port_ends_with_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(ROOT / "app.py"))["main"]
    with pytest.raises(SystemExit) as ended:
        main(["--port", "70000"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: argument --port: '70000' is not a port: give a number from 1 to 65535\n"


def test_a_bad_model_ends_with_one_sentence() -> None:
    command = [sys.executable, "app.py", "--model", "no-such-model"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "there is no model 'no-such-model'" in done.stderr and done.stderr.count("\n") == 1


# A live server


@pytest.fixture(scope="module")
def served(model_folder: Path) -> hieramp.Model:
    return hieramp.load(model_folder, "cpu")


@pytest.fixture(scope="module")
def address(served: hieramp.Model) -> Iterator[str]:
    demo = page.build(served)
    page.launch(demo, prevent_thread_lock=True, quiet=True)
    yield demo.local_url
    demo.close()


def test_the_endpoint_draws_and_describes_itself(address: str, served: hieramp.Model) -> None:
    client_module = pytest.importorskip("gradio_client", reason="gradio_client is not installed")
    client = client_module.Client(address, verbose=False)
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert list(endpoints) == ["/generate"]
    assert [given["parameter_name"] for given in endpoints["/generate"]["parameters"]] == list(FIELDS)
    assert all(f"{name}: " in endpoints["/generate"]["description"] for name in FIELDS)
    answer, expected = client.predict(**FIELDS, api_name="/generate"), handlers.generate(served, *fields())
    for side in ("baseline", "amplified"):
        pictures = [[decoded(source).tobytes() for source in given[side]] for given in (answer, expected)]
        assert pictures[0] == pictures[1] and len(pictures[0]) == 2
    with pytest.raises(Exception, match="Unknown class 'unicorn'"):
        client.predict(**{**FIELDS, "class_name": "unicorn"}, api_name="/generate")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


def opened(browser: Any, address: str, scheme: str = "light", width: int = 1280) -> Any:
    """A page with its first picture."""
    tab = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
    tab.goto(address)
    tab.wait_for_selector(FINISHED, timeout=30_000)
    return tab


def test_a_visitor_draws_with_the_keyboard(browser: Any, address: str) -> None:
    tab = opened(browser, address)
    assert tab.get_by_alt_text("Baseline picture of airplane, seed 0").count() == 1
    tab.get_by_label("Class", exact=True).focus()
    tab.keyboard.press("Control+a")
    tab.keyboard.type("fro")
    tab.keyboard.press("Enter")
    tab.get_by_label("range slider for mid β (scales 2–3)").focus()
    tab.keyboard.press("ArrowLeft")
    tab.get_by_role("button", name="Generate").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_selector(f'{FINISHED} h2:text-is("frog")', timeout=30_000)
    assert "mid 4.9 on 50%" in tab.get_by_role("status").first.inner_text()
    for side in ("Baseline", "Amplified"):
        picture = tab.get_by_alt_text(f"{side} picture of frog, seed 0")
        assert picture.evaluate("image => image.complete && image.naturalWidth") == 32
        assert tab.get_by_alt_text(f"Saliency over the {side.lower()} picture: frog, seed 0, scale ").count() == 6
    tab.context.close()


def test_mode_and_opacity_and_errors_show_at_once(browser: Any, address: str) -> None:
    tab = opened(browser, address)
    tab.get_by_label("attention: multiply by γ, 1 is off").check()
    tab.get_by_label("range slider for coarse γ (scale 1)").wait_for()
    tab.get_by_label("range slider for Opacity of the saliency").focus()
    tab.keyboard.press("Home")
    tab.wait_for_function("getComputedStyle(document.querySelector('.heat')).opacity === '0'")
    tab.get_by_label("Seed", exact=True).fill("")
    tab.get_by_role("button", name="Generate").click()
    tab.get_by_text("The seed is empty; give a number").wait_for(timeout=10_000)
    assert tab.locator(FINISHED).count() == 1
    tab.context.close()


def test_the_newest_request_wins(browser: Any, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    grow = handlers.grow

    def slowly(model: hieramp.Model, order: handlers.Order) -> Iterator[figures.Scene]:
        for scene in grow(model, order):
            drawn.append(order.seeds[0])
            yield scene
            time.sleep(0.3)

    tab = opened(browser, address)
    monkeypatch.setattr(handlers, "grow", slowly)
    for seed in ("1", "2", "3"):
        tab.get_by_label("Seed", exact=True).fill(seed)
        tab.get_by_role("button", name="Generate").click()
    tab.get_by_alt_text("Amplified picture of airplane, seed 3", exact=True).wait_for(timeout=30_000)
    assert drawn.count(1) < 6 and drawn.count(2) < 6 and drawn.count(3) == 6
    tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows(browser: Any, address: str, scheme: str, width: int) -> None:
    tab = opened(browser, address, scheme, width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    text = tab.evaluate("getComputedStyle(document.querySelector('.result h2')).color")
    assert background != text
    tab.context.close()
