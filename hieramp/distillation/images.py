"""Sets that are made of real images: which images there are of a class, in what order, and the plan of such a set."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from hieramp.data import DataSource, described_classes
from hieramp.distillation.maker import Batch, BatchRequest, finished, parallel_map, soft_label
from hieramp.distillation.methods.images import fingerprint_of_images
from hieramp.distillation.plan import Item, Plan, sequence_of_labels
from hieramp.errors import UserError
from hieramp.imageset.layout import Format


def plan_of_images(
    method: str,
    source: DataSource,
    out: Path,
    settings: dict[str, Any],
    *,
    classes: Sequence[str] | None,
    ipc: int,
    size: int,
    seed: int,
    format: Format,
) -> Plan:
    """The plan of a set with the classes of `source`, or those of them that are named; it tells the images by a hash.

    Raises:
        UserError: an unknown class, or a number out of range.
    """
    described = described_classes(source.class_names)
    names, wnids = described["class_names"], described.get("wnids", [])
    return Plan(
        out=out,
        method=method,
        class_names=tuple(names),
        wnids=tuple(wnids),
        classes=sequence_of_labels(_labels(classes, names, wnids), len(names)),
        ipc=ipc,
        image_size=size,
        seed=seed,
        settings={"data": source.name, "images": fingerprint_of_images(source)} | settings,
        format=format,
    )


def _labels(classes: Sequence[str] | None, names: Sequence[str], wnids: Sequence[str]) -> list[int] | None:
    if classes is None:
        return None
    known = {name: label for listed in (names, wnids) for label, name in enumerate(listed)}
    for name in classes:
        if name not in known:
            raise UserError(f"unknown class {name!r}; the data has: {', '.join(names[:10])}")
    return [known[name] for name in classes]


class Collector:
    """A maker of images that are chosen, not drawn."""

    def __init__(self, choose: Callable[[Item], Image.Image], classifier: nn.Module | None) -> None:
        self.choose, self.classifier = choose, classifier

    def make(self, request: BatchRequest) -> Callable[[], Batch]:
        pictures = [self.choose(item) for item in request.items]
        labels: list[bytes | None] = [None] * len(pictures)
        if self.classifier is not None:
            labels = list(parallel_map([partial(soft_label, self.classifier, picture) for picture in pictures]))
        rows = zip([item.index for item in request.items], pictures, labels, strict=True)
        jobs = [partial(finished, *row) for row in rows]
        return lambda: Batch(parallel_map(jobs), [])


class Shuffled:
    """The images of a class in an order of the set's seed."""

    def __init__(self, source: DataSource, plan: Plan) -> None:
        self.source, self.plan = source, plan
        self.labels = np.asarray(source.labels())

    def order(self, label: int) -> np.ndarray:
        indices = np.flatnonzero(self.labels == label)
        return np.random.default_rng((self.plan.seed, label)).permutation(indices)

    def check(self, needed: int, what: str) -> None:
        """Raise UserError where a class has too few images."""
        for label in self.plan.classes:
            count = int((self.labels == label).sum())
            if count < needed:
                name = self.plan.class_names[label]
                raise UserError(f"{self.source.name} has {count} images of {name}, {what} takes {needed}: lower --ipc")
