"""One transformer block with adaptive layer norm, and the norm before the head.

x_BTC: rows, tokens, width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.config import VARConfig
from hieramp.var.attention import SelfAttention

EPS = 1e-6


class Modulation(NamedTuple):
    """Six (B, 1, C) tensors from the class: gains of the branches, then gains (1 + scale) and shifts of the norms."""

    gamma1: Tensor
    gamma2: Tensor
    gain1: Tensor
    gain2: Tensor
    shift1: Tensor
    shift2: Tensor

    def select(self, rows: Tensor) -> "Modulation":
        return Modulation(*(x[rows] for x in self))


class FFN(nn.Module):
    def __init__(self, config: VARConfig) -> None:
        super().__init__()
        hidden = round(config.width * config.ffn_ratio)
        self.fc1 = nn.Linear(config.width, hidden)
        self.fc2 = nn.Linear(hidden, config.width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x_BTC), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, config: VARConfig, index: int) -> None:
        super().__init__()
        self.attn = SelfAttention(config, index)
        self.ffn = FFN(config)
        if config.shared_adaln:
            self.ada_gss = nn.Parameter(torch.randn(1, 1, 6, config.width) / config.width**0.5)
        else:
            self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(config.width, 6 * config.width))
        self.shared = config.shared_adaln

    def modulation(self, condition: Tensor) -> Modulation:
        """From the class embedding (B, C), or with shared AdaLN from the shared layer's (B, 1, 6, C)."""
        six_B16C = self.ada_gss + condition if self.shared else self.ada_lin(condition)[:, None].unflatten(-1, (6, -1))
        gamma1, gamma2, scale1, scale2, shift1, shift2 = six_B16C.unbind(2)
        return Modulation(gamma1, gamma2, scale1 + 1, scale2 + 1, shift1, shift2)

    def forward(
        self, x_BTC: Tensor, mod: Modulation, attend: Callable[[SelfAttention, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Returns the tokens after the block, and the attention output on its own (before gain and residual).

        Of tokens that the attention gives no row for, only its keys and values were wanted: they end here.
        """
        attended = attend(self.attn, self.attention_input(x_BTC, mod))
        x = x_BTC[:, : attended.shape[1]] + mod.gamma1 * attended
        h = torch.addcmul(mod.shift2, F.layer_norm(x, x.shape[-1:], eps=EPS), mod.gain2)
        return torch.addcmul(x, mod.gamma2, self.ffn(h)), attended

    def attention_input(self, x_BTC: Tensor, mod: Modulation) -> Tensor:
        return torch.addcmul(mod.shift1, F.layer_norm(x_BTC, x_BTC.shape[-1:], eps=EPS), mod.gain1)


class HeadModulation(NamedTuple):
    """Gain (1 + scale) and shift of the last norm, (B, 1, C)."""

    gain: Tensor
    shift: Tensor

    def select(self, rows: Tensor) -> "HeadModulation":
        return HeadModulation(self.gain[rows], self.shift[rows])


class HeadNorm(nn.Module):
    def __init__(self, config: VARConfig) -> None:
        super().__init__()
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(config.width, 2 * config.width))

    def modulation(self, class_BC: Tensor) -> HeadModulation:
        scale, shift = self.ada_lin(class_BC)[:, None].chunk(2, dim=-1)
        return HeadModulation(scale + 1, shift)

    def forward(self, x_BTC: Tensor, mod: HeadModulation) -> Tensor:
        return torch.addcmul(mod.shift, F.layer_norm(x_BTC, x_BTC.shape[-1:], eps=EPS), mod.gain)
