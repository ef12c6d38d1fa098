"""Faults that a walk over the page found: Back, widths, what a link holds, what a form keeps, numbers out of range."""

import re
import time
from collections.abc import Mapping
from typing import Any

import pytest
from conftest import CHROMIUM, FLAGS
from test_page_figures import FINISHED, address, judged_folder, opened  # noqa: F401  (fixtures)

import hieramp
from app import distill_tab, explore, plots, view_requests
from app.context import AppContext
from hieramp.analysis.tokens import Risen, share_interval


def test_one_drag_is_one_step_of_back_however_late_the_answers(
    browser: Any,
    address: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tell = view_requests.address

    def late(*given: Any) -> dict[str, str | None]:
        time.sleep(1.3)
        return tell(*given)

    with opened(browser, f"{address}?class=cat&seed=4", "Explore") as tab:
        tab.wait_for_url("**mode=logit**")
        before = tab.evaluate("history.length")
        monkeypatch.setattr(explore.view_requests, "address", late)
        tab.get_by_label("range slider for mid β (scales 2–3)").focus()
        for _ in range(6):
            tab.keyboard.press("ArrowLeft")
            tab.wait_for_timeout(400)
        tab.wait_for_url("**mid_strength=4.4**")
        assert tab.evaluate("history.length") == before + 1
        monkeypatch.undo()
        tab.go_back()
        tab.wait_for_selector(f'{FINISHED} [data-part="status"]:has-text("mid 5 on 50%")')
        tab.get_by_label("Seed", exact=True).fill("5")  # what comes after is a step of its own
        tab.wait_for_url("**seed=5&**")
        assert tab.evaluate("history.length") == before + 1
        tab.go_back()
        tab.wait_for_url("**seed=4&**mid_strength=5&**")


@pytest.mark.parametrize("level", ["simple", "expert"])
def test_a_phone_with_a_scrollbar_scrolls_no_room_sideways(browser: Any, address: str, level: str) -> None:  # noqa: F811
    """Playwright hides scrollbars, which take 15 of 375 pixels where they are classic."""
    flags = {"args": FLAGS, "ignore_default_args": ["--hide-scrollbars"]}
    with_bars = browser.browser_type.launch(executable_path=CHROMIUM, **flags)
    tab = with_bars.new_page(viewport={"width": 375, "height": 760})
    tab.set_default_timeout(60_000)
    tab.goto(f"{address}?level={level}&count=8")
    tab.wait_for_selector(FINISHED)
    assert tab.evaluate("document.scrollingElement.clientWidth") < 375
    for room in ("What changed", "Ablate", "Distill", "Learn", "Explore"):
        tab.get_by_role("tab", name=room).click()
        tab.wait_for_selector(f'[role=tab][aria-selected=true]:has-text("{room}")')
        tab.wait_for_timeout(300)
        wide, room_for = tab.evaluate("[document.scrollingElement.scrollWidth, document.scrollingElement.clientWidth]")
        assert wide <= room_for, room
    with_bars.close()


@pytest.mark.parametrize("width", [1280, 375])
def test_a_share_stays_with_its_sign_and_no_sample_stands_alone(browser: Any, address: str, width: int) -> None:  # noqa: F811
    with opened(browser, f"{address}?class=cat&count=8", "Explore", width) as tab:
        verdict = tab.locator('[data-verdict="0"]')
        tab.wait_for_function("/\\d.%/.test(document.querySelector('[data-verdict]').textContent)")
        # one run of text from edge to edge, and between a number and its sign no space to break at
        assert verdict.evaluate("p => getComputedStyle(p).display") == "block"
        assert not re.search(r"\d [%]", verdict.evaluate("p => p.textContent"))
        rows = "x => Object.values(Object.groupBy(x, b => b.offsetTop)).map(row => row.length)"
        assert len(set(tab.locator(".gallery button").evaluate_all(rows))) == 1
        # its name and its share are on one line, at 375 with what is before them
        assert re.search(r"\w\N{NO-BREAK SPACE}\W?\d", verdict.evaluate("p => p.textContent"))
        long = (
            "p => { p.textContent = 'classifier: automobile\\u00a0>99\\u00a0%'; return p.getClientRects()[0].height; }"
        )
        assert verdict.evaluate(long) < 20
        # what only resets margins does not outweigh those that are meant
        assert tab.locator(".panel h3").first.evaluate("h => getComputedStyle(h).marginBottom") == "8px"


def test_a_number_beyond_its_slider_is_told_and_marked_in_either_mode(browser: Any, address: str) -> None:  # noqa: F811
    with opened(browser, f"{address}?class=cat", "Explore") as tab:
        tab.wait_for_url("**mode=logit**")
        tab.get_by_label("attention: multiply by γ, 1 is off").check(force=True)
        tab.wait_for_url("**mode=attention**")
        field = tab.locator("#coarse_strength input[type=number]")
        for text, sentence in (("-3", "Coarse strength is -3; in the mode attention"), ("99", "this page goes from 0")):
            field.fill(text)
            tab.get_by_text(sentence).first.wait_for()
            tab.wait_for_selector("#coarse_strength[data-wrong] input[aria-invalid=true]")
            assert "coarse_strength=10&" in tab.url
            field.fill("10")
            tab.wait_for_selector("#coarse_strength:not([data-wrong])")


def test_the_link_holds_the_map_and_the_position_looked_into(browser: Any, address: str) -> None:  # noqa: F811
    with opened(browser, f"{address}?class=cat&seed=4", "Explore") as tab:
        tab.wait_for_url("**mode=logit**")
        tab.get_by_role("button", name="4×4").click()
        tab.locator('[data-part="map"]').select_option("occlusion")
        tab.wait_for_url("**map=occlusion**")
        tab.locator(".map").nth(1).click(position={"x": 5, "y": 5})
        tab.wait_for_url("**look=3-0**")
        link = tab.url
    with opened(browser, link, "Explore") as tab:
        tab.wait_for_function("document.querySelector('.mechanism').textContent.includes('row 1, column 1')")
        assert tab.locator('[data-part="map"]').input_value() == "occlusion"
        assert tab.locator(".looked").first.is_visible()
    with opened(browser, f"{address}?class=cat&seed=4&look=9-99&map=x", "Explore") as tab:  # what there is not
        assert tab.locator('[data-part="map"]').input_value() == ""
        assert not tab.locator(".looked").first.is_visible()


def test_the_form_of_a_set_outlives_a_reload(browser: Any, address: str) -> None:  # noqa: F811
    with opened(browser, address, "Distill") as tab:
        tab.get_by_label("Classes (none chosen: all)").fill("cat")
        tab.keyboard.press("Enter")
        tab.get_by_label("Seed of the set").fill("1.5")
        tab.get_by_role("button", name="Estimate").click()
        tab.get_by_text("The seed of the set is 1.5; give a whole number").wait_for()  # not rounded without a word
        tab.get_by_label("Seed of the set").fill("9")
        tab.get_by_label("number input for Images per class (IPC)").fill("4")
        tab.get_by_text("4 images as it is").wait_for()
        tab.wait_for_timeout(500)
        tab.reload()
        tab.get_by_role("tab", name="Distill").click()
        tab.get_by_text("4 images as it is").wait_for()
        assert tab.get_by_label("Seed of the set").input_value() == "9"
        assert tab.locator(".token", has_text="cat").is_visible()


@pytest.mark.parametrize(("height", "least"), [(768, 220), (860, 280)])
def test_a_low_screen_shows_the_maps_of_all_scales_with_the_pictures(
    browser: Any,
    address: str,  # noqa: F811
    height: int,
    least: int,
) -> None:
    with opened(browser, f"{address}?class=cat", "Explore", 1366) as tab:
        tab.set_viewport_size({"width": 1366, "height": height})
        tab.wait_for_function("document.querySelector('.strip .moved').textContent")
        box = {
            name: tab.locator(f".viewer .{name}").bounding_box() for name in ("stage", "readout", "strip", "copying")
        }
        ends = {name: (found["y"], found["y"] + found["height"]) for name, found in box.items()}
        assert ends["strip"][1] <= height and tab.locator(".strip canvas").last.is_visible()
        assert ends["stage"][1] <= ends["readout"][0] <= ends["readout"][1] <= ends["strip"][0]
        assert ends["strip"][1] <= ends["copying"][0]
        frames = tab.locator('.stage [data-pane="pair"] .frame')
        assert all(frame.bounding_box()["width"] >= least for frame in frames.all())
        # of each scale the two pictures and the two maps are beside one another, and each row has its labels
        tops = (
            "button => [...button.querySelectorAll('img, canvas')].map(x => Math.round(x.getBoundingClientRect().top))"
        )
        first, second, third, fourth = tab.locator(".strip button").last.evaluate(tops)
        assert first == second < third == fourth
        texts = tab.locator(".strip .labels span").evaluate_all("x => x.map(s => s.scrollWidth <= s.clientWidth)")
        assert all(texts)


@pytest.mark.parametrize("kept", [None, {}, [], [[7], 1, 1, 1], [["<b>"], "x", None, "y"], [[True], True, [], 0]])
def test_a_form_that_was_never_kept_changes_nothing(model: hieramp.Model, tmp_path: Any, kept: Any) -> None:
    context = AppContext.make(model, job_root=tmp_path)
    found = distill_tab.form_of(context, kept)
    skipped = [isinstance(one, Mapping) for one in found]
    assert len(found) == 4 and skipped[0] and skipped[3]
    assert all(skip or type(one) is int for one, skip in zip(found, skipped, strict=True))


def test_a_share_of_few_classes_carries_its_interval(model: hieramp.Model) -> None:
    low, high = share_interval(0.9, 10)
    assert (round(low, 3), round(high, 3)) == (0.596, 0.982)  # Wilson's, by hand
    assert share_interval(0, 5)[0] == 0 and share_interval(1, 5)[1] == 1
    risen = {stage: {stage: Risen(0.9, 0.5, 10)} for stage in ("coarse", "mid", "fine")}
    comparison = type("C", (), {"num_classes": 10, "num_wanted": 10, "num_samples": 2, "risen": risen})
    assert "coarse 90% (60% to 98%)" in plots.risen_words(comparison)
