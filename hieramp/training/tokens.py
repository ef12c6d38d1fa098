"""From a batch of images to what the transformer is trained on."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hieramp.data import randomly_flipped, to_signed
from hieramp.vqvae.model import VQVAE


class TokenBatch(NamedTuple):
    tokens_BL: Tensor  # targets, all scales
    inputs_BLC: Tensor  # teacher-forcing input for scales 1 … S-1


class Tokenizer:
    """A frozen VQ-VAE, with random horizontal flips. Not a module: it is no part of what is trained.

    `mistakes` is the largest share of an image's tokens that are summed up wrongly, as tokens of another image of the
    batch at the same place; each image has its own share, even up to that. The targets after them make up for it, so
    that a transformer learns to mend what it drew without knowing of the rest of a scale (the self-correction of
    Infinity, arXiv 2412.04431, with tokens in place of bits).
    """

    def __init__(self, vqvae: VQVAE, mistakes: float = 0.0) -> None:
        self.vqvae, self.mistakes = vqvae.eval().requires_grad_(False), mistakes

    @torch.no_grad()
    def __call__(self, images_BCHW: Tensor, flip: bool = True) -> TokenBatch:
        self.vqvae.to(images_BCHW.device)
        x = to_signed(images_BCHW)
        if flip:
            x = randomly_flipped(x)
        with torch.autocast(x.device.type, enabled=False):  # the same tokens as when they are measured
            quantize = self.vqvae.quantize
            found = quantize.quantize(self.vqvae.latent(x), self._mistaken(x) if self.mistakes else None)
            inputs = [quantize.next_input(scale + 1, f_hat) for scale, f_hat in enumerate(found.partial[:-1])]
            return TokenBatch(torch.cat(found.tokens, dim=1), torch.cat(inputs, dim=1))

    def _mistaken(self, images_BCHW: Tensor) -> Callable[[Tensor], Tensor]:
        device, rows = images_BCHW.device, len(images_BCHW)
        share_B1 = self.mistakes * torch.rand(rows, 1, device=device)

        def swap(idx_BL: Tensor) -> Tensor:
            others = idx_BL[torch.randperm(rows, device=device)]
            return torch.where(torch.rand(idx_BL.shape, device=device) < share_B1, others, idx_BL)

        return swap


def drop_labels(labels_B: Tensor, null_label: int, rate: float) -> Tensor:
    """Replace a share of the labels by the null label, for guidance."""
    return torch.where(torch.rand(len(labels_B), device=labels_B.device) < rate, null_label, labels_B)
