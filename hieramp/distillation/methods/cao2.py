"""CaO₂ (Wang et al., ICCV 2025, arXiv 2506.22637): choose among drawn images by a classifier, then refine the latents.

1. Selection: `pool` · IPC images of a class are drawn. Of those that the classifier names right, IPC are taken: those
   it is surest of, or least sure of; where there are too few, the surest of the others fill up. The paper takes the
   surest at IPC 10, the least sure at IPC 50 (`auto`: beyond 10), pool 2 (4 on ImageWoof).
2. Refinement of each latent z, by Adam: `refine_steps` times, for a noise ε of the image and a level drawn anew, a step
   down mean (ε - ε̂)² + 10·max |ε - ε̂|, where ε̂ is predicted from a·z + s·ε. The paper: 100 steps of rate 6e-4 among
   DDPM's levels 1 to 11 of 50; labels are left out (null) for hard data sets, and given (class) for easy ones.
The authors' code tells the network the number of the level for its time; here it is told the time. Their images are
drawn with guidance w = 2.7 (--guidance 1.7) in 50 steps. A VAR has the selection alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from hieramp.checkpoints import fingerprint
from hieramp.devices import to_device_async
from hieramp.diffusion.levels import NoiseLevel
from hieramp.diffusion.model import DiffusionModel
from hieramp.diffusion.noise import gaussian
from hieramp.diffusion.sampler import Denoiser
from hieramp.distillation.methods.method import DIT, EITHER, Method, Parts, Work
from hieramp.distillation.methods.noise_levels import LogSNR, log_snr_of, respaced
from hieramp.distillation.methods.store import Tensors
from hieramp.distillation.plan import MAX_IPC, Item
from hieramp.errors import UserError
from hieramp.fields import Choice, Knob, Number

ORDERS = (("auto", "surest to 10 images a class, then least sure"), ("surest", "surest"), ("least-sure", "least sure"))
SUREST_UNTIL = 10  # images per class
CHUNK = 64  # images of the pool at once
LABELS = (("null", "none"), ("class", "the image's"))


@dataclass(frozen=True)
class Refined:
    """Moves latents to where the model predicts noise well."""

    levels: tuple[NoiseLevel, ...]  # one for each step
    rate: float
    weight: float  # of the largest error
    with_label: bool

    def __call__(self, denoiser: Denoiser, z: Tensor, items: Sequence[Item]) -> Tensor:
        labels, seeds = [item.label for item in items], [item.seed for item in items]
        noise = gaussian(labels, seeds, z.shape[1:], z.device, "refine")
        told = labels if self.with_label else [denoiser.null_label] * len(labels)
        labels_B = to_device_async(torch.tensor(told), z.device)
        with torch.enable_grad():
            z = z.detach().clone().requires_grad_(True)
            optimizer = torch.optim.Adam([z], lr=self.rate)
            for level in self.levels:
                # each image has a loss of its own, and Adam scales each number by itself: neighbours do not matter
                error = noise - denoiser.predict(level.signal * z + level.noise * noise, level, labels_B).eps
                loss_B = error.square().flatten(1).mean(1) + self.weight * error.abs().flatten(1).amax(1)
                (z.grad,) = torch.autograd.grad(loss_B.sum(), z)
                optimizer.step()
        return z.detach()


@dataclass(frozen=True)
class CaO2(Method):
    name: ClassVar[str] = "cao2"
    title: ClassVar[str] = "selection by a classifier, then refinement of the latents (arXiv 2506.22637)"
    kinds: ClassVar[tuple[str, ...]] = EITHER
    needs_data: ClassVar[bool] = False

    pool_factor: Annotated[
        int,
        Knob(
            Number(1, 64, unit="count", whole=True),
            "Pool",
            "Images drawn for each one that is kept; 1: no selection.",
            "methods",
            EITHER,
        ),
    ] = 2
    order: Annotated[
        str,
        Knob(Choice(ORDERS), "Order", "Which of those named right are taken first.", "methods", EITHER),
    ] = "auto"
    refine_steps: Annotated[
        int, Knob(Number(0, 100_000, unit="count", whole=True), "Steps", "Of the refinement; 0: none.", "methods", DIT)
    ] = 100
    refine_rate: Annotated[
        float, Knob(Number(0, over=True), "Rate", "Of the refinement: Adam's learning rate.", "methods", DIT)
    ] = 6e-4
    refine_noise: Annotated[
        float,
        Knob(
            LogSNR(), "Noise", "Log-SNR, or a step like 11/50, up to which the refinement adds noise.", "methods", DIT
        ),
    ] = log_snr_of(11, 50)
    refine_label: Annotated[
        str, Knob(Choice(LABELS), "Label", "What the network is told in the refinement.", "methods", DIT)
    ] = "null"
    refine_worst: Annotated[
        float, Knob(Number(0), "Worst", "Weight of the largest error in the refinement.", "methods", DIT)
    ] = 10.0

    @property
    def pool(self) -> int:
        return self.pool_factor

    def check(self, work: Work) -> None:
        if work.ipc * self.pool_factor > MAX_IPC:
            raise UserError(f"ipc times pool factor is {work.ipc * self.pool_factor}; it must be at most {MAX_IPC}")
        if isinstance(work.model, DiffusionModel) and self.refine_steps and not self._levels(work.model.denoiser):
            raise UserError(f"refine noise is {self.refine_noise:g}; give less noise than none: at most 7, or 1/50")

    def prepare(self, work: Work) -> Parts:
        offsets: dict[int, int] | None = None
        if self.pool_factor > 1:
            offsets = self._offsets(work)
        refine = None
        if isinstance(work.model, DiffusionModel) and self.refine_steps:
            found, draws = self._levels(work.model.denoiser), np.random.Generator(np.random.Philox(42))
            levels = tuple(found[int(i)] for i in draws.integers(len(found), size=self.refine_steps))
            refine = Refined(levels, self.refine_rate, self.refine_worst, self.refine_label == "class")
        return Parts(refine=refine, offsets=offsets)

    def _offsets(self, work: Work) -> dict[int, int]:
        """By the item's index: from its seed to that of the image chosen for it."""
        of_class = {label: self.chosen(self._logits(work, label), label, work.ipc) for label in work.classes}
        offsets = {}
        for item in work.items:
            seed = work.seed * MAX_IPC + of_class[item.label][item.index % work.ipc]
            offsets[item.index] = seed - item.seed
        return offsets

    def _levels(self, denoiser: Denoiser) -> list[NoiseLevel]:
        return [level for level in respaced(denoiser)[1:] if level.log_snr >= self.refine_noise]

    def chosen(self, logits_NK: Tensor, label: int, ipc: int) -> list[int]:
        """Which of N drawn images are taken, in their order."""
        sure_N, named_N = logits_NK.softmax(-1).max(-1)
        right = [i for i in range(len(logits_NK)) if int(named_N[i]) == label]
        # the surest of the others: surest that they show the class
        others = [i for i in range(len(logits_NK)) if int(named_N[i]) != label]
        others.sort(key=lambda i: -float(logits_NK[i].log_softmax(-1)[label]))
        surest_first = self.order == "surest" or (self.order == "auto" and ipc <= SUREST_UNTIL)
        right.sort(key=lambda i: -float(sure_N[i]) if surest_first else float(sure_N[i]))
        return (right + others)[:ipc]

    def _logits(self, work: Work, label: int) -> Tensor:
        """The judge's logits of the pool of a class, (pool · ipc, K)."""
        assert work.judge is not None and work.draw is not None
        about = {
            "model": fingerprint(*work.model.states),
            "judge": fingerprint(work.judge.state_dict()),
            "settings": work.settings.resolved(work.model.depth).to_json(work.model.kind),
            "dtype": str(work.model.dtype),
            "device": work.model.device.type,
            "size": work.image_size,
            "seed": work.seed,
        }
        count = work.ipc * self.pool_factor
        items = [Item(k, label, work.seed * MAX_IPC + k, "") for k in range(count)]
        stage = work.store.stage("pool", about)
        parts = []
        for start in range(0, count, CHUNK):
            some = items[start : start + CHUNK]
            parts.append(stage.get_one(f"{label}-{start}-{len(some)}", partial(self._drawn, work, some))["logits"])
        return torch.cat(parts)

    def _drawn(self, work: Work, items: Sequence[Item]) -> Tensors:
        assert work.draw is not None
        return {"logits": torch.stack(work.draw(items))}
