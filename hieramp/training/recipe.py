"""How long, how fast and with which optimiser a part is trained."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hieramp.devices import supports_fast_bf16


@dataclass(frozen=True)
class Recipe:
    """Settings of one training run; fractions are of the whole run, whether counted in steps or on the clock."""

    batch_size: int  # over all processes
    epochs: float  # length of the run where no --budget is given
    learning_rate: float
    optimizer: Literal["adamw", "muon"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup: float = 0.02
    hold: float = 0.0  # constant rate up to here, then decay
    decay: Literal["cosine", "linear"] = "cosine"
    final: float = 0.01  # last rate over first
    clip: float = 2.0  # of the gradient's norm
    ema: float = 0.999
    shift: int = 0  # pixels by which the transformer's images are moved at random
    shift_until: float = 0.8  # of the run; then they stay where they are
    seed: int = 0
    min_steps: int = 1  # however few the images are

    def num_steps(self, num_images: int) -> int:
        """Length of a run without a budget."""
        return max(self.min_steps, round(self.epochs * num_images / self.batch_size))

    def rate(self, progress: float) -> float:
        """Learning-rate factor at `progress` in [0, 1] of the run."""
        if progress < self.warmup:
            return min(1.0, max(progress, 1e-3) / self.warmup)
        if progress <= self.hold:
            return 1.0
        start = max(self.warmup, self.hold)
        left = max(0.0, (1 - progress) / (1 - start))
        shape = (1 - math.cos(math.pi * left)) / 2 if self.decay == "cosine" else left
        return self.final + (1 - self.final) * shape


def orthogonalize(update: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix (Jordan et al., Muon, 2024).

    In bfloat16 where the device multiplies in it itself, else in float32. (m, n) or a batch of them.
    """
    x = update.bfloat16() if supports_fast_bf16(update.device) else update.float()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x).to(update.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, for weight matrices; convolutions are flattened to (out, in·kh·kw).

    timm's and torch's Muon iterate in bfloat16, which many CPUs do not stand; hence this one.
    The step is scaled by sqrt(max(1, rows / columns)).
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                self._step_alike(parameters, group)

    def _step_alike(self, parameters: list[Tensor], group: dict) -> None:
        """Matrices of one shape in one batched iteration: a fixed number of kernels, however many matrices."""
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, momenta, group["momentum"])
        updates = orthogonalize(torch.stack([update.flatten(1) for update in nesterov]))
        rows, columns = updates[0].shape
        scale = max(1.0, rows / columns) ** 0.5
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        shaped = [update.view_as(parameter) for update, parameter in zip(updates, parameters, strict=True)]
        torch._foreach_add_(parameters, shaped, alpha=-group["lr"] * scale)


# Muon's rate over AdamW's: its updates have unit singular values whatever the gradient.
MUON_RATE = 10.0


def build_optimizers(
    module: nn.Module, recipe: Recipe, matrices: set[str] | None = None, apart: set[str] | None = None
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the weights named in `matrices` and AdamW for the rest.

    Weight decay falls on tensors of more than one dimension only. Weights named in `apart` are a discriminator's: an
    AdamW of their own with β = (0.5, 0.9), without decay, at the same rate.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    judging = [trained.pop(name) for name in sorted(apart or set())]
    named = trained
    chosen = (matrices or set()) & set(named) if recipe.optimizer == "muon" else set()
    rest = [p for name, p in named.items() if name not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # fused: its step counts may lie on the GPU, where a resumed run has them, without being read back
    fused = True if all(p.is_cuda for p in rest) else None
    groups = [g for g in groups if g["params"]]
    adamw = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, fused=fused)
    optimizers: list[torch.optim.Optimizer] = [adamw]
    if chosen:
        muon = Muon(
            [named[n] for n in sorted(chosen)], recipe.learning_rate * MUON_RATE, weight_decay=recipe.weight_decay
        )
        optimizers.append(muon)
    if judging:
        fused = True if all(p.is_cuda for p in judging) else None
        optimizers.append(torch.optim.AdamW(judging, recipe.learning_rate, (0.5, 0.9), weight_decay=0.0, fused=fused))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers
