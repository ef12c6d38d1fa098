"""From a method to what draws its items: the real images in the model's classes, the checks, the preparation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hieramp.classifier import Classifier
from hieramp.data import DataSource
from hieramp.diffusion.model import DiffusionModel
from hieramp.distillation.diffusion import DiffusionDrawer
from hieramp.distillation.maker import BatchRequest, Drawer
from hieramp.distillation.methods.drawing import PartsDrawer, PrefixDrawer, Selected
from hieramp.distillation.methods.images import RealImages, fingerprint_of_images, of_model
from hieramp.distillation.methods.method import Method, Parts, Work
from hieramp.distillation.methods.store import Store
from hieramp.distillation.plan import Item, Plan
from hieramp.errors import UserError
from hieramp.generation.model import Model
from hieramp.settings import Settings


def identity_of(method: Method, model: Model | DiffusionModel, data: DataSource | None) -> dict[str, Any]:
    """What decides about the images besides the drawing, ready for JSON.

    Raises:
        UserError: the method cannot be done with this model, or lacks real images, or takes none.
    """
    method.check_kind(model)
    if method.needs_data and data is None:
        raise UserError(f"{method.name} takes real images of the model's classes: name their folder with --data")
    if data is not None and not method.needs_data:
        raise UserError(f"{method.name} takes no real images: leave --data out")
    about: dict[str, Any] = {"parameters": method.to_json(model.kind)}
    if data is not None:
        about |= {"data": data.name, "images": fingerprint_of_images(of_model(data, model))}
    return about


@dataclass(frozen=True)
class Preparation:
    """Prepares when called, and gives what makes the items."""

    method: Method
    model: Model | DiffusionModel
    settings: Settings
    plan: Plan
    image_size: int
    judge: Classifier | None
    candidates: int
    soft_labels: bool
    data: DataSource | None
    prepared: Path

    def check(self) -> None:
        """Raise UserError where the method cannot make this set; nothing is written."""
        self.method.check(self.work)

    def __call__(self) -> Drawer | Selected:
        work = self.work
        if self.method.needs_data or self.method.pool > 1:
            with work.store.held():
                parts = self.method.prepare(work)
        else:
            parts = self.method.prepare(work)
        drawer = self._drawer(parts, self.candidates, self.soft_labels)
        return drawer if parts.offsets is None else Selected(drawer, parts)

    @property
    def work(self) -> Work:
        plan = self.plan
        return Work(
            model=self.model,
            settings=self.settings,
            ipc=plan.ipc,
            classes=plan.classes,
            seed=plan.seed,
            image_size=self.image_size,
            items=tuple(plan.item(index) for index in range(len(plan))),
            store=Store(self.prepared),
            images=None if self.data is None else RealImages(of_model(self.data, self.model), plan.classes),
            judge=self.judge,
            draw=self._logits,
        )

    def _drawer(self, parts: Parts, candidates: int, soft_labels: bool) -> Drawer:
        how = self.image_size, self.judge, candidates, soft_labels
        if isinstance(self.model, DiffusionModel):
            if parts == Parts(offsets=parts.offsets):
                return DiffusionDrawer(self.model, self.settings, *how)
            return PartsDrawer(self.model, self.settings, *how, parts)
        of_var = self.model, self.settings.amplification, self.settings.sampling, *how
        return Drawer(*of_var) if parts.prefix is None else PrefixDrawer(*of_var, prefix=parts.prefix)

    def _logits(self, items: Sequence[Item]) -> list[Tensor]:
        """What the judge says of the pictures of these items, float32."""
        drawer = self._drawer(Parts(), 1, soft_labels=True)
        numbered = [replace(item, index=index) for index, item in enumerate(items)]
        found: dict[int, Tensor] = {}
        request = BatchRequest(tuple(numbered))
        while request.items:
            batch = drawer.make(request)()
            for made in batch.made:
                assert made.logits is not None
                found[made.index] = torch.from_numpy(np.frombuffer(made.logits, dtype="<f2").astype(np.float32))
            request = BatchRequest(tuple(batch.doubtful), exact=True)
        return [found[index] for index in range(len(items))]
