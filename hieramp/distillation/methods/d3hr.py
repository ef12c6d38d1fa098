"""D3HR (Zhao et al., ICML 2025, arXiv 2505.18399): real images inverted to noise, where a class is close to a Gaussian.

1. The latents of all real images of a class are inverted (DDIM) to a noise level where their distribution is about
   normal: DDPM's time 600 of 1,000 (λ -3.64).
2. Mean μ and standard deviation σ of every dimension over the class.
3. Group sampling: of `groups` sets of IPC latents z ~ N(μ, σ²) the one with the least
   w1·‖mean - μ‖ + w2·‖std - σ‖ + w3·‖skewness‖ is taken.
4. These are drawn on from that level, with the settings of the inversion.
The paper: weights 1, 1, 0.5, 10⁶ groups, guidance w = 4 (--guidance 3) in inversion and drawing, 50 steps. The authors'
code takes 0.1 for the third weight and starts one step beside the level that it inverted to; here it is that level.
Strong guidance makes an inversion drift: more --inversion-rounds follow it (1 is DDIM's inversion).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from hieramp.checkpoints import fingerprint
from hieramp.devices import to_device_async
from hieramp.diffusion.model import GROUP, DiffusionModel
from hieramp.diffusion.sampler import invert
from hieramp.distillation.maker import full_float32
from hieramp.distillation.methods.anchors import AnchorsOf
from hieramp.distillation.methods.images import CHUNK
from hieramp.distillation.methods.method import DIT, OfImages, Parts, Work, first_at
from hieramp.distillation.methods.noise_levels import LogSNR
from hieramp.distillation.methods.store import Stage, Tensors
from hieramp.distillation.plan import Item
from hieramp.errors import UserError
from hieramp.fields import Knob, Number
from hieramp.seeds import seed_of

NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True)
class ChosenLatents:
    """Latents that were chosen for the items, at the noise level where they start."""

    of_class: AnchorsOf

    def __call__(self, items: Sequence[Item]) -> Tensor:
        return self.of_class(items)


def _weight(label: str, what: str) -> Knob:
    return Knob(Number(0), label, f"Of {what} in the choice of a group.", "methods", DIT)


@dataclass(frozen=True)
class D3HR(OfImages):
    name: ClassVar[str] = "d3hr"
    title: ClassVar[str] = "inversion, Gaussian domain, group sampling (arXiv 2505.18399)"
    because: ClassVar[str] = "inverts real images to noise, which takes a continuous model"

    inverted_to: Annotated[
        float, Knob(LogSNR(), "Inverted to", "Log-SNR to invert to, or a step like 30/50.", "methods", DIT)
    ] = -3.64
    inversion_rounds: Annotated[
        int,
        Knob(
            Number(1, 100, unit="count", whole=True),
            "Rounds",
            "Of fixed-point iteration for a step of the inversion; 1: DDIM's inversion.",
            "methods",
            DIT,
        ),
    ] = 1
    groups: Annotated[
        int,
        Knob(
            Number(1, 10**9, unit="count", whole=True),
            "Groups",
            "Sets of IPC latents to choose from, in each class (the paper: 1000000).",
            "methods",
            DIT,
        ),
    ] = 100_000
    mean_weight: Annotated[float, _weight("Mean", "the distance of the mean")] = 1.0
    std_weight: Annotated[float, _weight("Spread", "the distance of the standard deviation")] = 1.0
    skew_weight: Annotated[float, _weight("Skewness", "the skewness")] = 0.5

    def check(self, work: Work) -> None:
        super().check(work)
        if work.ipc == 1 and (self.std_weight or self.skew_weight):
            raise UserError(
                "d3hr compares the spread of the images of a class, and one image has none: give --ipc 2 or more, or "
                "--std-weight 0 --skew-weight 0"
            )
        work.real.check_count(2, self.images_per_class, "the spread of a class in d3hr")

    def prepare(self, work: Work) -> Parts:
        levels = self.levels(work)
        first = first_at(levels, self.inverted_to)
        stage, inverted = self._inverted(work, first)
        about = {
            "of": stage.hash,
            "ipc": work.ipc,
            "seed": work.seed,
            "groups": self.groups,
            "weights": [self.mean_weight, self.std_weight, self.skew_weight],
        }
        jobs = {str(label): partial(self._chosen, work, label, z) for label, z in inverted.items()}
        found = work.store.stage("groups", about).get(jobs, torch.device("cpu"), "group sampling")
        chosen = AnchorsOf({label: found[str(label)]["z"] for label in inverted}, work.ipc)
        return Parts(levels=levels, first=first, start=ChosenLatents(chosen))

    def _inverted(self, work: Work, first: int) -> tuple[Stage, dict[int, Tensor]]:
        """The real images of each class at levels[first], (N, C, h, w)."""
        before, latents = work.real.latents(work.store, work.diffusion, self.images_per_class, work.seed)
        settings, model = work.settings, work.diffusion
        about = {
            "of": before.hash,
            "model": fingerprint(*model.states),
            "dtype": str(model.dtype),
            "device": model.device.type,
            "levels": [list(level) for level in self.levels(work)[first:]],
            "solver": settings.solver,
            "guidance": settings.guidance,
            "rounds": self.inversion_rounds,
        }
        jobs: dict[str, Any] = {}
        of_class: dict[int, list[str]] = {}
        for label, z in latents.items():
            chunks = {f"{label}-{number}": some for number, some in enumerate(z.split(CHUNK))}
            jobs |= {key: partial(self._back, work, first, label, some) for key, some in chunks.items()}
            of_class[label] = list(chunks)
        stage = work.store.stage("inverted", about)
        found = stage.get(jobs, model.device, "inversion")
        return stage, {label: torch.cat([found[key]["z"] for key in keys]) for label, keys in of_class.items()}

    def _back(self, work: Work, first: int, label: int, z: Tensor) -> Tensors:
        model, at_once = work.diffusion, GROUP.get(work.diffusion.device.type, 4) * 8
        with full_float32():
            parts = [self._back_some(model, work, first, label, some) for some in z.split(at_once)]
        return {"z": torch.cat(parts)}

    def _back_some(self, model: DiffusionModel, work: Work, first: int, label: int, z: Tensor) -> Tensor:
        there = invert(
            model.denoiser,
            to_device_async(z, model.device),
            self.levels(work),
            torch.full((len(z),), label, device=model.device),
            solver=work.settings.solver,
            guidance=work.settings.guidance,
            until=first,
            rounds=self.inversion_rounds,
        )
        return there.cpu()

    def _chosen(self, work: Work, label: int, inverted: Tensor) -> Tensors:
        """The group of latents, (ipc, C, h, w), whose statistics are nearest to those of the class."""
        mean, std = inverted.double().mean(0), inverted.double().std(0)
        flat_std, ipc = std.flatten().float(), work.ipc
        random = np.random.Generator(np.random.Philox(seed_of(work.seed, label)))
        at_once = max(1, NUMBERS_AT_ONCE // (ipc * flat_std.numel()))
        best, least = torch.empty(0), float("inf")
        for start in range(0, self.groups, at_once):
            count = min(at_once, self.groups - start)
            normal = torch.from_numpy(random.standard_normal((count, ipc, flat_std.numel()), dtype=np.float32))
            distance = self.distance(normal, flat_std)
            if float(distance.min()) < least:
                least, best = float(distance.min()), normal[distance.argmin()].clone()
        z = mean + std * best.double().unflatten(1, mean.shape)
        return {"z": z.float(), "distance": torch.tensor(least), "mean": mean.float(), "std": std.float()}

    def distance(self, normal_GID: Tensor, std_D: Tensor) -> Tensor:
        """w1·‖mean - μ‖ + w2·‖std - σ‖ + w3·‖skewness‖ of groups μ + σ·normal of I latents in D dimensions, (G,)."""
        mean_GD = normal_GID.mean(1)
        distance_G = self.mean_weight * (std_D * mean_GD).norm(dim=1)
        if self.std_weight or self.skew_weight:
            centred = normal_GID - mean_GD[:, None]
            std_GD = (centred.square().sum(1) / (normal_GID.shape[1] - 1)).sqrt()
            distance_G = distance_G + self.std_weight * (std_D * (std_GD - 1)).norm(dim=1)
            skewness_GD = (centred / std_GD[:, None]).pow(3).mean(1)
            distance_G = distance_G + self.skew_weight * skewness_GD.norm(dim=1)
        return distance_G
