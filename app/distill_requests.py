"""What a distilled set is made by: fields of the page → a checked request, and words about it. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app import view_requests
from app.kinds import AnyModel
from app.visitor_limits import VisitorLimits
from hieramp import Settings, classifier
from hieramp.distillation.estimate import CostEstimate
from hieramp.errors import UserError

MAX_SEED = 2**40 - 1


@dataclass(frozen=True)
class DistillRequest:
    """What a set is made by."""

    labels: tuple[int, ...]
    ipc: int
    seed: int
    settings: Settings
    soft_labels: bool
    name: str  # of the file, without its ending

    @property
    def num_images(self) -> int:
        return len(self.labels) * self.ipc

    def to_json(self) -> str:
        return json.dumps({**vars(self), "settings": self.settings.to_json()})

    @classmethod
    def from_json(cls, text: str) -> "DistillRequest":
        stored: dict[str, Any] = json.loads(text)
        if "sampling" in stored:  # a job of the version before
            settings = Settings(**stored.pop("sampling"), **stored.pop("amplification"))
        else:
            settings = Settings.from_json(stored.pop("settings"))
        return cls(tuple(stored.pop("labels")), settings=settings, **stored)


def has_classifier(model: AnyModel) -> bool:
    """Whether there is one of the model's classes: for soft labels, verdicts, opinions and doses alike."""
    return model.folder is not None and classifier.has_classifier(model.folder)


def read_distill_request(model: AnyModel, limits: VisitorLimits, values: Mapping[str, Any]) -> DistillRequest:
    """The values of the page, checked: classes, ipc, set_seed, soft_labels and those of `view_requests.read_request`,
    of which class, seed and count are left aside.

    Raises:
        UserError: one that is empty, out of range or no number, a class the model does not have, or a cap.
    """
    view_request = view_requests.read_request(model, {**values, **view_requests.REQUEST})
    classes = values.get("classes")
    if isinstance(classes, str):
        classes = [name for name in classes.split(",") if name.strip()]
    labels = sorted({view_requests.read_class(model, name) for name in classes or range(len(model.class_names))})
    per_class = view_requests.whole("the number of images per class", values.get("ipc"), 1, limits.ipc)
    first = view_requests.whole("the seed of the set", values.get("set_seed"), 0, MAX_SEED)
    soft_labels = bool(values.get("soft_labels"))
    if soft_labels and not has_classifier(model):
        raise UserError(f"soft labels need a classifier, and {model.name} has none: untick them")
    if len(labels) * per_class > limits.images:
        raise UserError(
            f"{len(labels) * per_class:,} images are more than a set may have here, {limits.images:,}: "
            "take fewer classes or images per class"
        )
    name = f"{model.name}-ipc{per_class}-seed{first}"
    return DistillRequest(tuple(labels), per_class, first, view_request.settings, soft_labels, name)


def estimate_words(distill_request: DistillRequest, estimate: CostEstimate) -> str:
    images = f"{distill_request.num_images:,} image{'s' if distill_request.num_images > 1 else ''}"
    return f"{images}: about {time_words(estimate.seconds)} of computing and {size_words(estimate.bytes)}."


def time_words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def size_words(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{max(1, round(num_bytes / 1e3))} kB"


def caps_words(limits: VisitorLimits) -> str:
    """The caps, as the page states them."""
    return (
        f"Caps here: {limits.ipc:,} images per class and {limits.images:,} a set, {limits.disk_bytes / 2**30:.3g} GB "
        f"of sets, {limits.job_time} of computing before a job has to be resumed, "
        f"{limits.jobs} jobs at once. A set is kept for {limits.keep_hours} hours after you last looked. "
        f"Elsewhere on this page: {limits.count} pairs of pictures and {limits.samples} samples at once, "
        f"{limits.upload_bytes // 2**20} MB a file."
    )
