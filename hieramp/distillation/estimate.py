"""What a set will take in time and size, from a few images drawn as it would be."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from hieramp.classifier import Classifier
from hieramp.diffusion.model import DiffusionModel
from hieramp.distillation.distill import drawer_of, judge_of
from hieramp.distillation.maker import BatchRequest
from hieramp.distillation.plan import Item
from hieramp.generation.model import Model
from hieramp.settings import Settings, set_settings

PILOT_IMAGES = 8  # that are timed
OVERHEAD = 400  # bytes of names, manifest and metadata an image


@dataclass(frozen=True)
class CostEstimate:
    """What a set will take."""

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Estimating:
    """An estimate on its way: by the images timed so far, None before the first."""

    done: int  # images drawn, some of them before the clock runs
    of: int
    found: CostEstimate | None

    @property
    def is_finished(self) -> bool:
        return self.done == self.of


# per model: seconds an image drawn and bytes an image kept, by what decides about them most
_PILOTS: "WeakKeyDictionary[Model | DiffusionModel, dict[tuple[Any, ...], tuple[float, float]]]" = WeakKeyDictionary()


def estimate(
    model: Model | DiffusionModel,
    num_images: int,
    settings: Settings | None = None,
    soft_labels: bool = False,
    candidates: int = 1,
    classifier: str | Path | None = None,
) -> CostEstimate:
    """Time and size of a set, from small batches drawn as the set would be, timed once for settings of their kind.

    Raises:
        UserError: soft labels or candidates, and no classifier.
    """
    *_, last = estimating(model, num_images, settings, soft_labels, candidates, classifier)
    assert last.found is not None
    return last.found


def estimating(
    model: Model | DiffusionModel,
    num_images: int,
    settings: Settings | None = None,
    soft_labels: bool = False,
    candidates: int = 1,
    classifier: str | Path | None = None,
) -> Iterator[Estimating]:
    """The same after every batch; what was timed before is there at once.

    Raises:
        UserError: soft labels or candidates, and no classifier.
    """
    settings = settings or set_settings(model.kind, model.defaults)
    blocks = None if settings.is_off else settings.resolved_blocks(model.depth)
    kind = (
        blocks,
        settings.guidance > 0,
        settings.steps,
        settings.solver,
        soft_labels,
        candidates,
        model.device,
        model.dtype,
        str(classifier),
    )
    known = _PILOTS.setdefault(model, {})
    if kind in known:
        yield Estimating(1, 1, _cost(known[kind], num_images))
        return
    judge = judge_of(model, classifier) if soft_labels or candidates > 1 else None
    for done, of, an_image in _pilot(model, settings, judge, soft_labels, candidates):
        if done == of and an_image:
            known[kind] = an_image
        yield Estimating(done, of, an_image and _cost(an_image, num_images))


def _cost(an_image: tuple[float, float], num_images: int) -> CostEstimate:
    seconds, size = an_image
    return CostEstimate(seconds * num_images, round(size * num_images))


def _pilot(
    model: Model | DiffusionModel, settings: Settings, judge: Classifier | None, soft_labels: bool, candidates: int
) -> Iterator[tuple[int, int, tuple[float, float] | None]]:
    """After every batch: images drawn, of how many, and seconds and bytes an image of the set so far."""
    drawer = drawer_of(model, settings, model.image_size, judge, candidates, soft_labels)
    batches = _batches(model.device.type, candidates)
    done, of = 0, sum(size for size, _ in batches)
    elapsed, num_bytes, num_made, num_timed = 0.0, 0, 0, 0
    for size, is_timed in batches:
        items = tuple(Item(i, i % len(model.class_names), i * candidates, "") for i in range(done, done + size))
        started = time.perf_counter()
        made = drawer.make(BatchRequest(items))().made
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        done += size
        if is_timed:
            elapsed, num_timed = elapsed + time.perf_counter() - started, num_timed + size
            num_made += len(made)
            num_bytes += sum(len(image.png) + len(image.logits or b"") for image in made)
        yield done, of, (elapsed / num_timed, num_bytes / max(num_made, 1) + OVERHEAD) if num_timed else None


def _batches(device: str, candidates: int) -> list[tuple[int, bool]]:
    """Images of each batch, and whether it is timed: what comes before also allocates.

    A GPU records what it draws for the second time, and replays it after that. A CPU draws few at a time, so that
    others get their turn in between.
    """
    count = max(1, PILOT_IMAGES // candidates)
    if device == "cuda":
        return [(count, False), (count, False), (count, True)]
    half = count // 2
    return [(1, False), (count - half, True), *([(half, True)] if half else [])]
