"""What takes longer than a moment, in a headless browser: how far it is, its Stop, and results of other settings."""

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import serving
from test_page_figures import address, judged_folder, opened  # noqa: F401

import hieramp
from app import context, estimate_tab, exports, handlers, inside, page, verdicts, view_requests
from app.distill_requests import read_distill_request
from app.scheduling import Device
from app.visitor_limits import VisitorLimits
from hieramp.distillation.estimate import PILOT_IMAGES, estimate, estimating

STOPPED = "Stopped: this is as far as it came."


class Gate:
    """Lets studies compute so many times, and no further until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.let, self.opened, self.job = 0, threading.Event(), Device.job
        begun, gate = itertools.count(), self

        @contextmanager
        def held_up(device: Device) -> Iterator[None]:
            if next(begun) >= gate.let:
                gate.opened.wait(60)
            with gate.job(device):
                yield

        self.patch = lambda: monkeypatch.setattr(Device, "job", held_up)

    def hold_after(self, count: int) -> None:
        self.let = count
        self.patch()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.opened.set()


def number(tab: Any, label: str) -> Any:
    return tab.get_by_label(f"number input for {label}", exact=True)


def test_an_estimate_tells_how_far_it_is_stops_and_is_marked_when_it_is_of_other_settings(
    browser: Any,
    address: str,  # noqa: F811
    gate: Gate,
) -> None:
    with opened(browser, f"{address}?class=cat&guidance=2", "Distill") as tab:
        place, end = tab.locator("#estimate"), tab.get_by_role("button", name="Stop estimating")
        number(tab, "Images per class (IPC)").fill("7")
        tab.get_by_text("28 images as it is").wait_for()
        assert end.is_disabled()
        gate.hold_after(2)
        tab.get_by_role("button", name="Estimate", exact=True).click()
        bar = place.get_by_role("progressbar", name="Progress")
        tab.wait_for_function("document.querySelector('#estimate [role=progressbar]')?.ariaValueNow === '56'")
        assert re.search(r"5 of 9, about \d+ s left", bar.locator("xpath=..").inner_text())
        assert re.search(r"28 images: about .* So far", place.inner_text())
        end.click()
        gate.opened.set()
        place.get_by_text(STOPPED).wait_for()
        assert not bar.count() and end.is_disabled()
        tab.get_by_role("button", name="Estimate", exact=True).click()
        place.get_by_text(re.compile(r"^28 images: about \d+ s of computing and [\d.]+ [kM]B\.$")).wait_for()
        note = place.locator(".stale-note")
        assert not note.is_visible() and not place.get_by_text(STOPPED).count()
        number(tab, "Images per class (IPC)").fill("8")
        note.wait_for()
        tab.locator("#set-count").get_by_text("32 images as it is").wait_for()
        assert "28 images" in place.inner_text()
        number(tab, "Images per class (IPC)").fill("7")
        note.wait_for(state="hidden")
        tab.get_by_label("Soft labels").check()
        note.wait_for()
        tab.get_by_label("Soft labels").uncheck()
        note.wait_for(state="hidden")
        tab.get_by_label("Classes (none chosen: all)").fill("cat")
        tab.keyboard.press("Enter")
        note.wait_for()
        tab.keyboard.press("Backspace")
        note.wait_for(state="hidden")
        tab.get_by_label("Seed of the set").fill("3")  # it takes as long from any seed
        tab.get_by_label("Seed", exact=True).fill("5")
        tab.wait_for_url("**seed=5**")
        assert not note.is_visible()
        tab.get_by_label("range slider for mid β (scales 2–3)").focus()
        tab.keyboard.press("ArrowLeft")
        note.wait_for()


def test_an_estimate_grows_and_is_kept_only_when_it_is_whole(model: hieramp.Model) -> None:
    how = hieramp.Settings(guidance=3.5, blocks=(0,), mid=(0.5, 1.0))
    begun = estimating(model, 10, how)
    first, second = next(begun), next(begun)
    assert (first.done, first.found) == (1, None) and second.done > 1 and second.found is not None
    begun.close()  # type: ignore[attr-defined]
    parts = list(estimating(model, 10, how))
    assert [part.done for part in parts] == [1, 1 + PILOT_IMAGES // 2, 1 + PILOT_IMAGES] and parts[-1].is_finished
    assert not any(part.is_finished for part in parts[:-1]) and parts[-1].found == estimate(model, 10, how)
    (known,) = estimating(model, 20, how)
    assert known.is_finished and known.found is not None and parts[-1].found is not None
    assert known.found.seconds == pytest.approx(2 * parts[-1].found.seconds)


def test_drawings_go_before_an_estimate(model: hieramp.Model, tmp_path: Path) -> None:
    """A drawing that comes while it is under way is not kept waiting until its end."""
    app = context.AppContext.make(model, job_root=tmp_path)
    values = view_requests.defaults(model) | {"ipc": 1, "set_seed": 0, "guidance": 4.5}
    under_way = app.study("estimate", read_distill_request(model, VisitorLimits(), values))
    assert next(under_way).done == 1
    drawing = threading.Thread(target=lambda: list(app.grow(view_requests.first_request(model))), daemon=True)
    drawing.start()
    drawing.join(30)
    assert not drawing.is_alive()
    *_, last = under_way
    assert last.is_finished


def test_what_a_set_is_not_made_by_leaves_its_estimate(model: hieramp.Model) -> None:
    values = view_requests.defaults(model) | {"ipc": 1, "set_seed": 0}
    asked = read_distill_request(model, VisitorLimits(), values)
    assert {"class", "seed", "count"}.isdisjoint(of := estimate_tab.stale_of(model, asked)) and "guidance" in of


def test_a_comparison_tells_how_long_it_takes_and_stops(browser: Any, address: str, gate: Gate) -> None:  # noqa: F811
    with opened(browser, address, "What changed") as tab:
        number(tab, "Classes").fill("4")
        number(tab, "Samples of each").fill("1")
        gate.hold_after(1)
        tab.get_by_role("button", name="Compare schedules").click()
        words = tab.locator("#risen-words")
        words.get_by_role("progressbar", name="Progress").wait_for()
        assert re.search(r"1 of 4, about \d+ s left", words.inner_text())
        tab.locator("#stop-compare").click()
        gate.opened.set()
        words.get_by_text(STOPPED).wait_for()
        assert tab.locator("#stop-compare").is_disabled() and not words.get_by_role("link").count()


def test_results_of_another_form_are_marked(browser: Any, address: str) -> None:  # noqa: F811
    with opened(browser, f"{address}?class=cat", "What changed") as tab:
        number(tab, "Samples").fill("2")
        tab.get_by_role("button", name="Count tokens").click()
        tab.get_by_role("link", name="differences.svg").wait_for()
        number(tab, "Classes").fill("2")
        number(tab, "Samples of each").fill("1")
        tab.get_by_role("button", name="Compare schedules").click()
        tab.locator("#risen-words").get_by_role("link", name="differences.png").wait_for()
        counted, compared = (tab.locator(f"#{name} .stale-note") for name in ("usage-words", "risen-words"))
        assert not counted.is_visible() and not compared.is_visible()
        number(tab, "Samples").fill("3")
        counted.wait_for()
        assert counted.inner_text() == context.STALE and not compared.is_visible()
        for field, was, now in (("Classes", "2", "3"), ("Samples of each", "1", "2")):
            number(tab, field).fill(now)
            compared.wait_for()
            number(tab, field).fill(was)
            compared.wait_for(state="hidden")
        tab.get_by_role("tab", name="Ablate").click()
        tab.get_by_label("Values of the columns").fill("off, all")
        tab.get_by_role("button", name="Draw the sheet").click()
        tab.get_by_role("link", name="Save SVG").wait_for()
        drawn = tab.locator("[data-study=sheet] .stale-note")
        assert not drawn.is_visible()
        tab.get_by_label("Values of the columns").fill("off")
        drawn.wait_for()
        tab.get_by_label("Values of the columns").fill("off, all")
        drawn.wait_for(state="hidden")
        number(tab, "Seeds, a row each").fill("2")
        drawn.wait_for()
        number(tab, "Seeds, a row each").fill("1")
        drawn.wait_for(state="hidden")
        tab.get_by_role("radio", name="Guidance").check(force=True)  # another field across
        drawn.wait_for()
        tab.get_by_role("button", name="Draw the curves").click()
        dose = tab.locator("[data-study=dose]")
        dose.get_by_role("link").first.wait_for()
        assert not dose.locator(".stale-note").is_visible()
        for field, other in (("dose-stage", 0), ("dose-knob", 1)):
            radios = tab.locator(f"#{field} input")
            was = radios.evaluate_all("all => all.findIndex(one => one.checked)")
            radios.nth(other).check(force=True)
            dose.locator(".stale-note").wait_for()
            radios.nth(was).check(force=True)
            dose.locator(".stale-note").wait_for(state="hidden")


@pytest.fixture(scope="module")
def without_data(model: hieramp.Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page whose verdicts are there at once: it trains no student."""
    yield from serving(page.build(model, VisitorLimits(ipc=50), job_root=tmp_path_factory.mktemp("jobs")))


def test_a_verdict_on_another_set_is_marked(browser: Any, without_data: str, gate: Gate) -> None:
    with opened(browser, without_data, "Distill") as tab:
        tab.get_by_label("Classes (none chosen: all)").fill("cat")
        tab.keyboard.press("Enter")
        number(tab, "Images per class (IPC)").fill("1")
        tab.get_by_role("button", name="Make the set").click()
        verdict = tab.locator("#verdict")
        verdict.get_by_text("Verdict on tiny-ipc1-seed0.zip").wait_for()
        verdict.get_by_role("link", name="Save JSON").wait_for()
        assert not verdict.locator(".stale-note").is_visible()
        tab.get_by_label("Seed of the set").fill("5")
        gate.hold_after(0)
        tab.get_by_role("button", name="Make the set").click()
        verdict.locator(".stale-note").wait_for()
        assert "another set" in verdict.inner_text() and "Verdict on tiny-ipc1-seed0.zip" in verdict.inner_text()
        tab.locator("#my-sets").get_by_label(re.compile("tiny-ipc1-seed0")).check(force=True)
        verdict.locator(".stale-note").wait_for(state="hidden")


# Explore


def paced(found: Iterator[Any], told: list[Any], pause: Callable[[], Any]) -> Iterator[Any]:
    """The same, each noted as it is asked for, and handed on after a pause."""
    for one in found:
        told.append(one)
        pause()
        yield one


def seconds(count: float) -> Callable[[], None]:
    return lambda: time.sleep(count)


def test_a_long_drawing_tells_how_long_it_takes_and_stops(
    browser: Any,
    address: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grow, drawn, go_on = handlers.grow, list[Any](), threading.Event()
    with opened(browser, f"{address}?class=cat", "Explore") as tab:
        status, end = tab.locator('[data-part="status"]'), tab.get_by_role("button", name="Stop drawing")
        number(tab, "Number of images").fill("3")
        tab.wait_for_url("**count=3**")
        tab.wait_for_selector(".viewer[aria-busy=false] .gallery button:nth-child(3)")
        tab.wait_for_timeout(1500)
        assert not end.is_visible()
        monkeypatch.setattr(handlers, "grow", lambda *given: paced(grow(*given), drawn, seconds(1.2)))
        tab.get_by_label("Seed", exact=True).fill("41")
        tab.get_by_text("Drawing the first scale …").wait_for()
        tab.get_by_text(re.compile(r"^Drawing scale [23], \d×\d: about \d+ s left$")).wait_for()
        assert tab.locator(".viewer[aria-busy=true]").count()
        end.click()
        status.get_by_text(re.compile("^Stopped before scale [234],")).wait_for()
        assert not end.is_visible() and tab.locator(".viewer[aria-busy=false]").count()
        tab.wait_for_timeout(2500)  # what was in hand
        before = len(drawn)
        tab.wait_for_timeout(2500)
        assert len(drawn) == before < 6 and status.inner_text().startswith("Stopped before scale")
        monkeypatch.setattr(handlers, "grow", lambda *given: paced(grow(*given), drawn, lambda: go_on.wait(60)))
        tab.get_by_label("Seed", exact=True).fill("42")  # ended before its first scale is there
        end.click()
        tab.wait_for_timeout(1500)  # until the server knows
        go_on.set()
        tab.wait_for_timeout(1500)
        assert len(drawn) <= before + 1 and status.inner_text().startswith("Stopped")
        monkeypatch.setattr(handlers, "grow", grow)
        tab.get_by_label("Seed", exact=True).fill("43")
        tab.get_by_alt_text("Amplified picture of cat, seed 43", exact=True).first.wait_for()
        tab.wait_for_selector('.viewer[aria-busy=false] [data-part="status"]:has-text("Seeds 43–45")')
        assert not end.is_visible()


def test_a_long_file_tells_how_far_it_is_and_stops(
    browser: Any,
    address: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames, made = exports.frames, list[Any]()
    with opened(browser, f"{address}?class=cat&seed=4", "Explore") as tab:
        said, end = tab.locator('[data-part="copied"]'), tab.get_by_role("button", name="Stop saving")
        monkeypatch.setattr(exports, "frames", lambda *given: paced(frames(*given), made, seconds(1.2)))
        tab.get_by_role("button", name="Save growth").click()
        tab.get_by_text(re.compile(r"^Making the frames: [23] of 6, about \d+ s left …$")).wait_for()
        end.click()
        assert said.inner_text() == "Stopped." and not end.is_visible()
        tab.wait_for_timeout(2500)  # what was in hand
        count = len(made)
        tab.wait_for_timeout(4000)
        assert len(made) == count < 6 and said.inner_text() == "Stopped."
        monkeypatch.setattr(exports, "frames", frames)
        with tab.expect_download() as got:
            tab.get_by_role("button", name="Save growth").click()
        assert got.value.suggested_filename == "cat-seed4-growth.gif" and not end.is_visible()
        tab.get_by_text("Saved as cat-seed4-growth.gif.").wait_for()
        monkeypatch.setattr(exports, "frames", lambda *given: 1 / 0)  # what goes wrong leaves nothing waiting
        tab.get_by_role("button", name="Save growth").click()
        tab.get_by_text("Something went wrong on the server").first.wait_for()
        tab.wait_for_timeout(1500)
        assert said.inner_text() == "" and not end.is_visible()


def test_an_occlusion_map_tells_how_far_it_is_and_stops(
    browser: Any,
    address: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts, blurred = verdicts.occlusion_parts, list[Any]()
    with opened(browser, f"{address}?class=cat&seed=4", "Explore") as tab:
        said, end = tab.locator('[data-part="agreement"]'), tab.get_by_role("button", name="Stop blurring")
        monkeypatch.setattr(verdicts, "occlusion_parts", lambda *given: paced(parts(*given), blurred, seconds(1.0)))
        overlay = tab.locator('[data-part="opacity"]')
        assert overlay.input_value() == "0"
        tab.locator('[data-part="map"]').select_option("occlusion")
        assert overlay.input_value() == "0.5"  # who chooses a map sees it
        tab.get_by_text(
            re.compile(r"^Blurring one position after another: \d+ of 260, about \d+ (s|min) left …$")
        ).wait_for()
        end.click()
        assert said.inner_text() == "Stopped: choose the map again to have it." and not end.is_visible()
        tab.wait_for_timeout(2500)
        count = len(blurred)
        tab.wait_for_timeout(1500)
        assert count == len(blurred) < 12
        monkeypatch.setattr(verdicts, "occlusion_parts", parts)
        tab.locator('[data-part="map"]').select_option("")
        assert not said.is_visible()
        tab.locator('[data-part="map"]').select_option("occlusion")
        tab.get_by_text(re.compile("Rank correlation with the saliency of this scale")).wait_for()
        assert not end.is_visible()


def test_a_look_inside_tells_how_far_it_is_and_stops(
    browser: Any,
    address: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looking, told = inside.looking, list[Any]()
    with opened(browser, f"{address}?class=cat&seed=4", "Explore") as tab:
        said, end = tab.locator('[data-part="looking"]'), tab.get_by_role("button", name="Stop looking inside")
        place, codes = tab.locator("#mechanism"), tab.locator("#mechanism .codes li")
        invitation = place.get_by_text(re.compile("^Click a position of a picture"))
        tab.locator(".map").nth(1).click(position={"x": 3, "y": 3})
        place.get_by_text("Scale 5 (8×8), row 1, column 1;").wait_for()
        assert said.inner_text() == "" and not end.is_visible() and codes.count()
        monkeypatch.setattr(inside, "looking", lambda *given: paced(looking(*given), told, seconds(1.2)))
        tab.get_by_role("button", name="6×6").click()
        tab.locator(".map").nth(1).click(position={"x": 3, "y": 3})
        said.get_by_text(
            re.compile(r"^Drawing it again, position by position: \d+ of 66, about \d+ s left …$")
        ).wait_for()
        assert place.locator('[data-part="body"][aria-busy=true]').count()  # what is there is of another position
        end.click()
        assert said.inner_text() == "Stopped: click the position again to look inside." and not end.is_visible()
        assert invitation.is_visible() and not codes.first.is_visible()
        tab.wait_for_timeout(2500)  # what was in hand
        count = len(told)
        tab.wait_for_timeout(2500)
        assert count == len(told) < 5
        monkeypatch.setattr(inside, "looking", looking)
        tab.locator(".map").nth(1).click(position={"x": 3, "y": 3})
        place.get_by_text("Scale 4 (6×6), row 1, column 1;").wait_for()
        assert said.inner_text() == "" and codes.first.is_visible() and not place.locator("[aria-busy=true]").count()
        monkeypatch.setattr(inside, "looking", lambda *given: 1 / 0)  # what goes wrong leaves nothing waiting
        tab.get_by_role("button", name="4×4").click()
        tab.locator(".map").nth(1).click(position={"x": 3, "y": 3})
        tab.get_by_text("Something went wrong on the server").first.wait_for()
        tab.wait_for_timeout(1500)
        assert said.inner_text() == "" and not end.is_visible() and invitation.is_visible()
