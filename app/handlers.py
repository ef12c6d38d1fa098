"""What the page does, as plain functions and generators on a model; Gradio is not needed to run or test them."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import hieramp
from app import figures
from app.figures import Scene
from hieramp import Amplification, Model
from hieramp.amplification.settings import Mode, Stage
from hieramp.figures import to_picture
from hieramp.scales import STAGES

MAX_COUNT = 8
MAX_SEED = 2**53 - 1  # a browser's numbers are exact up to here
GREEK = {"logit": "β", "attention": "γ"}


@dataclass(frozen=True)
class Order:
    """What to draw: n baselines and n amplified pictures of one class, from the same n seeds."""

    label: int
    seeds: tuple[int, ...]
    guidance: float
    amplification: Amplification

    @property
    def batch(self) -> tuple[list[int], tuple[int, ...], list[Amplification | None]]:
        """Labels, seeds and amplifications of one batch: the baselines first."""
        count = len(self.seeds)
        return [self.label] * 2 * count, self.seeds * 2, [None] * count + [self.amplification] * count


def read_order(
    model: Model,
    class_name: str | int | None,
    seed: float | None,
    count: float | None,
    guidance: float | None,
    coarse_rho: float | None,
    coarse_strength: float | None,
    mid_rho: float | None,
    mid_strength: float | None,
    fine_rho: float | None,
    fine_strength: float | None,
    mode: str,
) -> Order:
    """The fields of the page, checked.

    Raises:
        ValueError: a field that is empty, out of range or no number, or a class the model does not have.
    """
    if class_name is None or not str(class_name).strip():
        raise ValueError("no class is chosen: choose one, or press Random")
    label = model.label_of(class_name)
    first = _whole("the seed", seed, 0, MAX_SEED)
    seeds = tuple(range(first, first + _whole("the number of images", count, 1, MAX_COUNT)))
    stages = (
        _stage("coarse", coarse_rho, coarse_strength),
        _stage("mid", mid_rho, mid_strength),
        _stage("fine", fine_rho, fine_strength),
    )
    chosen: Mode = mode  # type: ignore[assignment]  # Amplification says what it may be
    return Order(label, seeds, _number("guidance", guidance), Amplification(*stages, mode=chosen))


def _stage(name: str, rho: object, strength: object) -> Stage:
    return _number(f"rho of {name}", rho), _number(f"the strength of {name}", strength)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {'empty' if value is None else repr(value)}; give a number")
    return float(value)


def _whole(name: str, value: object, low: int, high: int) -> int:
    number = _number(name, value)
    if not low <= number <= high or number != int(number):
        raise ValueError(f"{name} is {number:g}; give a whole number from {low} to {high}")
    return int(number)


def scene_of(model: Model, order: Order) -> Scene:
    """The scene before anything is drawn."""
    name = short_name(model.class_names[order.label])
    return Scene(name, order.seeds, model.var.scales, model.image_size, caption(order), settings_of(model, order))


def grow(model: Model, order: Order) -> Iterator[Scene]:
    """Draw baseline and amplified in one batch; the scene after every scale.

    Raises:
        ValueError: a guidance the sampler refuses.
    """
    steps = model.steps(*order.batch, order.guidance)
    scene = scene_of(model, order)
    for step in steps:
        scene = replace(scene, images=(*scene.images, step.image), saliency=(*scene.saliency, step.saliency))
        yield scene


def draw(model: Model, *fields: Any) -> Iterator[str]:
    """The result as HTML, once per scale; the arguments and errors are those of `read_order`."""
    for scene in grow(model, read_order(model, *fields)):
        yield figures.result(scene)


def generate(model: Model, *fields: Any) -> dict[str, Any]:
    """Settings and finished pictures, as data: addresses of PNGs; arguments as in `read_order`."""
    order = read_order(model, *fields)
    images = model.generate(*order.batch, order.guidance).images
    settings, count = settings_of(model, order), len(order.seeds)
    answer: dict[str, Any] = {"settings": settings}
    for side, label in enumerate(figures.SIDES):
        answer[label.lower()] = [
            figures.data_uri(to_picture(images[side * count + i]), figures.settings_of_one(settings, seed, side))
            for i, seed in enumerate(order.seeds)
        ]
    return answer


def settings_of(model: Model, order: Order) -> dict[str, Any]:
    """What pictures are made with, under the names that `python -m hieramp generate` stores."""
    amp = order.amplification
    return {
        "model": model.name,
        "class": model.class_names[order.label],
        "label": order.label,
        "seeds": list(order.seeds),
        "stages": {stage: getattr(amp, stage) for stage in STAGES},
        "mode": amp.mode,
        "blocks": amp.resolved_blocks(model.var.config.depth),
        "guidance": order.guidance,
        "hieramp": hieramp.__version__,
    }


def caption(order: Order) -> str:
    """An order in one line."""
    amp, first, last = order.amplification, order.seeds[0], order.seeds[-1]
    start = f"{f'Seed {first}' if first == last else f'Seeds {first}–{last}'}. Guidance {order.guidance:g}."
    if amp.is_off:
        return f"{start} Amplification is off, so the two are the same."
    stages = [(stage, getattr(amp, stage)) for stage in STAGES]
    said = ", ".join(f"{s} {v[1]:g} on {v[0]:.0%}" if v[1] != amp.neutral else f"{s} off" for s, v in stages)
    return f"{start} {GREEK[amp.mode]}: {said} of the positions."


def short_name(class_name: str) -> str:
    """The first of ImageNet's synonyms: "tench, Tinca tinca"."""
    return class_name.split(",")[0]


def scale_range(model: Model, stage: str) -> str:
    """Which scales a stage means: "scales 2–3"."""
    scales = model.var.scales.stages[stage]
    if not scales:
        return "no scale"
    return f"scale {scales[0]}" if len(scales) == 1 else f"scales {scales[0]}–{scales[-1]}"


def rho_label(model: Model, stage: str) -> str:
    return f"{stage} ρ ({scale_range(model, stage)})"


def strength_label(model: Model, stage: str, mode: str) -> str:
    return f"{stage} {GREEK[mode]} ({scale_range(model, stage)})"


def random_class(model: Model) -> int:
    return secrets.randbelow(len(model.class_names))


def random_seed() -> int:
    """Short enough to be read aloud."""
    return secrets.randbelow(100_000)


class Turns:
    """Who asked last: an older drawing of the same visitor ends at its next scale.

    Done here and not by Gradio's `cancels`, with which an event cannot cancel its own earlier run.
    """

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}

    def take(self, visitor: str) -> int:
        """A ticket that makes all earlier ones of this visitor stale."""
        self._newest[visitor] = self._newest.get(visitor, 0) + 1
        return self._newest[visitor]

    def is_stale(self, visitor: str, ticket: int) -> bool:
        return self._newest.get(visitor, ticket) != ticket

    def forget(self, visitor: str) -> None:
        self._newest.pop(visitor, None)
