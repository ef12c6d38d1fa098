"""MGD³, mode guidance (Chan-Santiago et al., ICML 2025, arXiv 2505.18963): pull each image to a mode of its class.

A class's modes are the k-means centroids m of the latents of its real images, k = IPC; image j has mode j. While the
picture is still noise the predicted latent is pulled there, in the form for DDIM: ε̂ ← ε̂ - λ·√(1 - ᾱ)·(m - x̂0). The
paper: λ = 0.1, until step 25 of 50, guidance w = 4 (--guidance 3), 50 steps of DDPM. Here the sampler is the model's
own, deterministic one. No further call of the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import Annotated, ClassVar

from torch import Tensor

from hieramp.diffusion.sampler import Guide, Moment
from hieramp.distillation.methods.anchors import Anchored, AnchorsOf
from hieramp.distillation.methods.method import DIT, Parts, Work
from hieramp.distillation.methods.noise_levels import LogSNR, log_snr_of
from hieramp.distillation.plan import Item
from hieramp.errors import UserError
from hieramp.fields import Knob, Number


@dataclass(frozen=True)
class Pull:
    """Guides x̂0 to an anchor while `begin` ≤ λ < `end`."""

    anchors: AnchorsOf
    strength: float
    begin: float
    end: float

    def __call__(self, items: Sequence[Item]) -> Guide:
        anchors = self.anchors(items)

        def guide(moment: Moment) -> Tensor:
            level, x0 = moment.level, moment.guided.x0
            if not self.begin <= level.log_snr < self.end:
                return x0.new_zeros(())
            noise = level.noise / hypot(level.signal, level.noise)  # √(1 - ᾱ), whatever the path
            return -self.strength * noise * (anchors.to(x0.device) - x0)

        return guide


@dataclass(frozen=True)
class Pulled(Anchored):
    """A method that pulls to anchors."""

    pull: Annotated[float, Knob(Number(0), "Pull", "λ: how strongly x̂0 is pulled to its anchor.", "methods", DIT)] = 0.1
    pull_from: Annotated[
        float, Knob(LogSNR(), "Pull from", "Log-SNR from which on (-10: where DDPM begins).", "methods", DIT)
    ] = -10.0
    pull_until: Annotated[
        float, Knob(LogSNR(), "Pull until", "Log-SNR below which, or a step like 25/50.", "methods", DIT)
    ] = log_snr_of(25, 50)

    def check(self, work: Work) -> None:
        super().check(work)
        if self.pull_from >= self.pull_until:
            raise UserError(f"pull from is {self.pull_from:g} and pull until {self.pull_until:g}: it must be less")

    def prepare(self, work: Work) -> Parts:
        anchors = self.anchors(work)
        guide = Pull(anchors, self.pull, self.pull_from, self.pull_until) if self.pull else None
        return Parts(
            levels=self.levels(work), guide=guide, weights=anchors.weights(work.items) if self.weighs else None
        )


@dataclass(frozen=True)
class MGD3(Pulled):
    name: ClassVar[str] = "mgd3"
    title: ClassVar[str] = "mode guidance (arXiv 2505.18963)"
    because: ClassVar[str] = "corrects the predicted latent at every step, which takes a continuous model"
