"""The stops of the tour of a diffusion transformer, which draws from noise to picture. Pure.

The layout of a picture is the mean of each of 8×8 squares of it, its details are what that leaves.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.claims import SURER, Claim, Shares, Stop, ViewModel, compared, few_places, is_it_more_itself, moved, pixels

SQUARES = 8  # a side, of the layout
Pixels = NDArray[np.float64]


def _parts(picture: Pixels) -> tuple[Pixels, Pixels]:
    """Layout and details of a picture or of a difference, (H, W, 3) each."""
    size = len(picture)
    side = SQUARES if size % SQUARES == 0 else 1
    squares = picture.reshape(side, size // side, side, size // side, 3).mean((1, 3))
    layout = squares.repeat(size // side, 0).repeat(size // side, 1)
    return layout, picture - layout


def _half_way(pictures: Sequence[Pixels]) -> int | None:
    """The first step at which no more than half of the first one's distance from the last one is left."""
    apart = [float(np.square(one - pictures[-1]).mean() ** 0.5) for one in pictures]
    return next((i for i, left in enumerate(apart) if 2 * left <= apart[0]), None) if apart[0] else None


def _layout_first(view_model: ViewModel, _: Shares) -> Claim | None:
    layouts, details = zip(*(_parts(pixels(step["images"][0])) for step in view_model["steps"]), strict=True)
    layout, detail = _half_way(layouts), _half_way(details)
    if layout is None or detail is None or layout >= detail:
        return None
    return Claim(
        0,
        f"Half of the way to the finished layout (8×8 squares) is gone at {_named(view_model, layout)}, half of the "
        f"way to the details at {_named(view_model, detail)}. Step through them with the arrows above the pictures.",
        layout,
    )


def _named(view_model: ViewModel, step: int) -> str:
    return f"step {view_model['numbers'][step]} ({view_model['titles'][step]})"


def _coarse_lasts(view_model: ViewModel, _: Shares) -> Claim | None:
    """What becomes of a difference that the coarse stage made, either way."""
    apart = _apart(view_model)
    first, coarse = _first(apart), _last_of(view_model, "coarse")
    if first is None or coarse is None or first > coarse:
        return None
    then, end = apart[coarse], apart[-1]
    return Claim(
        0 if not end else 1 if end < then else 2,
        f"After the coarse stage, at {_named(view_model, coarse)}, the pictures that the model foresees are "
        f"{moved(view_model, coarse)} apart; the finished ones are {moved(view_model)} apart, though nothing is "
        f"amplified later. {_layout_share(view_model):.0%} of that difference, squared, is layout.",
        coarse,
    )


def _fine_is_details(view_model: ViewModel, _: Shares) -> Claim | None:
    first = _first(_apart(view_model))
    share = _layout_share(view_model)
    if not first or view_model["stages"][first] != "fine" or share >= 0.5:
        return None
    return Claim(
        1,
        f"Up to step {view_model['numbers'][first - 1]} the two are the same. At the end "
        f"{1 - share:.0%} of their difference, squared, is details, and {share:.0%} layout. The pixels end "
        f"{moved(view_model)} apart on average: look for it in Compare.",
        None,
    )


def _layout_share(view_model: ViewModel) -> float:
    """How much of the squared difference of the finished pictures is in their layout."""
    plain, amplified = (pixels(view_model["finals"][row]["uri"]) for row in (0, 1))
    layout, details = (float(np.square(part).sum()) for part in _parts(amplified - plain))
    return layout / (layout + details) if layout + details else 0.0


def _unguided(view_model: ViewModel, shares: Shares) -> Claim | None:
    """How sure a classifier is of the picture without guidance: either way."""
    return Claim(
        compared(shares),
        f"With guidance the picture was {shares[0]:.1%} {view_model['name']} to the classifier, without it is "
        f"{shares[1]:.1%}. That is one seed; a sheet in Ablate has guidance across and eight seeds down.",
        None,
    )


def _apart(view_model: ViewModel) -> list[float]:
    return [step["moved"][0] for step in view_model["steps"]]


def _first(apart: Sequence[float]) -> int | None:
    return next((i for i, much in enumerate(apart) if much), None)


def _last_of(view_model: ViewModel, stage: str) -> int | None:
    return max((i for i, name in enumerate(view_model["stages"]) if name == stage), default=None)


_STRENGTH = "α = 1: what their attention brings in is doubled"
STOPS = (
    Stop(
        "From noise to picture",
        "This picture began as noise (t = 1) and lost some of it at each step, to t = 0. At each step the model "
        "foresees the finished picture: that is what is shown.",
        "What is settled first?",
        ("The layout", "The details", "Both at once"),
        "off",
        _layout_first,
    ),
    Stop(
        "Where it looks",
        "The network is asked twice at each step, with the class and without. M is how far the class moves each "
        "position, averaged over the steps so far.",
        "How is M spread?",
        ("Over all positions about alike", "Some positions get much more than others"),
        "off",
        few_places("what the class moves"),
        overlay=0.5,
    ),
    Stop(
        "An early nudge",
        f"Now the half of the positions with most of M is amplified in one block, by {_STRENGTH}; in the coarse stage "
        "alone, where nearly all is noise. All later steps are left as they are.",
        "How far apart will the finished pictures be?",
        ("Not at all: later steps undo it", "Less than right after the coarse stage", "As far or farther"),
        "coarse",
        _coarse_lasts,
    ),
    Stop(
        "The last steps",
        "The same in the fine stage alone, where little noise is left.",
        "What will differ?",
        ("The layout, mostly", "The details, mostly"),
        "fine",
        _fine_is_details,
    ),
    Stop(
        "Without guidance",
        "Guidance makes the picture go further the way that the class moves it. Now without any (0), and without "
        "amplification. A classifier that was trained on real images judges the picture with guidance and without.",
        "How sure will it be of the picture without guidance?",
        ("Surer than with it", *SURER[1:]),
        "off",
        _unguided,
        asks_classifier=True,
        changes={"guidance": 0.0},
    ),
    is_it_more_itself(
        f"All three stages, by {_STRENGTH}. The classifier judges both pictures."
    ),
)  # fmt: skip
