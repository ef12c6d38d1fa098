"""The multi-scale residual quantizer: a latent grid ⇄ one token map per scale (docs/method.md, "The generator").

z_BCHW: batch, code width, height and width of the finest scale; idx_BL: code indices.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.config import VQVAEConfig
from hieramp.devices import to_device_async


class Phi(nn.Conv2d):
    """φ(h) = (1-ρ_q)·h + ρ_q·conv3x3(h): smooths an upsampled token map."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__(width, width, 3, padding=1)
        self.ratio = ratio

    def forward(self, h_BCHW: Tensor) -> Tensor:
        exact = h_BCHW.is_cuda and not torch.is_grad_enabled()
        convolved_BCHW = self.as_product(h_BCHW) if exact else super().forward(h_BCHW)
        return h_BCHW * (1 - self.ratio) + convolved_BCHW * self.ratio

    def as_product(self, h_BCHW: Tensor) -> Tensor:
        """The convolution as a matrix product: cuDNN would round float32 to TF32, which moves f_hat by 1e-3.

        So a drawing in float32 would not give the tokens that a CPU gives.
        """
        windows_BCHW33 = F.pad(h_BCHW, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
        columns_BKN = windows_BCHW33.permute(0, 1, 4, 5, 2, 3).flatten(1, 3).flatten(2)  # K: channels, then the 3×3
        product_BCN = self.weight.flatten(1) @ columns_BKN
        return product_BCN.unflatten(2, h_BCHW.shape[2:]) + (0 if self.bias is None else self.bias[:, None, None])


class PhiBank(nn.Module):
    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.qresi_ls = nn.ModuleList(Phi(config.code_dim, config.phi_ratio) for _ in range(config.num_phi))


def phi_index(scale: int, num_scales: int, num_phi: int) -> int:
    """Which φ serves a scale: the one whose tick is nearest to s/(S-1) (docs/method.md).

    Four convolutions have ticks linspace(1/12, 11/12, 4) in the official code, other counts linspace(1/2K, 1-1/2K, K).
    """
    margin = 1 / 3 / num_phi if num_phi == 4 else 1 / 2 / num_phi
    ticks = np.linspace(margin, 1 - margin, num_phi)
    return int(np.argmin(np.abs(ticks - scale / (num_scales - 1))))


@cache
def bicubic(side: int, finest: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Bicubic interpolation of a side × side map as a matrix, (side², finest²).

    PyTorch's kernel for CUDA (up to 2.11 at least) goes through batch and channels one after the other in every thread:
    6 ms for 256 maps of 32 channels.
    """
    pixels = torch.eye(side * side, dtype=torch.float64).view(-1, 1, side, side)
    matrix = F.interpolate(pixels, size=(finest, finest), mode="bicubic").flatten(1)
    return to_device_async(matrix.to(dtype), device)


@dataclass(frozen=True)
class Quantized:
    """What quantizing a latent grid gives, scale by scale."""

    tokens: tuple[Tensor, ...]  # per scale (B, n²), int64
    residuals: tuple[Tensor, ...]  # per scale (B·n², C): the vectors that were looked up
    partial: tuple[Tensor, ...]  # per scale (B, C, n, n) at the finest side: f_hat after that scale


class Quantizer(nn.Module):
    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.scales = config.scales
        self.embedding = nn.Embedding(config.num_codes, config.code_dim)
        self.quant_resi = PhiBank(config)

    def nearest(self, z_NC: Tensor) -> Tensor:
        """Index of the nearest code in squared L2, (N,)."""
        codes_VC = self.embedding.weight
        # ||z||² is the same for every code
        distance_NV = torch.addmm(codes_VC.square().sum(1), z_NC, codes_VC.T, alpha=-2)
        return distance_NV.argmin(dim=1)

    def unit_codes(self, idx_BL: Tensor) -> Tensor:
        """The codes of tokens in units of the codebook's standard deviation, (B, L, C)."""
        return self.embedding(idx_BL) / self.embedding.weight.std()

    def contribution(self, scale: int, idx_BL: Tensor) -> Tensor:
        """What the tokens of one scale add to f_hat, (B, C, n, n) at the finest side."""
        return self.spread(scale, self.embedding(idx_BL))

    def spread(self, scale: int, codes_BLC: Tensor) -> Tensor:
        """The same of vectors that need not be codes."""
        side, finest = self.scales.sides[scale], self.scales.sides[-1]
        h_BCL = codes_BLC.transpose(1, 2)
        if side == finest:
            h_BCHW = h_BCL.unflatten(2, (side, side))
        elif h_BCL.is_cuda:
            matrix_LN = bicubic(side, finest, h_BCL.device, h_BCL.dtype)
            h_BCHW = (h_BCL @ matrix_LN).unflatten(2, (finest, finest))
        else:
            h_BCHW = F.interpolate(h_BCL.unflatten(2, (side, side)), size=(finest, finest), mode="bicubic")
        bank = self.quant_resi.qresi_ls
        return bank[phi_index(scale, len(self.scales), len(bank))](h_BCHW)

    def quantize(self, z_BCHW: Tensor) -> Quantized:
        """Tokens of a latent grid, residually from coarse to fine. Gradients reach φ and the codes only.

        In float32 even under autocast: half precision would look up other codes.
        """
        with torch.autocast(z_BCHW.device.type, enabled=False):
            return self._quantize(z_BCHW.detach().float())

    def _quantize(self, z_BCHW: Tensor) -> Quantized:
        rest = z_BCHW
        f_hat = torch.zeros_like(rest)
        tokens, residuals, partial = [], [], []
        for scale, side in enumerate(self.scales.sides):
            small = rest if side == rest.shape[-1] else F.interpolate(rest, size=(side, side), mode="area")
            z_NC = small.permute(0, 2, 3, 1).flatten(0, 2)
            with torch.no_grad():
                idx_BL = self.nearest(z_NC).view(len(rest), -1)
            h_BCHW = self.contribution(scale, idx_BL)
            f_hat = f_hat + h_BCHW
            rest = rest - h_BCHW.detach()
            tokens.append(idx_BL)
            residuals.append(z_NC)
            partial.append(f_hat)
        return Quantized(tuple(tokens), tuple(residuals), tuple(partial))

    def next_input(self, scale: int, f_hat_BCHW: Tensor) -> Tensor:
        """The transformer's input for `scale`: f_hat of the scales before, area-downsampled, (B, n², C)."""
        side = self.scales.sides[scale]
        return F.interpolate(f_hat_BCHW, size=(side, side), mode="area").flatten(2).transpose(1, 2)
