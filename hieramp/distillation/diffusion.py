"""Sets drawn by a diffusion model: what to draw and how to choose is as for a VAR (`maker`), how to draw is not."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from hieramp.diffusion.model import GROUP, DiffusionModel
from hieramp.distillation.maker import BatchRequest, Drawer, full_float32, parallel_map
from hieramp.distillation.plan import Item
from hieramp.settings import Settings


class DiffusionDrawer(Drawer):
    """Draws items with a diffusion model. Nothing is ever in doubt: an image's bits do not depend on its batch.

    On a CPU every thread draws groups of its own, each on one thread.
    """

    model: DiffusionModel  # type: ignore[assignment]

    def __init__(
        self,
        model: DiffusionModel,
        settings: Settings,
        image_size: int,
        classifier: nn.Module | None = None,
        candidates: int = 1,
        soft_labels: bool = True,
    ) -> None:
        self.model, self.settings = model, settings
        self.image_size, self.classifier = image_size, classifier
        self.candidates, self.soft_labels = candidates, soft_labels

    def _shares(self, request: BatchRequest) -> "list[Share]":  # type: ignore[override]
        with full_float32():
            if self.model.device.type != "cpu":
                return [self._drawn(request.items)]
            groups = [request.items[i : i + GROUP["cpu"]] for i in range(0, len(request.items), GROUP["cpu"])]
            return parallel_map([partial(self._drawn, group) for group in groups])

    def _drawn(self, items: Sequence[Item]) -> "Share":
        drawing = self.model.generate([item.label for item in items], [item.seed for item in items], self.settings)
        return Share(tuple(items), [True] * len(items), drawing.images.cpu())


class Share(NamedTuple):
    """Drawn items."""

    items: tuple[Item, ...]
    clear: list[bool]
    drawn: Tensor  # (B, 3, H, W) on the CPU

    def images(self) -> list[tuple[Item, Tensor | None]]:
        return list(zip(self.items, self.drawn, strict=True))
