"""From a batch of images to what the transformer is trained on."""

from typing import NamedTuple

import torch
from torch import Tensor

from hieramp.data import to_signed
from hieramp.training.augment import randomly_flipped, randomly_shifted
from hieramp.vqvae.model import VQVAE


class TokenBatch(NamedTuple):
    tokens_BL: Tensor  # targets, all scales
    inputs_BLC: Tensor  # teacher-forcing input for scales 1 … S-1
    codes_BNC: Tensor  # the last scale's tokens as codes, for `append_known_tokens`


class Tokenizer:
    """A frozen VQ-VAE, with random flips and shifts. Not a module: it is no part of what is trained."""

    def __init__(self, vqvae: VQVAE, shift: int = 0) -> None:
        self.vqvae = vqvae.eval().requires_grad_(False)
        self.shift = shift  # pixels

    @torch.no_grad()
    def __call__(self, images_BCHW: Tensor) -> TokenBatch:
        if self.vqvae.quantize.embedding.weight.device != images_BCHW.device:  # looking at all modules takes a while
            self.vqvae.to(images_BCHW.device)
        x = randomly_flipped(randomly_shifted(to_signed(images_BCHW), self.shift))
        with torch.autocast(x.device.type, enabled=False):  # the same tokens as when they are measured
            tokens = self.vqvae.encode(x)
            codes = self.vqvae.quantize.unit_codes(tokens[-1])
            return TokenBatch(torch.cat(tokens, dim=1), self.vqvae.teacher_input(tokens), codes)


def drop_labels(labels_B: Tensor, null_label: int, rate: float) -> Tensor:
    """Replace a share of the labels by the null label, for guidance."""
    return labels_B.masked_fill(torch.rand(len(labels_B), device=labels_B.device) < rate, null_label)
