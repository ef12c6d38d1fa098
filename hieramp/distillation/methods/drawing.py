"""Draws items with the parts of a method."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hieramp.devices import to_device_async
from hieramp.diffusion.amplifier import Amplifier
from hieramp.diffusion.model import GROUP, DiffusionModel
from hieramp.diffusion.noise import gaussian
from hieramp.diffusion.sampler import sample
from hieramp.distillation.diffusion import DiffusionDrawer, Share
from hieramp.distillation.maker import Batch, BatchRequest, Drawer
from hieramp.distillation.methods.method import Parts
from hieramp.distillation.plan import Item
from hieramp.generation.model import Model
from hieramp.settings import Settings


class PartsDrawer(DiffusionDrawer):
    """Draws with a diffusion model along the levels, from the start, by the guide and to the refinement of a method."""

    def __init__(
        self,
        model: DiffusionModel,
        settings: Settings,
        image_size: int,
        classifier: nn.Module | None,
        candidates: int,
        soft_labels: bool,
        parts: Parts,
    ) -> None:
        super().__init__(model, settings, image_size, classifier, candidates, soft_labels)
        self.parts = parts

    def make(self, request: BatchRequest) -> Callable[[], Batch]:
        finish, weights = super().make(request), self.parts.weights
        if weights is None:
            return finish

        def weighed() -> Batch:
            batch = finish()
            return Batch([replace(made, weight=weights[made.index]) for made in batch.made], batch.doubtful)

        return weighed

    def _drawn(self, items: Sequence[Item]) -> Share:
        size = GROUP.get(self.model.device.type, 4)
        groups = [items[start : start + size] for start in range(0, len(items), size)]
        # a network's last bits depend on the shape of the batch: every group is filled up
        drawn = [self._group([*group, *[group[0]] * (size - len(group))])[: len(group)] for group in groups]
        return Share(tuple(items), [True] * len(items), torch.cat(drawn).cpu())

    @torch.no_grad()
    def _group(self, items: Sequence[Item]) -> Tensor:
        """Images (B, 3, H, W) of a whole group."""
        model, parts, how = self.model, self.parts, self.settings
        denoiser, device = model.denoiser, model.device
        labels, seeds = [item.label for item in items], [item.seed for item in items]
        levels = denoiser.levels(how.steps) if parts.levels is None else parts.levels
        if parts.start is None:
            z = levels[0].noise * gaussian(labels, seeds, denoiser.shape, device)
        else:
            z = to_device_async(parts.start(items), device)
        moments = sample(
            denoiser,
            z,
            levels,
            to_device_async(torch.tensor(labels), device),
            solver=how.solver,
            guidance=how.guidance,
            attention=Amplifier(denoiser, labels, seeds, [how] * len(items), class_token=model.class_token),
            guides=[] if parts.guide is None else [parts.guide(items)],
            first=parts.first,
        )
        for moment in moments:
            z = moment.after
        if parts.refine is not None:
            z = parts.refine(denoiser, z, items)
        return model.latents.decode(z)


class PrefixDrawer(Drawer):
    """Draws with a VAR that is given the tokens of the first scales."""

    def __init__(self, *how: Any, prefix: Callable[[Sequence[Item]], list[Tensor]]) -> None:
        super().__init__(*how)
        self.prefix = prefix

    def _prefix(self, items: Sequence[Item]) -> list[Tensor]:
        return self.prefix(items)


class Selected:
    """Makes items from the seeds that were chosen for them, by any drawer."""

    def __init__(self, drawer: Drawer, parts: Parts) -> None:
        assert parts.offsets is not None
        self.drawer, self.offsets = drawer, parts.offsets

    @property
    def model(self) -> Model | DiffusionModel:
        return self.drawer.model

    @property
    def classifier(self) -> nn.Module | None:
        return self.drawer.classifier

    def make(self, request: BatchRequest) -> Callable[[], Batch]:
        items = {item.index: item for item in request.items}
        from_seed = tuple(replace(item, seed=item.seed + self.offsets[item.index]) for item in request.items)
        finish = self.drawer.make(BatchRequest(from_seed, request.exact))

        def finished() -> Batch:
            batch = finish()
            made = [replace(made, chosen=self.offsets[made.index]) for made in batch.made]
            return Batch(made, [items[item.index] for item in batch.doubtful])

        return finished
