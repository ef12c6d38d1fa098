"""The stops of the tour: their claims on pairs made for it, and how a pair is looked for."""

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from judged_dit import judged_dit
from PIL import Image

import hieramp
from app import handlers, stops_dit, stops_var, verdicts, view_requests
from app.claims import SURER, Claim, Stop
from app.denoising import RecentGrowth
from app.distill_requests import has_classifier
from app.stops import TRIES, asked_of, pairs, search, shown_of, stops_of
from hieramp.diffusion.model import DiffusionModel

STAGES = ["coarse", "coarse", "mid", "fine", "fine"]
RANDOM = np.random.default_rng(0)
SQUARES = RANDOM.integers(80, 176, (8, 8, 3)).repeat(4, 0).repeat(4, 1)  # a layout without details
NOISE = np.tile([[40, -40], [-40, 40]], (16, 16))[..., None]  # details without layout


def uri(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def view_of(pictures: list[np.ndarray], moved: list[float], amplified: np.ndarray | None = None) -> dict[str, Any]:
    """As much of a view model as a stop reads."""
    last = pictures[-1]
    return {
        "name": "cat", "unit": "step", "stages": STAGES, "numbers": list(range(5)), "sides": [8] * 5,
        "titles": ["t 0.95", "t 0.90", "t 0.80", "t 0.50", "t 0.00"],
        "steps": [{"images": [uri(p)], "moved": [m]} for p, m in zip(pictures, moved, strict=True)],
        "finals": [{"uri": uri(last)}, {"uri": uri(last if amplified is None else amplified)}],
    }  # fmt: skip


def stop_called(title: str) -> Stop:
    return next(stop for stop in stops_dit.STOPS if stop.title == title)


def test_layout_comes_first_only_where_it_does() -> None:
    grey, judge = np.full((32, 32, 3), 128), stop_called("From noise to picture").judge
    whole = SQUARES + NOISE
    found = judge(view_of([grey, SQUARES, SQUARES, whole, whole], [0] * 5), ())
    assert found is not None and (found.answer, found.scale) == (0, 1)
    assert (
        "layout (8×8 squares) is gone at step 1 (t 0.90)" in found.text and "details at step 3 (t 0.50)" in found.text
    )
    assert judge(view_of([grey, grey + NOISE, grey + NOISE, whole, whole], [0] * 5), ()) is None  # details first
    assert judge(view_of([grey, grey, whole, whole, whole], [0] * 5), ()) is None  # both at once
    assert judge(view_of([whole] * 5, [0] * 5), ()) is None  # nothing ever came


def test_an_early_nudge_is_told_as_it_came_out() -> None:
    judge, plain = stop_called("An early nudge").judge, SQUARES
    for moved, answer in (
        ([0, 0.02, 0.02, 0.01, 0.0], 0),
        ([0, 0.02, 0.02, 0.01, 0.004], 1),
        ([0, 0.02, 0, 0, 0.03], 2),
    ):
        found = judge(view_of([plain] * 5, moved, plain + NOISE), ())
        assert found is not None and (found.answer, found.scale) == (answer, 1)
        assert "at step 1 (t 0.90)" in found.text and "are 2.0 % apart" in found.text
        assert f"the finished ones are {100 * moved[-1]:.1f} % apart" in found.text and "0% of that" in found.text
    assert judge(view_of([plain] * 5, [0] * 5), ()) is None  # nothing was amplified
    assert judge(view_of([plain] * 5, [0, 0, 0, 0.1, 0.1]), ()) is None  # something else moved it


def test_the_last_steps_are_details_only_where_they_are() -> None:
    judge, late = stop_called("The last steps").judge, [0, 0, 0, 0.01, 0.02]
    found = judge(view_of([SQUARES] * 5, late, SQUARES + NOISE), ())
    assert found is not None and found.answer == 1 and "Up to step 2 the two are the same" in found.text
    assert "100% of their difference, squared, is details, and 0% layout" in found.text
    assert judge(view_of([SQUARES] * 5, late, SQUARES + 20), ()) is None  # it is brighter all over
    assert judge(view_of([SQUARES] * 5, [0, 0, 0.01, 0.01, 0.02], SQUARES + NOISE), ()) is None  # it began in mid


def test_a_classifier_is_quoted_either_way() -> None:
    view = view_of([SQUARES] * 5, [0] * 5)
    for shares, answer in (((0.5, 0.9), 0), ((0.9, 0.5), 1), ((0.9, 0.91), 2)):
        for title, kind in (("Is it more itself?", stops_dit), ("Without guidance", stops_dit),
                            ("Is it more itself?", stops_var)):  # fmt: skip
            stop = next(one for one in kind.STOPS if one.title == title)
            found = stop.judge(view, shares)
            assert found is not None and found.answer == answer
            assert f"{shares[0]:.1%}" in found.text and f"{shares[1]:.1%}" in found.text
    assert stop_called("Without guidance").options[1:] == SURER[1:]


@pytest.fixture(scope="module")
def dit(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    return judged_dit(tmp_path_factory.mktemp("judged"))


def test_every_stop_of_a_diffusion_transformer_is_judged_by_its_own_pictures(dit: DiffusionModel) -> None:
    memory, told = RecentGrowth(), []
    assert [stop.title for stop in stops_of(dit)] != [stop.title for stop in stops_var.STOPS]

    def draw(view_request: view_requests.ViewRequest) -> Any:
        *_, view_model = handlers.grow(dit, view_request, memory)
        return view_model

    def ask(view_request: view_requests.ViewRequest) -> Any:
        return verdicts.opinion_view(dit, view_request, {"sample": 0}, memory)["asked"]

    for stop in stops_of(dit):
        assert list(search(dit, stop, 1, 2, draw, None)) == [] or not stop.asks_classifier
        *before, last = search(dit, stop, 1, 2, draw, ask)
        assert [one.tried for one in before] == list(range(len(before))) and {one.of for one in before} <= {TRIES}
        if last.pair is None:
            assert last.tried == TRIES - 1  # all of them
            continue
        told.append(stop.title)
        pair = last.pair
        shown = shown_of(dit, pair.label, pair.seed, stop)
        shares = (ask(asked_of(dit, pair.label, pair.seed))[0], ask(shown)[1]) if stop.asks_classifier else ()
        assert stop.judge(draw(shown), shares) == pair.found  # no more is claimed than is so of this pair
    assert {"Without guidance", "Is it more itself?"} <= set(told)
    guidance = stop_called("Without guidance")
    assert shown_of(dit, 1, 2, guidance).settings == replace(asked_of(dit, 1, 2).settings, guidance=0.0)


def test_the_search_tells_how_far_it_is_and_passes_over_what_cannot_be_drawn(dit: DiffusionModel) -> None:
    drawn = []

    def never(view_model: Any, shares: Any) -> Claim | None:
        return None

    def draw(view_request: view_requests.ViewRequest) -> Any:
        drawn.append((view_request.label, view_request.seeds[0]))
        return {}

    stop = replace(stop_called("An early nudge"), judge=never)
    found = list(search(dit, stop, 3, -7, draw, None))  # there is no such seed
    assert [one.tried for one in found] == [0, 1, 2, 3, 4] and all(one.of == 5 and one.pair is None for one in found)
    assert drawn == pairs(dit, stop, 3, -7)[1:] and (3, -7) not in drawn


def test_a_model_without_maps_or_classifier_has_no_stop_of_them(plain_model: hieramp.Model) -> None:
    assert not has_classifier(plain_model)
    for stop in stops_var.STOPS:
        if stop.overlay or stop.asks_classifier:
            assert list(search(plain_model, stop, 0, 0, lambda _: pytest.fail("nothing is to be drawn"), None)) == []
