"""Networks with random weights, at the sizes of var-d16 or tiny."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.card.part import Part
from hieramp import Amplification, Model
from hieramp.config import VARConfig, VQVAEConfig
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

SIDES = (1, 2, 3, 4, 6, 8)
TINY_VQVAE = VQVAEConfig(
    sides=SIDES, num_codes=64, code_dim=8, channels=32, multipliers=(1, 1), num_res_blocks=1, patch=2
)
TINY_VAR = VARConfig(sides=SIDES, num_codes=64, code_dim=8, num_classes=10, depth=4, width=64, num_heads=2)


@torch.no_grad()
def fill(module: torch.nn.Module) -> None:
    """Random weights that keep the size of what passes through, made where the module is."""
    for name, x in module.named_parameters():
        if x.dim() < 2:
            x.fill_(1.0 if name.endswith("weight") else 0.0)
        elif not name.endswith("scale_mul_1H11"):
            x.normal_(std=x[0].numel() ** -0.5)


def built(var_config: VARConfig, vqvae_config: VQVAEConfig, device: torch.device | str) -> Model:
    """A model of these sizes with random weights in float32, always the same ones on a device."""
    torch.manual_seed(0)
    with torch.device(device):
        vqvae, var = VQVAE(vqvae_config).eval(), VAR(var_config).eval()
    fill(vqvae)
    fill(var)
    return Model(vqvae, var, tuple(str(i) for i in range(var_config.num_classes)), "stand-in")


def stand_in(part: Part, class_tokens: bool) -> Model:
    """A model at the part's sizes, on its device; with a class token at every scale, or none."""
    var, vqvae = (TINY_VAR, TINY_VQVAE) if part.tiny else (VARConfig(), VQVAEConfig())
    return built(with_class_tokens(var) if class_tokens else var, vqvae, part.device)


def with_class_tokens(config: VARConfig) -> VARConfig:
    return replace(config, class_token_scales=tuple(range(len(config.sides))))


def labels_of(model: Model, count: int) -> list[int]:
    return [i % len(model.class_names) for i in range(count)]


def draw(model: Model, count: int, amplification: Amplification | None) -> Tensor:
    """So many images, from labels to pixels; scale by scale, as a step holds its logits."""
    for step in model.steps(labels_of(model, count), range(count), amplification):
        image = step.image if step.scale == len(model.var.scales) - 1 else None
    assert image is not None
    return image


def share_alike(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The mean share, over the scales, of tokens that are the same in both."""
    equal = [(x.cpu() == y.cpu()).double().mean().item() for x, y in zip(a, b, strict=True)]
    return sum(equal) / len(equal)
