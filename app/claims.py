"""What a stop of the tour is, and the claims that are made of models of both kinds. Pure.

A stop asks for a prediction on a plain picture, and shows what its schedule does to it. What it says then is written
from the finished view model of the pair; a pair that does not bear out the stop's point answers None.
"""

import io
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.examples import brightest

ViewModel = Mapping[str, Any]
Shares = Sequence[float]  # the classifier's probability of the class: of the plain picture, of what is shown then
ALIKE = 0.02  # probabilities nearer to one another than this are about the same
SURER = ("Surer than of the plain one", "Less sure", "About as sure")


@dataclass(frozen=True)
class Claim:
    """What a pair bears out: which option was right, in words why, and the step at which it is seen."""

    answer: int
    text: str
    scale: int | None  # the scale, or which of the steps that are shown; None: the last


@dataclass(frozen=True)
class Stop:
    """One stop. `judge` reads a finished view model, and the classifier's shares where `asks_classifier`."""

    title: str
    text: str
    question: str
    options: tuple[str, ...]
    schedule: str
    judge: Callable[[ViewModel, Shares], Claim | None]
    overlay: float = 0.0  # of the saliency, once it is shown
    asks_classifier: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)  # other values that are shown then, by their names


def few_places(whose: str) -> Callable[[ViewModel, Shares], Claim | None]:
    """That a map is far from even; `whose` is what it shares out."""

    def judge(view_model: ViewModel, _: Shares) -> Claim | None:
        found = brightest(view_model)
        if found is None:
            return None
        times, scale, row, column = found
        values, side = view_model["steps"][scale]["maps"][0], view_model["sides"][scale]
        half, so_far, count = sum(values) / 2, 0.0, 0
        for value in sorted(values, reverse=True):
            if so_far >= half:
                break
            so_far, count = so_far + value, count + 1
        where = f"{view_model['unit']} {view_model['numbers'][scale]} ({view_model['titles'][scale]})"
        return Claim(
            1,
            f"At {where} {count} of {len(values)} positions get half of {whose}. Most goes to row {row + 1}, column "
            f"{column + 1} of the baseline: {times:.1f} times an even share, of {side}×{side} positions.",
            scale,
        )

    return judge


def _surer(view_model: ViewModel, shares: Shares) -> Claim | None:
    """How sure a classifier is of both pictures: either way."""
    return Claim(
        compared(shares),
        f"The plain picture is {shares[0]:.1%} {view_model['name']} to the classifier, the amplified one "
        f"{shares[1]:.1%}. That is one pair; Dose and response (in Ablate) has eight seeds and an interval.",
        None,
    )


def is_it_more_itself(text: str) -> Stop:
    """The last stop of a tour, which the classifier decides."""
    return Stop(
        "Is it more itself?",
        text,
        "How sure will it be of the amplified picture?",
        SURER,
        "all",
        _surer,
        asks_classifier=True,
    )


def compared(shares: Shares) -> int:
    """Which of SURER holds of the second."""
    before, after = shares
    return 2 if abs(before - after) < ALIKE else 0 if after > before else 1


def moved(view_model: ViewModel, step: int = -1) -> str:
    """How far the pixels of a pair are apart on average."""
    return f"{100 * view_model['steps'][step]['moved'][0]:.1f} %"


def pixels(uri: str) -> NDArray[np.float64]:
    """A picture of a view model, (H, W, 3) in [0, 1]."""
    with Image.open(io.BytesIO(b64decode(uri.partition(",")[2]))) as picture:
        return np.asarray(picture.convert("RGB"), np.float64) / 255
