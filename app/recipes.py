"""What a distilled set is made by: fields of the page → a checked recipe, and words about it. Pure."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app import orders
from app.limits import Limits
from hieramp import Amplification, Model
from hieramp.checkpoints import has_part
from hieramp.distillation.distill import Estimate
from hieramp.generation.sampling import Sampling

MAX_SEED = 2**40 - 1


@dataclass(frozen=True)
class Recipe:
    """What a set is made by."""

    labels: tuple[int, ...]
    ipc: int
    seed: int
    sampling: Sampling
    amplification: Amplification
    soft_labels: bool
    name: str  # of the file, without its ending

    @property
    def num_images(self) -> int:
        return len(self.labels) * self.ipc

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        stored: dict[str, Any] = json.loads(text)
        amplification = Amplification(**stored.pop("amplification"))
        sampling = Sampling(**stored.pop("sampling"))
        labels = tuple(stored.pop("labels"))
        return cls(labels, amplification=amplification, sampling=sampling, **stored)


def has_classifier(model: Model) -> bool:
    """Whether soft labels can be had."""
    return model.folder is not None and has_part(model.folder, "classifier")


def read_recipe(
    model: Model, limits: Limits, classes: Sequence[Any] | None, ipc: Any, seed: Any, soft_labels: Any, *fields: Any
) -> Recipe:
    """The fields of the page, checked; `fields` as in `read_order`, of which class, seed and count are left aside.

    Raises:
        ValueError: a field that is empty, out of range or no number, a class the model does not have, or a cap.
    """
    order = orders.read_order(model, 0, 0, 1, *fields[3:])
    if isinstance(classes, str):
        classes = [name for name in classes.split(",") if name.strip()]
    labels = sorted({orders.read_class(model, name) for name in classes or range(len(model.class_names))})
    per_class = orders.whole("the number of images per class", ipc, 1, limits.ipc)
    first = orders.whole("the seed of the set", seed, 0, MAX_SEED)
    if soft_labels and not has_classifier(model):
        raise ValueError(f"soft labels need a classifier, and {model.name} has none: untick them")
    name = f"{model.name}-ipc{per_class}-seed{first}"
    return Recipe(tuple(labels), per_class, first, order.sampling, order.amplification, bool(soft_labels), name)


def estimate_words(recipe: Recipe, estimate: Estimate) -> str:
    images = f"{recipe.num_images:,} image{'s' if recipe.num_images > 1 else ''}"
    return f"{images}: about {time_words(estimate.seconds)} of computing and {size_words(estimate.bytes)}."


def time_words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def size_words(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{max(1, round(num_bytes / 1e3))} kB"


def caps_words(limits: Limits) -> str:
    """The caps, as the page states them."""
    return (
        f"Caps here: {limits.ipc:,} images per class, {limits.job_time} of computing before a job has to be resumed, "
        f"{limits.jobs} jobs at once. A set is kept for {limits.keep_hours} hours after you last looked. "
        f"Elsewhere on this page: {limits.count} pairs of pictures and {limits.samples} samples at once, "
        f"{limits.upload_bytes // 2**20} MB a file."
    )
