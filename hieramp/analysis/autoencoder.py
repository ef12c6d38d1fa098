"""How much of an image the tokens keep, and how well the transformer predicts them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hieramp.data import to_signed
from hieramp.generation.model import Model
from hieramp.var.model import token_loss
from hieramp.var.passes import append_known_tokens
from hieramp.vqvae.model import VQVAE


@dataclass(frozen=True)
class TokenFigures:
    """The transformer on real tokens of one scale, under teacher forcing with the true class."""

    scale: int
    loss: float  # nats per token
    accuracy: float


@torch.no_grad()
def encode(vqvae: VQVAE, images_NCHW: Tensor) -> tuple[Tensor, ...]:
    """Tokens of uint8 images, per scale (N, n²), on the model's device."""
    device = next(vqvae.parameters()).device
    parts = [vqvae.encode(to_signed(images.to(device))) for images in images_NCHW.split(250)]
    return tuple(torch.cat(of_scale) for of_scale in zip(*parts, strict=True))


@torch.no_grad()
def reconstruct(vqvae: VQVAE, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Reconstructions in [0, 1] of uint8 images, and the share of all codes used for them per scale and in all."""
    device = next(vqvae.parameters()).device
    num_codes = vqvae.config.num_codes
    used_SV = torch.zeros(len(vqvae.config.sides), num_codes, dtype=torch.bool)
    pictures = []
    for images in images_NCHW.split(250):
        tokens = vqvae.encode(to_signed(images.to(device)))
        for scale, idx_BL in enumerate(tokens):
            used_SV[scale, idx_BL.flatten().cpu()] = True
        pictures.append(vqvae.to_images(vqvae.embed(tokens)).cpu())
    usage = torch.cat([used_SV, used_SV.any(0, keepdim=True)]).float().mean(1)
    return torch.cat(pictures), usage


@torch.no_grad()
def psnr_per_scale(vqvae: VQVAE, images_NCHW: Tensor) -> list[float]:
    """PSNR in dB of uint8 images decoded from their first scale alone, from the first two, …, from all.

    VAR draws the tokens of a scale at once, not knowing of each other: the more of a picture is left to one scale, the
    less its parts fit together (and the more a model gains that draws it in several passes, `hieramp.var.passes`).
    """
    device, sums = next(vqvae.parameters()).device, torch.zeros(len(vqvae.config.sides))
    for images in images_NCHW.split(250):
        found = vqvae.quantize.quantize(vqvae.latent(to_signed(images.to(device))))
        pictures = [vqvae.to_images(f_hat).cpu() for f_hat in found.partial]
        sums += len(images) * torch.tensor([psnr(picture, images.cpu().float() / 255) for picture in pictures])
    return (sums / len(images_NCHW)).tolist()


def psnr(images_NCHW: Tensor, others_NCHW: Tensor) -> float:
    """Mean over the images of the peak signal-to-noise ratio in dB; both in [0, 1]."""
    mse_N = (images_NCHW - others_NCHW).square().mean((1, 2, 3))
    return (-10 * torch.log10(mse_N.clamp_min(1e-10))).mean().item()


@torch.no_grad()
def predicted(model: Model, tokens: Sequence[Tensor], labels_B: Tensor) -> Tensor:
    """What each token of real images is drawn from without guidance, (B, L, V): in the pass that draws it."""
    var, inputs = model.var, model.vqvae.teacher_input(tokens)
    logits_BLV = var(labels_B, inputs).logits_BLV
    for number in range(1, var.config.last_passes):
        codes, known_N = model.vqvae.quantize.unit_codes(tokens[-1]), var.pass_N < number
        told = append_known_tokens(inputs, codes, known_N.expand(len(labels_B), -1))
        last = slice(-len(known_N), None)
        now_BNV = var(labels_B, told).logits_BLV[:, last]
        logits_BLV[:, last] = torch.where(known_N[:, None], logits_BLV[:, last], now_BNV)
    return logits_BLV


@torch.no_grad()
def token_figures(model: Model, images_NCHW: Tensor, labels_N: Tensor) -> list[TokenFigures]:
    """Loss and accuracy of the next-scale prediction for every scale."""
    losses, hits = [], []
    for images, labels in zip(images_NCHW.split(100), labels_N.split(100), strict=True):
        tokens = model.vqvae.encode(to_signed(images.to(model.device)))
        targets_BL = torch.cat(tokens, 1)
        logits_BLV = predicted(model, tokens, labels.to(model.device))
        losses.append(token_loss(logits_BLV, targets_BL).mean(0).cpu())
        hits.append((logits_BLV.argmax(-1) == targets_BL).float().mean(0).cpu())
    weights = torch.tensor([len(labels) for labels in labels_N.split(100)]).float()
    loss_L = (torch.stack(losses) * weights[:, None]).sum(0) / weights.sum()
    hit_L = (torch.stack(hits) * weights[:, None]).sum(0) / weights.sum()
    return [
        TokenFigures(scale, loss_L[span].mean().item(), hit_L[span].mean().item())
        for scale, span in enumerate(model.var.scales.spans)
    ]
