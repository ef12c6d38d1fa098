"""The stops of the tour: what each asks, what it shows then, and whether that is true of a pair. Pure.

A stop asks for a prediction on a plain picture, and shows what its schedule does to it. What it says then is written
from the finished view model of the pair; a pair that does not bear out the stop's point answers None.
"""

import io
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from app.curated import examples_of
from app.examples import brightest
from app.kinds import AnyModel, with_schedule
from app.view_requests import ViewRequest, read_request
from hieramp.errors import UserError
from hieramp.settings import set_settings

ViewModel = Mapping[str, Any]
Shares = Sequence[float]  # the classifier's probability of the class: baseline, amplified
FLAT = 0.25  # a picture with less than this share of the finished one's contrast is one colour
ALIKE = 0.02  # probabilities nearer to one another than this are about the same
TRIES = 5  # pairs looked at for one stop


@dataclass(frozen=True)
class Found:
    """What a pair bears out: which option was right, in words why, and the scale at which it is seen."""

    answer: int
    text: str
    scale: int | None  # None: the last


@dataclass(frozen=True)
class Stop:
    """One stop. `judge` reads a finished view model, and the classifier's shares where `asks_classifier`."""

    title: str
    text: str
    question: str
    options: tuple[str, ...]
    schedule: str
    judge: Callable[[ViewModel, Shares], Found | None]
    overlay: float = 0.0  # of the saliency, once it is shown
    asks_classifier: bool = False


def _one_colour(view_model: ViewModel, _: Shares) -> Found | None:
    contrasts = [_contrast(step["images"][0]) for step in view_model["steps"]]
    first, whole = contrasts[0], contrasts[-1]
    if whole == 0 or first >= FLAT * whole:
        return None
    middle = len(contrasts) // 2
    return Found(
        0,
        f"The contrast of the picture after scale 0 is {first / whole:.0%} of the finished one’s; after scale {middle} "
        f"it is {contrasts[middle] / whole:.0%}. Step through the scales with the arrows above the pictures.",
        0,
    )


def _contrast(uri: str) -> float:
    """The standard deviation of the pixels over their places, mean of the colours."""
    with Image.open(io.BytesIO(b64decode(uri.partition(",")[2]))) as picture:
        return float(np.asarray(picture.convert("RGB"), float).std((0, 1)).mean())


def _few_places(view_model: ViewModel, _: Shares) -> Found | None:
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
    return Found(
        1,
        f"At scale {scale} ({side}×{side}) {count} of {len(values)} positions get half of its attention. Most goes to "
        f"row {row + 1}, column {column + 1} of the baseline: {times:.1f} times an even share.",
        scale,
    )


def _coarse_moves_all(view_model: ViewModel, _: Shares) -> Found | None:
    changed = [len(step["changed"][0]) for step in view_model["steps"]]
    first = _first(changed)
    if first is None or view_model["stages"][first] != "coarse":
        return None
    coarse = [scale for scale, stage in enumerate(view_model["stages"]) if stage == "coarse"]
    later, count = sum(changed[coarse[-1] + 1 :]), sum(n * n for n in view_model["sides"][coarse[-1] + 1 :])
    if not later:
        return None
    return Found(
        1 if 2 * later < count else 2,
        f"{later} of the {count} tokens after the coarse stage differ, though nothing is amplified there: each scale "
        f"is drawn given the ones before. The pixels end {_moved(view_model)} apart on average.",
        None,
    )


def _fine_keeps_layout(view_model: ViewModel, _: Shares) -> Found | None:
    changed = [len(step["changed"][0]) for step in view_model["steps"]]
    first = _first(changed)
    if not first or view_model["stages"][first] != "fine":
        return None
    before = sum(n * n for n in view_model["sides"][:first])
    return Found(
        1,
        f"The {before} tokens of the first {first} scales are the same; the first difference comes at scale {first}. "
        f"The pixels end {_moved(view_model)} apart on average: look for it in Compare.",
        None,
    )


def _surer(view_model: ViewModel, shares: Shares) -> Found | None:
    plain, amplified = shares
    answer = 2 if abs(plain - amplified) < ALIKE else 0 if amplified > plain else 1
    name = view_model["name"]
    return Found(
        answer,
        f"The plain picture is {plain:.1%} {name} to the classifier, the amplified one {amplified:.1%}. That is one "
        "pair; Dose and response (in Ablate) has eight seeds and an interval.",
        None,
    )


def _first(changed: Sequence[int]) -> int | None:
    return next((scale for scale, count in enumerate(changed) if count), None)


def _moved(view_model: ViewModel) -> str:
    return f"{100 * view_model['steps'][-1]['moved'][0]:.1f} %"


STOPS = (
    Stop(
        "A scale at a time",
        "This picture was drawn from coarse to fine: first one token for all of it, then 2×2 tokens, and so on. All "
        "tokens of a scale are drawn at once, given the scales before.",
        "What can the one token of scale 0 say?",
        ("Little more than one colour", "The outline of the thing", "All but the details"),
        "off",
        _one_colour,
    ),
    Stop(
        "Where it looks",
        "At each scale a class token looks at the picture so far, to tell its class. How much it attends to a position "
        "is the saliency of that position.",
        "How does it look?",
        ("At all positions about alike", "At some positions much more than at others"),
        "off",
        _few_places,
        overlay=0.5,
    ),
    Stop(
        "A coarse cause",
        "Now ρ = 50 % of the positions of the coarse stage are amplified, the most salient ones: every position there "
        "attends more to them, by β = 5. All later scales are left as they are.",
        "How many tokens after the coarse stage will differ?",
        ("None: nothing is amplified there", "Some, but less than half", "Half or more"),
        "coarse",
        _coarse_moves_all,
    ),
    Stop(
        "Fine scales",
        "The same at the fine stage alone.",
        "Where will the first token differ?",
        ("At a coarse scale: the layout moves", "At a fine scale: only details change"),
        "fine",
        _fine_keeps_layout,
    ),
    Stop(
        "Is it more itself?",
        "All three stages, as the paper distills. A classifier that was trained on real images judges both pictures.",
        "How sure will it be of the amplified picture?",
        ("Surer than of the plain one", "Less sure", "About as sure"),
        "all",
        _surer,
        asks_classifier=True,
    ),
)  # fmt: skip


def request_of(model: AnyModel, label: int, seed: int, schedule: str) -> ViewRequest:
    """One pair of a class by the model's own settings and a schedule."""
    settings = with_schedule(set_settings(model.kind, model.defaults), schedule, model.kind)
    return read_request(model, {"class_name": label, "seed": seed, "count": 1} | settings.to_parts(model.kind))


def pairs(model: AnyModel, stop: Stop, label: int, seed: int) -> Iterator[tuple[int, int]]:
    """Classes and seeds to try for a stop, TRIES at most: curated ones of its schedule, the visitor's own, others."""
    curated = [one for one in examples_of(model) if one.schedule == stop.schedule]
    found = [(model.class_names.index(one.class_name), one.seed) for one in curated]
    found += [(label, seed), *((i % len(model.class_names), i) for i in range(TRIES))]
    yield from list(dict.fromkeys(found))[:TRIES]


def first_that_holds(
    model: AnyModel,
    stop: Stop,
    label: int,
    seed: int,
    finished: Callable[[ViewRequest], ViewModel],
    shares: Callable[[ViewRequest], Shares] | None,
) -> tuple[int, int, Found] | None:
    """The first pair that bears a stop out, with what it found; None where none of those tried does.

    `finished` draws a request, `shares` asks the classifier (None where there is none).
    """
    if stop.asks_classifier and shares is None:
        return None
    if stop.overlay and not getattr(model, "has_class_tokens", False):
        return None
    for one in pairs(model, stop, label, seed):
        try:
            asked = request_of(model, *one, stop.schedule)
        except UserError:  # the visitor's seed field may hold anything
            continue
        found = stop.judge(finished(asked), shares(asked) if shares and stop.asks_classifier else ())
        if found:
            return (*one, found)
    return None
