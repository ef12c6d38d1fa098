"""The first minute in a headless browser: a curated pair, its saliency, growing once, and what is said of it."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import serving

import hieramp
from app import curated, page

FINISHED = '.viewer[aria-busy="false"]'
PATIENCE = 60_000
PAIRS = [
    {"class_name": "frog", "seed": 3, "schedule": "all", "notice": "all"},
    {"class_name": "cat", "seed": 1, "schedule": "off", "notice": "same"},
]


@pytest.fixture(scope="module")
def address(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("curated") / "tiny"
    shutil.copytree(model_folder, folder)
    (folder / curated.FILE).write_text(json.dumps(PAIRS))
    yield from serving(page.build(hieramp.load(folder, "cpu"), job_root=tmp_path_factory.mktemp("jobs")))


@contextmanager
def opened(browser: Any, address: str, motion: str = "reduce") -> Iterator[Any]:
    context = browser.new_context(reduced_motion=motion, viewport={"width": 1280, "height": 900})
    # Which scales were shown, in their order, from the first moment on.
    context.add_init_script(
        "window.seen = []; setInterval(() => { const on = document.querySelector('[data-scale][aria-pressed=true]');"
        "if (on && window.seen.at(-1) !== on.dataset.scale) window.seen.push(on.dataset.scale); }, 20);"
    )
    tab, failures = context.new_page(), []
    tab.set_default_timeout(PATIENCE)
    tab.on("pageerror", lambda error: failures.append(str(error)))
    tab.goto(address)
    tab.wait_for_selector(FINISHED)
    yield tab
    context.close()
    assert not failures


def test_it_opens_on_the_first_pair_and_grows_once(browser: Any, address: str) -> None:
    with opened(browser, address, "no-preference") as tab:
        tab.wait_for_function("window.seen.join('').endsWith('012345')")
        assert tab.locator(f"{FINISHED} h2").first.inner_text() == "frog"
        tab.wait_for_url("**overlay=0.4**")
        assert tab.get_by_label("Seed", exact=True).input_value() == "3"
        size = tab.locator('[data-part="size"]').inner_text()
        assert re.fullmatch(r"\d+×\d+ pixels, enlarged; the pair drawn in \d+\.\d+ s on this machine", size)
        assert "Every scale but the first is amplified" in tab.locator('[data-part="notice"]').inner_text()
        legend = tab.locator('[data-part="top"]').inner_text()
        assert re.fullmatch(r"0\.\d+ of its attention", legend)
        tab.wait_for_timeout(1500)
        assert tab.evaluate("window.seen.join('')").count("0") == 1  # once


def test_less_motion_and_links_do_not_grow(browser: Any, address: str) -> None:
    with opened(browser, address) as tab:
        tab.wait_for_url("**overlay=0.4**")
        tab.wait_for_timeout(1000)
        assert tab.evaluate("window.seen") == ["5"]
    with opened(browser, f"{address}?class=cat&seed=1", "no-preference") as tab:
        tab.wait_for_selector(f'{FINISHED} h2:text-is("cat")')
        tab.wait_for_timeout(1000)
        seen = tab.evaluate("window.seen")  # scales as they were drawn, and not once more
        assert tab.locator('[data-part="opacity"]').input_value() == "0" and seen == sorted(seen)


def test_an_example_shows_its_pair_and_back_undoes_it(browser: Any, address: str) -> None:
    with opened(browser, address) as tab:
        tab.wait_for_url("**overlay=0.4**")
        tab.get_by_role("link", name="cat: one picture grows").click()
        tab.wait_for_selector(f'{FINISHED} h2:text-is("cat")')
        said = tab.locator('[data-part="notice"]')
        assert said.inner_text().startswith("Nothing is amplified, so all 130 tokens")
        pictures = [
            tab.get_by_alt_text(f"{side} picture of cat, seed 1", exact=True).first
            for side in ("Baseline", "Amplified")
        ]
        shown = [
            picture.evaluate(
                "i => { const c = document.createElement('canvas'); c.width = c.height = 32;"
                "c.getContext('2d').drawImage(i, 0, 0, 32, 32); return c.toDataURL(); }"
            )
            for picture in pictures
        ]
        assert shown[0] == shown[1]  # as it says
        tab.get_by_label("Seed", exact=True).fill("2")  # no curated pair
        tab.get_by_alt_text("Baseline picture of cat, seed 2", exact=True).first.wait_for()
        said.wait_for(state="hidden")
        tab.go_back()
        tab.get_by_alt_text("Baseline picture of cat, seed 1", exact=True).first.wait_for()
        tab.go_back()
        tab.wait_for_selector(f'{FINISHED} h2:text-is("frog")')


def test_the_examples_fit_a_phone(browser: Any, address: str) -> None:
    with opened(browser, address) as tab:
        tab.set_viewport_size({"width": 390, "height": 844})
        tab.wait_for_function("innerWidth === 390")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.locator(".examples a").count() == len(PAIRS)
