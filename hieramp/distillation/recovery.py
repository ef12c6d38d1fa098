"""Recovering a set: every image of a given one drawn anew by DIVER (`diver`), into a set of the same size."""

import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hieramp.checkpoints import fingerprint
from hieramp.data import DataSpec, to_square
from hieramp.diffusion.model import GROUP, DiffusionModel
from hieramp.distillation.diffusion import DiffusionDrawer, Share
from hieramp.distillation.distill import BATCH_SIZE, SOFT, Distillation, judge_of
from hieramp.distillation.diver import METHOD, Diver, recovered
from hieramp.distillation.given import GivenSet, open_given
from hieramp.distillation.plan import MAX_IPC, Item, Plan
from hieramp.errors import UserError
from hieramp.fields import to_json
from hieramp.imageset.layout import Format, image_name
from hieramp.settings import DEFAULTS


@dataclass(frozen=True)
class _GivenPlan(Plan):
    """As many images of each class as were given."""

    labels: tuple[int, ...] = ()  # ascending

    def __len__(self) -> int:
        return len(self.labels)

    def item(self, index: int) -> Item:
        label = self.labels[index]
        k = index - bisect_left(self.labels, label)
        return Item(index, label, self.seed * MAX_IPC + k, image_name(self.folders[label], k, self.format))


class Recoverer(DiffusionDrawer):
    """Draws the image of a given one; on a CPU in groups of one size, each on one thread."""

    def __init__(
        self,
        model: DiffusionModel,
        given: GivenSet,
        diver: Diver,
        image_size: int,
        classifier: nn.Module | None = None,
    ) -> None:
        super().__init__(model, DEFAULTS[model.kind], image_size, classifier)
        self.given, self.diver = given, diver

    @cached_property
    def _group(self) -> int:
        return GROUP.get(self.model.device.type, 4)

    def _drawn(self, items: Sequence[Item]) -> Share:
        size = self._group
        parts = [self._some(items[start : start + size]) for start in range(0, len(items), size)]
        return Share(tuple(items), [True] * len(items), torch.cat(parts))

    def _some(self, items: Sequence[Item]) -> Tensor:
        """A group, filled up with its first image."""
        filled = [*items, *[items[0]] * (self._group - len(items))]
        images = torch.stack([self._pixels(item.index) for item in filled])
        labels, seeds = [item.label for item in filled], [item.seed for item in filled]
        return recovered(self.model, images, labels, seeds, self.diver)[: len(items)].cpu()

    def _pixels(self, index: int) -> Tensor:
        picture = to_square(self.given.read(index), self.model.image_size)
        return torch.from_numpy(np.asarray(picture, dtype=np.uint8).copy()).permute(2, 0, 1).float() / 255


def recover(
    given: str | Path | DataSpec,
    model: DiffusionModel,
    out: str | Path,
    diver: Diver | None = None,
    *,
    seed: int = 0,
    size: int | None = None,
    classes: Sequence[str | int] | None = None,
    pixels: str | None = None,
    experiment: int = 0,
    soft_labels: bool = False,
    classifier: str | Path | None = None,
    format: Format = "zip",
    batch_size: int | None = None,
    **options: Any,
) -> Distillation:
    """Plan a set at `out` with an image for each of a given set: call `.run()` to make it, or iterate over it.

    `given` is a set of ours, an image folder or a .pt file (`hieramp.distillation.given` has the rest of the arguments
    that it may need); images of another size than the model's are resized, which is told on stderr. Any field of
    `Diver` may be given by its name: `gamma=0.02, pull="x0"`. Labels stay. Image k of a class is that of the given
    set's image k, with the seed seed · 1,000,000 + k. Resumes as `distill` does, and is byte-identical.

    Raises:
        UserError: the model is no diffusion model, a setting is out of range, or as `open_given`.
        TypeError: an option that is no setting.
    """
    if not isinstance(model, DiffusionModel):
        raise UserError(f"DIVER needs a continuous model to add noise to; {model.name} is a VAR: give a DiT")
    if diver is not None and options:
        raise UserError("settings are given twice: put the options into the Diver")
    diver = diver or Diver(**options)
    diver.levels(model.denoiser)
    found = open_given(given, model.class_names, model.wnids, classes=classes, pixels=pixels, experiment=experiment)
    _tell_sizes(found, model)
    judge = judge_of(model, classifier) if soft_labels else None
    counts = [found.labels.count(label) for label in sorted(set(found.labels))]
    dtype = str(model.dtype).removeprefix("torch.")
    plan = _GivenPlan(
        out=Path(out),
        method=METHOD,
        class_names=model.class_names,
        wnids=model.wnids,
        classes=tuple(sorted(set(found.labels))),
        ipc=max(counts),
        image_size=model.image_size if size is None else size,
        seed=seed,
        settings={
            "recovered_from": {"name": found.name, "sha256": found.sha256},
            **({"per_class": counts} if min(counts) < max(counts) else {}),
            **to_json(diver, model.kind),
            "dtype": dtype,
            "device": model.device.type,
            SOFT: fingerprint(judge.state_dict()) if judge else None,
        },
        model={"name": model.name, "sha256": fingerprint(*model.states)},
        format=format,
        labels=found.labels,
    )
    batch_size = BATCH_SIZE.get(model.device.type, 32) if batch_size is None else batch_size
    return Distillation(plan, Recoverer(model, found, diver, plan.image_size, judge), batch_size)


def _tell_sizes(given: GivenSet, model: DiffusionModel) -> None:
    side = model.image_size
    others = sorted(given.sizes - {(side, side)})
    if others:
        (width, height), more = others[0], f" and {len(others) - 1} other sizes" if len(others) > 1 else ""
        ours = f"{side}×{side}, those of {model.name}"
        print(
            f"{given.name}: images of {width}×{height} pixels{more} are resized to {ours}",
            file=sys.stderr,
        )
