"""The multi-scale VQ-VAE: images ⇄ token maps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hieramp.config import VQVAEConfig
from hieramp.vqvae.autoencoder import Decoder, Encoder, to_unit
from hieramp.vqvae.quantizer import Quantizer


class VQVAE(nn.Module):
    """Multi-scale residual VQ-VAE (VAR, arXiv 2404.02905, Algorithms 1 and 2)."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(config.code_dim, config.code_dim, 3, padding=1)
        self.quantize = Quantizer(config)
        self.post_quant_conv = nn.Conv2d(config.code_dim, config.code_dim, 3, padding=1)
        self.decoder = Decoder(config)

    def latent(self, images_BCHW: Tensor) -> Tensor:
        """Images in [-1, 1] to the continuous latent grid, (B, code_dim, n, n)."""
        return self.quant_conv(self.encoder(images_BCHW))

    def decode(self, f_hat_BCHW: Tensor) -> Tensor:
        """A latent grid to images around [-1, 1], not clamped (training); see `to_images`."""
        return self.decoder(self.post_quant_conv(f_hat_BCHW))

    @torch.no_grad()
    def encode(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) in [-1, 1] to tokens, per scale (B, n²) int64.

        Raises:
            ValueError: the images have another size than the model's.
        """
        size = self.config.image_size
        if images_BCHW.shape[-2:] != (size, size):
            got = "×".join(map(str, images_BCHW.shape[-2:]))
            raise ValueError(f"this VQ-VAE takes {size}×{size} images, got {got}: resize them first")
        return self.quantize.quantize(self.latent(images_BCHW)).tokens

    @torch.no_grad()
    def embed(self, tokens: Sequence[Tensor]) -> Tensor:
        """f_hat of the given scales (coarsest first, possibly not all), (B, code_dim, n, n)."""
        maps = [self.quantize.contribution(scale, idx_BL) for scale, idx_BL in enumerate(tokens)]
        return torch.stack(maps).sum(0) if len(maps) > 1 else maps[0]

    @torch.no_grad()
    def to_images(self, f_hat_BCHW: Tensor) -> Tensor:
        """A latent grid to images (B, 3, H, W) in [0, 1], float32 whatever the decoder computes in."""
        return to_unit(self.decode(f_hat_BCHW.to(self.post_quant_conv.weight.dtype)).float())

    def set_decoder(self, dtype: torch.dtype) -> None:
        """Decode in this precision.

        Not with channels last: GroupNorm turns the layout back, which took an H200 half as long again
        (docs/notebook/2026-11-27-first-card.md).
        """
        for part in (self.post_quant_conv, self.decoder):
            part.to(dtype=dtype)

    @torch.no_grad()
    def teacher_input(self, tokens: Sequence[Tensor]) -> Tensor:
        """The transformer's input for scales 1 … S-1 under teacher forcing, (B, L-1, code_dim)."""
        f_hat, inputs = self.quantize.contribution(0, tokens[0]), []
        for scale, idx_BL in enumerate(tokens[:-1]):
            f_hat = f_hat + self.quantize.contribution(scale, idx_BL) if scale else f_hat
            inputs.append(self.quantize.next_input(scale + 1, f_hat))
        return torch.cat(inputs, dim=1)
