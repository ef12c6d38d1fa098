"""D4M (Su et al., CVPR 2024, arXiv 2407.15138): draw each image from the noised centre of a cluster of real images.

The prototypes of a class are the k-means centroids m of the latents of its real images, k = IPC. Image j starts at
z = a·m + s·ε, at `strength` of DDPM's 1,000 times, and is drawn from there. The paper, on Stable Diffusion: strength
0.7, guidance w = 8 (--guidance 7), minibatch k-means, a prompt where there is a label here; k-means here sees all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from hieramp.diffusion.levels import NoiseLevel, log_snr_at
from hieramp.diffusion.noise import gaussian
from hieramp.distillation.methods.anchors import Anchored, AnchorsOf
from hieramp.distillation.methods.method import DIT, Parts, Work, first_at
from hieramp.distillation.plan import Item
from hieramp.fields import Knob, Number


@dataclass(frozen=True)
class NoisedAnchors:
    """The anchors of items at a noise level."""

    anchors: AnchorsOf
    level: NoiseLevel

    def __call__(self, items: Sequence[Item]) -> Tensor:
        z = self.anchors(items)
        labels, seeds = [item.label for item in items], [item.seed for item in items]
        return self.level.signal * z + self.level.noise * gaussian(labels, seeds, z.shape[1:], torch.device("cpu"))


@dataclass(frozen=True)
class D4M(Anchored):
    name: ClassVar[str] = "d4m"
    title: ClassVar[str] = "start from cluster centres (arXiv 2407.15138)"
    because: ClassVar[str] = "starts from a noised latent, which takes a continuous model"

    strength: Annotated[
        float,
        Knob(Number(0, 1, over=True), "Strength", "Share of DDPM's times to go back; 1: all.", "methods", DIT),
    ] = 0.7

    def prepare(self, work: Work) -> Parts:
        levels = self.levels(work)
        first = first_at(levels, log_snr_at(min(999, round(1000 * self.strength))))
        anchors = self.anchors(work)
        start = NoisedAnchors(anchors, levels[first])
        return Parts(levels=levels, first=first, start=start, weights=anchors.weights(work.items))
