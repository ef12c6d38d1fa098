"""Minimax (Gu et al., CVPR 2024, arXiv 2311.15529): fine-tune a diffusion transformer for sets of few images.

To the loss of the velocity are added, with the latent x̂0 predicted at the time that was drawn,
    w_r · (1 - min over r of cos(x̂0, r)),  r of the memory of real latents of the class: representative
    w_d · max over p of cos(x̂0, p),        p of the memory of latents predicted for the class: diverse.
Both memories hold the last 64 of each class and are constants. The paper: w_r 0.002, w_d 0.008; batch 8, 8 epochs,
AdamW at 1e-3 without weight decay; of the model only biases, norms, the labels' table and a scale for each channel of
the branches in the first half of the blocks (DiffFit, arXiv 2304.06648). Large data sets in runs of 20 classes each.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from hieramp.diffusion.dit import DiT
from hieramp.diffusion.latents import LatentBasis
from hieramp.errors import UserError
from hieramp.training.dit import DiTObjective
from hieramp.training.recipe import Recipe
from hieramp.vqvae.model import VQVAE

NAME = "minimax"
RECIPE = Recipe(8, 8, 1e-3, "adamw", (0.9, 0.999), hold=1.0)
SCALED = ("attn.qkv", "attn.proj", "fc2")  # the last ends the MLP's branch, proj the attention's


@dataclass(frozen=True)
class MinimaxOptions:
    """Weights of the two terms, latents remembered of each class, and what is trained.

    Raises:
        UserError: a weight below 0, or a memory of nothing.
    """

    representative: float = 0.002
    diverse: float = 0.008
    memory: int = 64
    whole: bool = False  # train all weights

    def __post_init__(self) -> None:
        for name in ("representative", "diverse"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{name} is {getattr(self, name)}; it must be a number of at least 0")
        if self.memory < 1:
            raise UserError(f"memory is {self.memory}; it must hold at least 1 latent of each class")


class LatentMemory(nn.Module):
    """The last latents of each class, flattened."""

    latents: Tensor
    seen: Tensor

    def __init__(self, num_classes: int, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("latents", torch.zeros(num_classes, size, width))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.int64))

    def similarities(self, z_BD: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines of latents to those remembered of their class, (B, size), and which places are taken."""
        size = self.latents.shape[1]
        taken = torch.arange(size, device=z_BD.device) < self.seen[labels_B, None]
        return F.cosine_similarity(z_BD[:, None], self.latents[labels_B], dim=-1), taken

    @torch.no_grad()
    def add(self, z_BD: Tensor, labels_B: Tensor) -> None:
        """In turn; the oldest of a class give way."""
        for z, label in zip(z_BD, labels_B.tolist(), strict=True):
            self.latents[label, int(self.seen[label]) % self.latents.shape[1]] = z
            self.seen[label] += 1


class MinimaxObjective(DiTObjective):
    """The velocity's loss with both terms."""

    def __init__(self, dit: DiT, vqvae: VQVAE, basis: LatentBasis, options: MinimaxOptions) -> None:
        super().__init__(dit, vqvae, basis)
        channels, side, _ = dit.shape
        sizes = dit.num_classes, options.memory, channels * side * side
        self.options, self.real, self.predicted = options, LatentMemory(*sizes), LatentMemory(*sizes)
        if not options.whole:
            only_small_parts(dit)

    def further(self, x0_BCHW: Tensor, predicted_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        real_BD, predicted_BD = x0_BCHW.flatten(1), predicted_BCHW.flatten(1)
        to_real, is_real = self.real.similarities(predicted_BD, labels_B)
        to_predicted, is_predicted = self.predicted.similarities(predicted_BD, labels_B)
        least_B = to_real.masked_fill(~is_real, 1.0).amin(1)  # of nothing: 1, which adds nothing
        most_B = torch.where(is_predicted.any(1), to_predicted.masked_fill(~is_predicted, -1.0).amax(1), 0.0)
        self.real.add(real_BD, labels_B)
        self.predicted.add(predicted_BD.detach(), labels_B)
        representative = self.options.representative * (1 - least_B).mean()
        return {"representative": representative, "diverse": self.options.diverse * most_B.mean()}

    def variant(self) -> Hashable | None:
        return None  # the memories are written where labels say, which are read from the device


class _Scale(nn.Module):
    """A factor for each output channel of a matrix."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(rows))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.gain[:, None]


def only_small_parts(dit: DiT) -> None:
    """Train what DiffFit trains, in place; `folded` takes the scales into the weights again."""
    for name, parameter in dit.named_parameters():
        parameter.requires_grad_(name.endswith((".bias", "_gain")) or name == "label.weight")
    for block in list(dit.blocks)[: dit.depth // 2]:
        for name in SCALED:
            layer = block.get_submodule(name)
            parametrize.register_parametrization(layer, "weight", _Scale(layer.get_parameter("weight").shape[0]))


def folded(dit: nn.Module) -> nn.Module:
    """The model without parametrisations, in place: what a scale did is in its weight."""
    for module in dit.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return dit
