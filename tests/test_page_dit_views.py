"""In a headless browser: a diffusion transformer's second opinion, its dose and response, and its tour."""

import csv
import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from judged_dit import judged_dit
from serving import serving
from test_page import AXE
from test_page_figures import FINISHED, downloaded, opened

from app import handlers, page, stops_dit, verdicts, view_requests
from app.denoising import RecentGrowth
from app.stops import search, stops_of
from hieramp.analysis.dose import sweep
from hieramp.diffusion.model import DiffusionModel
from hieramp.settings import DEFAULTS, Settings


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    """One that draws in nine steps where nothing is said."""
    return replace(judged_dit(tmp_path_factory.mktemp("judged")), defaults=Settings.of(DEFAULTS["dit"], steps=9))


@pytest.fixture(scope="module")
def address(dit: DiffusionModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from serving(page.build(dit, job_root=tmp_path_factory.mktemp("jobs")))


def said(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def test_the_classifiers_verdict_and_its_map(browser: Any, address: str, dit: DiffusionModel) -> None:
    query = {"class": "b", "seed": "3", "steps": "4"}
    view_request = view_requests.from_query(dit, query)
    *_, last = verdicts.occlusion_view(dit, view_request, {"sample": 0})
    view = last.answer
    assert view is not None
    *_, grown = handlers.grow(dit, view_request)
    with opened(browser, f"{address}?class=b&seed=3&steps=4&overlay=0.5", "Explore") as tab:
        tab.wait_for_selector(f'{FINISHED} h2:text-is("b")')
        for side, (name, share) in enumerate(view["verdicts"]):
            line = tab.locator(f'[data-verdict="{side}"]')
            line.get_by_text(f"classifier: {name} {said(share)}").wait_for()
            assert name == "b" or f"b {said(view['asked'][side])}" in line.inner_text()
        choice = tab.locator('[data-part="map"]')
        assert choice.locator("option").all_text_contents() == [
            "M, what the class moves", "occlusion of the classifier",
        ]  # fmt: skip
        painted = "document.querySelector('.map').toDataURL()"
        before = tab.evaluate(painted)
        choice.select_option("occlusion")
        told = tab.locator('[data-part="agreement"]')
        told.get_by_text("with the map M of this step").wait_for()
        for step in (3, 1):
            tab.locator(f'[data-scale="{step}"]').click()
            numbers = " and ".join(f"{r:z.2f}".replace("-", "−") for r in view["agreement"][step])
            assert (
                f"Rank correlation with the map M of this step: {numbers} (baseline and amplified" in told.inner_text()
            )
            moved = f"pixels differ by {100 * grown['steps'][step]['moved'][0]:.1f}\N{NO-BREAK SPACE}%"
            assert moved in tab.locator('[data-part="readout"]').inner_text()
        assert tab.evaluate(painted) != before and "Occlusion over" in tab.locator(".map").first.get_attribute(
            "aria-label"
        )
        assert tab.locator(".strip .labels").inner_text().count("Occlusion") == 2
        tab.wait_for_url("**map=occlusion**")
        link = tab.url
    with opened(browser, link, "Explore") as tab:
        assert tab.locator('[data-part="map"]').input_value() == "occlusion"
        tab.locator('[data-part="agreement"]').get_by_text("Rank correlation").wait_for()


def test_dose_and_response(browser: Any, address: str, dit: DiffusionModel) -> None:
    with opened(browser, f"{address}?class=b&seed=3&steps=4", "Ablate") as tab:
        about = tab.get_by_text("One stage’s strength or ρ over nine values").inner_text()
        assert (
            "draws no tokens, so there is no entropy" in about and "different codes of each finished picture" in about
        )
        stages = tab.locator("#dose-stage label").all_inner_texts()
        assert stages == ["coarse (t 1–0.88)", "mid (t 0.88–0.62)", "fine (t 0.62–0)"]
        tab.locator("#dose-stage label").nth(1).click()
        tab.get_by_role("button", name="Draw the curves").click()
        tab.get_by_text("9 of 9 doses, 8 seeds each").wait_for()
        name, data = downloaded(tab, ".csv")
        assert name == "b-seed3-n8-dose-mid-strength.csv"
        lines = [line for line in data.decode().splitlines() if not line.startswith("#")]
        rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
        view_request, classifier = (
            view_requests.from_query(dit, {"class": "b", "steps": "4"}),
            verdicts.classifier_of(dit),
        )
        *_, found = sweep(dit, classifier, 1, "mid", "strength", view_request.settings, range(3, 11))
        assert len(rows) == 80 and "entropy" not in rows[0]
        for measure in ("probability", "pixels", "features", "codes"):
            last = [float(row[measure]) for row in rows[-8:]]
            assert last == pytest.approx(found.responses[-1].values[measure], abs=1e-5)
        assert tab.locator(".dose .panels figure").count() == 4
        readout = tab.locator(".dose [data-part=readout]").inner_text()
        codes = found.responses[-1].estimate("codes").mean
        assert readout.startswith("mid, strength 8: probability ") and f"codes {codes:.3f} (" in readout


def test_a_stage_that_has_no_step_is_told(browser: Any, address: str) -> None:
    with opened(browser, f"{address}?class=b&seed=3&steps=2", "Ablate") as tab:
        tab.locator("#dose-stage label").nth(1).click()
        tab.get_by_role("button", name="Draw the curves").click()
        tab.get_by_text("in 2 steps there is none of the stage mid to amplify").wait_for()


def test_the_tour_of_a_diffusion_transformer(browser: Any, address: str, dit: DiffusionModel) -> None:
    memory = RecentGrowth()

    def draw(view_request: view_requests.ViewRequest) -> Any:
        *_, view_model = handlers.grow(dit, view_request, memory)
        return view_model

    def ask(view_request: view_requests.ViewRequest) -> Any:
        return verdicts.opinion_view(dit, view_request, {"sample": 0}, memory)["asked"]

    place, wanted, left_out = (1, 3), {}, []
    for stop in stops_of(dit):
        *_, last = search(dit, stop, *place, draw, ask)
        if last.pair:
            place = last.pair.label, last.pair.seed
            wanted[stop.title] = (stop, last.pair.found)
        else:
            left_out.append(stop.title)
    with opened(browser, f"{address}?class=b&seed=3", "Learn") as tab:
        tab.get_by_role("button", name="Start the tour").click()
        heading, shown, named = tab.locator("#tour-text h2"), [], ""
        heading.wait_for()
        while (title := heading.inner_text()) != "That was the tour":
            shown.append(title)
            stop, found = wanted[title]
            named += tab.locator("#tour-text").inner_text()
            tab.wait_for_selector(f'{FINISHED} [data-part="status"]:has-text("Amplification is off")')
            tab.locator(".viewer .strip").wait_for(state="hidden")  # it follows the heading
            assert not tab.locator("#tour-progress").inner_text()
            tab.locator("#tour-guess label").nth(found.answer).click()
            tab.get_by_role("button", name="Show it").click()
            told = tab.locator("#tour-text .found")
            told.wait_for()
            assert told.inner_text() == f"You were right. {found.text}"
            if stop.changes:
                tab.wait_for_selector(f'{FINISHED} [data-part="status"]:has-text("Guidance 0, 9 steps")')
            if stop.schedule == "all":
                tab.wait_for_selector(f'{FINISHED} [data-part="status"]:has-text("α: coarse 1 on 50%, mid 1 on 50%")')
            overlay = tab.locator('[data-part="opacity"]')
            assert float(overlay.input_value()) == stop.overlay
            tab.get_by_role("button", name="Next", exact=True).click()
            tab.wait_for_function("t => document.querySelector('#tour-text h2').textContent !== t", arg=title)
        named += tab.locator("#tour-text").inner_text()
        assert shown == list(wanted) and all(f"“{title}”" in named for title in left_out)
        assert (
            f"{len(shown)} of your {len(shown)} predictions were right" in named and "change ρ, α and guidance" in named
        )


def test_a_search_shows_how_far_it_is_and_can_be_stopped(
    browser: Any, dit: DiffusionModel, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = {"one": threading.Semaphore(0)}

    def patient(view_model: Any, shares: Any) -> None:
        gates["one"].acquire(timeout=60)

    first, second = stops_dit.STOPS[0], stops_dit.STOPS[-1]
    monkeypatch.setattr(stops_dit, "STOPS", (replace(first, judge=patient), second))
    pages = serving(page.build(dit, job_root=tmp_path))
    try:
        with opened(browser, f"{next(pages)}?class=b&seed=3&steps=2", "Learn") as tab:
            tab.get_by_role("button", name="Start the tour").click()
            progress, stop = tab.locator("#tour-progress"), tab.get_by_role("button", name="Stop looking")
            words = f"Stop 1 of 2, “{first.title}”: looking for a pair that bears it out, {{}} of at most 5 tried."
            progress.get_by_text(words.format(0)).wait_for()
            assert tab.get_by_role("button", name="Next", exact=True).is_disabled()
            gates["one"].release()
            progress.get_by_text(words.format(1)).wait_for()
            bar = tab.get_by_role("progressbar", name="Search")
            assert (
                bar.get_attribute("aria-valuenow") == "20" and bar.locator("i").evaluate("i => i.style.width") == "20%"
            )
            stop.click()
            gates["one"].release()
            text = tab.locator("#tour-text")
            text.get_by_text("Stopped: 2 of at most 5 pairs were tried").or_(
                text.get_by_text("Stopped: 1 of at most 5 pairs were tried")
            ).wait_for()
            assert tab.locator("#tour-text h2").inner_text() == first.title and not stop.is_visible()
            assert not progress.inner_text() and not tab.get_by_role("button", name="Show it").is_visible()
            tab.wait_for_function("document.activeElement.matches('#tour-text h2')")
            tab.get_by_role("button", name="Next", exact=True).click()  # it goes on from there
            tab.get_by_role("heading", name=second.title).wait_for()
            assert tab.locator("#tour-guess").is_visible()
            tab.get_by_role("button", name="Back", exact=True).click()
            stop.wait_for()
            assert f"“{first.title}”: looking for a pair" in progress.inner_text()
            tab.get_by_role("button", name="End the tour").click()  # while it is looked for
            tab.locator("#tour").wait_for(state="hidden")
            for _ in range(9):
                gates["one"].release()
            tab.wait_for_timeout(1500)
            assert not tab.locator("#tour").is_visible()  # nobody is called back
            assert tab.evaluate("!document.documentElement.matches('.asking, .touring')")
    finally:
        next(pages, None)


@pytest.mark.parametrize("width", [1366, 375])
def test_axe_finds_nothing(browser: Any, address: str, width: int) -> None:
    if not AXE.exists():
        pytest.skip(f"axe-core is not at {AXE}: npm install axe-core, and name it in AXE")
    with opened(browser, f"{address}?class=b&seed=3&steps=3&map=occlusion&overlay=0.5", "Explore", width) as tab:
        tab.evaluate(AXE.read_text(encoding="utf-8"))
        tab.locator('[data-part="agreement"]').get_by_text("Rank correlation").wait_for()

        def violations() -> list[tuple[str, str]]:
            tab.wait_for_timeout(400)  # transitions
            found = tab.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
            return [(one["id"], one["nodes"][0]["html"]) for one in found]

        assert not violations()
        tab.get_by_role("tab", name="Ablate").click()
        tab.locator("#dose-stage label").nth(1).click()
        tab.get_by_role("button", name="Draw the curves").click()
        tab.get_by_text("9 of 9 doses, 8 seeds each").wait_for()
        assert not violations()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
