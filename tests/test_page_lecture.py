"""In a headless browser: models to choose from, files of the view, presentation, a phone's sheet, levels, the tour."""

import io
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.middleware import Middleware
from test_page import AXE, FINISHED, opened

import hieramp
from app import curated, handlers, model_pages, page, page_head, saved_files, view_requests
from app.context import AppContext
from app.models import Offered
from app.scheduling import Device

PAIRS = [{"class_name": "dog", "seed": 2, "schedule": "off", "notice": "same"}]


@pytest.fixture(scope="module")
def known(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Offered, ...]:
    root, found = tmp_path_factory.mktemp("models"), []
    for name in ("first", "second"):
        shutil.copytree(model_folder, root / name)
        found.append(Offered(name, str(root / name), "var"))
    (root / "second" / curated.FILE).write_text(json.dumps(PAIRS))
    return tuple(found)


@pytest.fixture(scope="module")
def served(known: tuple[Offered, ...]) -> hieramp.Model:
    return hieramp.load(known[0].source, "cpu")


@pytest.fixture(scope="module")
def address(
    known: tuple[Offered, ...], served: hieramp.Model, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    device, jobs = Device(), tmp_path_factory.mktemp("jobs")

    def context_of(one: Offered) -> AppContext:
        model = served if one is known[0] else hieramp.load(one.source, "cpu")
        return AppContext.make(model, job_root=jobs / one.name, models=known, device=device)

    book = model_pages.PageBook(known, context_of)
    demo = page.build_on(context_of(known[0]))
    front = {"middleware": [Middleware(model_pages.Front, book=book)]}
    page.launch(demo, prevent_thread_lock=True, quiet=True, app_kwargs=front)
    yield demo.local_url
    demo.close()


def test_another_model_keeps_class_seed_and_settings(browser: Any, address: str) -> None:
    with opened(browser, f"{address}?class=cat&seed=3&mid_strength=2&overlay=0.3") as tab:
        tab.wait_for_url("**model=first**")
        tab.get_by_label("Model", exact=True).click()
        tab.get_by_role("option", name="second (VAR)").click()
        tab.wait_for_url("**model=second**fine_strength=5**")
        tab.wait_for_selector(f'{FINISHED} h2:text-is("cat")')
        assert "mid 2 on 50%" in tab.locator('[data-part="status"]').inner_text()
        assert tab.get_by_label("Seed", exact=True).input_value() == "3"
        assert tab.locator('[data-part="opacity"]').input_value() == "0.3"
        link = tab.get_by_role("link", name="dog: one picture grows")
        link.click()  # an example of this model
        tab.wait_for_selector(f'{FINISHED} h2:text-is("dog")')
        assert "model=second" in tab.url
    with opened(browser, f"{address}?model=third&class=cat") as tab:
        tab.get_by_text("there is no model 'third' here, but first, second. first is shown").wait_for()


def test_the_view_is_saved(browser: Any, address: str, served: hieramp.Model) -> None:
    with opened(browser, f"{address}?class=cat&seed=4&scale=3&overlay=0.5&outline=1") as tab:
        tab.wait_for_url("**model=first**")
        tab.wait_for_selector(f'{FINISHED} h2:text-is("cat")')
        got = {}
        for button in ("Save figure", "Save growth", "Save maps"):
            with tab.expect_download() as saved:
                tab.get_by_role("button", name=button).click()
            got[saved.value.suggested_filename] = Path(saved.value.path()).read_bytes()
    assert list(got) == ["cat-seed4-figure.png", "cat-seed4-growth.gif", "cat-seed4-maps.zip"]
    view_request = view_requests.from_query(served, {"class": "cat", "seed": "4"})
    asked = {"what": "figure", "scale": 3, "overlay": 0.5, "outline": True}
    *_, made = saved_files.saving(served, view_request, asked)
    assert made.answer and got["cat-seed4-figure.png"] == made.answer["bytes"]
    with Image.open(io.BytesIO(got["cat-seed4-growth.gif"])) as film:
        assert film.n_frames == 6
    with zipfile.ZipFile(io.BytesIO(got["cat-seed4-maps.zip"])) as archive:
        assert np.load(io.BytesIO(archive.read("maps.npz")))["saliency_3"].shape == (2, 4, 4)


def test_a_lecture_steps_by_keys(browser: Any, address: str) -> None:
    with opened(browser, f"{address}?class=cat&seed=4") as tab:
        before = tab.locator(".viewer h2").first.evaluate("h => parseFloat(getComputedStyle(h).fontSize)")
        tab.get_by_role("button", name="Present").click()
        tab.wait_for_function("document.fullscreenElement && document.fullscreenElement.matches('.viewer.presenting')")
        assert tab.locator(".viewer h2").first.evaluate("h => parseFloat(getComputedStyle(h).fontSize)") > 1.5 * before
        assert not tab.locator(".panel").is_visible() and not tab.get_by_role("button", name="Copy link").is_visible()
        readout, overlay = tab.locator('[data-part="readout"]'), tab.locator('[data-part="opacity"]')
        for key, scale in (("ArrowLeft", "Scale 4, 6×6"), ("PageUp", "Scale 3, 4×4"), ("Home", "Scale 0"),
                           ("ArrowRight", "Scale 1, 2×2")):  # fmt: skip
            tab.keyboard.press(key)
            assert readout.inner_text().startswith(scale)
        painted = "document.querySelector('.map').getContext('2d').getImageData(9, 9, 1, 1).data[3]"
        for expected in ("0.5", "0"):
            tab.keyboard.press("s")
            assert overlay.input_value() == expected and bool(tab.evaluate(painted)) == (expected != "0")
        box = tab.locator('[data-pane="pair"] .frame').first.bounding_box()
        assert box["width"] > 380 and box["y"] + box["height"] < 900
        tab.get_by_role("button", name="Leave").click()
        tab.wait_for_function("!document.fullscreenElement")
        assert tab.locator(".panel").is_visible() and tab.evaluate("document.activeElement.dataset.part") == "present"


def test_a_phone_has_its_controls_in_a_sheet_that_leaves_the_pictures_in_view(
    browser: Any,
    address: str,
) -> None:
    with opened(browser, f"{address}?class=cat&seed=4", width=390) as tab:
        tab.wait_for_url("**model=first**")
        assert not tab.locator("#controls").is_visible()
        handle = tab.locator("#sheet-handle")
        handle.click()
        assert handle.get_attribute("aria-expanded") == "true"
        slider = tab.get_by_label("range slider for mid β (scales 2–3)")
        slider.focus()
        tab.keyboard.press("ArrowLeft")
        tab.wait_for_url("**mid_strength=4.9**")
        stage, sheet = tab.locator(".viewer .stage").bounding_box(), tab.locator("#controls").bounding_box()
        pictures = tab.locator('[data-pane="pair"] .frame').first.bounding_box()
        assert stage["y"] >= -1 and pictures["y"] + pictures["height"] < sheet["y"]
        tab.keyboard.press("Escape")
        assert not tab.locator("#controls").is_visible() and tab.evaluate("document.activeElement.id") == "sheet-handle"
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_simple_hides_what_is_for_experts_and_is_kept(browser: Any, address: str) -> None:
    with opened(browser, f"{address}?class=cat") as tab:
        tab.wait_for_url("**model=first**")
        expert = (tab.locator("#mode"), tab.locator("#sampling"), tab.locator("#location"), tab.get_by_label("Block"))
        assert all(one.is_visible() for one in expert)
        tab.get_by_role("button", name="Simple").click()
        tab.wait_for_url("**level=simple**")
        assert not any(one.is_visible() for one in expert) and tab.locator("#preset").is_visible()
        link = tab.url
        tab.goto(address)
        tab.wait_for_selector(FINISHED)
        assert not expert[0].is_visible()  # remembered
    with opened(browser, link) as tab:  # and in the link
        assert not tab.locator("#mode").is_visible()
        assert tab.get_by_role("button", name="Simple").get_attribute("aria-pressed") == "true"


def test_the_tour_asks_before_it_shows(browser: Any, address: str, served: hieramp.Model) -> None:
    with opened(browser, f"{address}?class=frog&seed=1&guidance=2&view=compare") as tab:
        tab.wait_for_url("**model=first**")
        tab.get_by_role("tab", name="Learn").click()
        tab.get_by_role("button", name="Start the tour").click()
        heading, shown = tab.locator("#tour-text h2"), list[str]()
        heading.wait_for()
        tab.wait_for_function("document.activeElement.matches('#tour-text h2')")
        while True:
            title = heading.inner_text()
            shown.append(title)
            if title == "That was the tour":
                break
            tab.locator(".viewer .strip").wait_for(state="hidden")  # the answer is not to be seen
            tab.wait_for_selector(f'{FINISHED} [data-part="status"]:has-text("Amplification is off")')
            assert tab.get_by_role("button", name="Show it").is_disabled()
            tab.locator("#tour-guess label").first.click()
            tab.get_by_role("button", name="Show it").click()
            tab.locator("#tour-text .found").wait_for()
            assert tab.locator(".viewer .strip").is_visible()
            said = tab.locator("#tour-text .found").inner_text()
            if title == "A coarse cause":
                tab.wait_for_selector(f'{FINISHED} [data-part="status"]:has-text("coarse 5 on 50%, mid off")')
                differ = [
                    text.split(" of ")[0] for text in tab.locator(".strip small span:first-child").all_inner_texts()
                ]
                assert f"{sum(map(int, differ[2:]))} of the " in said  # as the strip counts them
            tab.get_by_role("button", name="Next", exact=True).click()
            tab.wait_for_function("t => document.querySelector('#tour-text h2').textContent !== t", arg=title)
        assert "Is it more itself?" not in shown  # this model has no classifier to ask
        assert f"{len(shown) - 1} predictions" in tab.locator("#tour-text").inner_text()
        assert "Is it more itself?" in tab.locator("#tour-text .note").inner_text()  # and that is told
        tab.get_by_role("button", name="End the tour").click()
        tab.get_by_role("button", name="End the tour").wait_for(state="hidden")
        tab.wait_for_function("document.activeElement.matches('[role=tab][aria-selected=true]')")


def test_the_size_of_a_change_how_it_is_drawn_and_whose_page_it_is(
    browser: Any,
    address: str,
    served: hieramp.Model,
) -> None:
    """Defects D6, D35 and D36 of the first test of the page by a stranger."""
    with opened(browser, f"{address}?class=cat&seed=4") as tab:
        *_, view_model = handlers.grow(served, view_requests.from_query(served, {"class": "cat", "seed": "4"}))
        moved = [f"pixels {100 * step['moved'][0]:.1f}\N{NO-BREAK SPACE}%" for step in view_model["steps"]]
        assert tab.locator(".strip .moved").all_inner_texts() == moved and moved[-1] != "pixels 0.0\N{NO-BREAK SPACE}%"
        titles = "[...document.head.querySelectorAll('meta[property=\"og:title\"]')].map(m => m.content)"
        assert tab.evaluate(titles) == [page_head.TITLE] and "Gradio" not in tab.evaluate(
            "[...document.head.querySelectorAll('meta')].map(m => m.content).join()"
        )
        tab.get_by_role("tab", name="Learn").click()
        picture = tab.get_by_role("img", name="A picture is the sum of 6 scales.")
        assert picture.is_visible() and "64 tokens" in picture.text_content()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing(browser: Any, address: str, scheme: str, width: int) -> None:
    if not AXE.exists():
        pytest.skip(f"axe-core is not at {AXE}: npm install axe-core, and name it in AXE")
    with opened(browser, f"{address}?class=cat&model=second", scheme, width) as tab:
        tab.evaluate(AXE.read_text(encoding="utf-8"))

        def violations() -> list[tuple[str, str]]:
            tab.wait_for_function("!document.querySelector('.strip .stale, .viewer[aria-busy=true]')")
            tab.wait_for_timeout(300)  # transitions
            found = tab.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
            return [(one["id"], one["nodes"][0]["html"]) for one in found]

        if width < 760:
            tab.locator("#sheet-handle").click()
            assert not violations()
            tab.locator("#sheet-handle").click()
        tab.get_by_role("tab", name="Learn").click()
        tab.get_by_role("button", name="Start the tour").click()
        tab.locator("#tour-text h2").wait_for()
        assert not violations()
        tab.get_by_role("button", name="End the tour").click()
        tab.get_by_role("button", name="Present").click()
        tab.wait_for_timeout(300)
        assert not violations()
