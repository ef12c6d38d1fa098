"""A diffusion transformer (DiT, Peebles & Xie, arXiv 2212.09748) that predicts the velocity of flow matching.

One token per position of the latent. Beside the original: queries and keys are normalised (RMS, as in SD3), the target
is v = ε - x0 on the linear path z_t = (1 - t)·x0 + t·ε (SiT, arXiv 2401.08740), and no variance is learned.
Letters: B rows, T tokens, D width, H heads, C channels of the latent.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.config import DiTConfig
from hieramp.diffusion.levels import NoiseLevel, flow_levels
from hieramp.diffusion.sampler import Prediction, Watch

EPS = 1e-6
TIME_FEATURES, LONGEST_PERIOD = 256, 10_000.0
Factors = Mapping[int, Tensor]  # block: what its attention output is multiplied by, (B, T)


def sinusoid(values: Tensor, width: int) -> Tensor:
    """Cosines and sines of `values` (N,) with periods from 2π to 2π·10⁴, (N, width)."""
    frequencies = LONGEST_PERIOD ** (-torch.arange(width // 2, device=values.device, dtype=torch.float32) * 2 / width)
    angles = values.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def positions_2d(side: int, width: int) -> Tensor:
    """Fixed embedding of a grid's positions, row by row, (side², width): half of it the row's, half the column's."""
    place = torch.arange(side).repeat_interleave(side), torch.arange(side).repeat(side)
    return torch.cat([sinusoid(axis, width // 2) for axis in place], dim=-1)


class Attention(nn.Module):
    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.num_heads, head_width = config.num_heads, config.width // config.num_heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.q_gain, self.k_gain = (nn.Parameter(torch.ones(head_width)) for _ in range(2))
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        q, k, v = self.qkv(x_BTD).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (F.rms_norm(x.float(), x.shape[-1:], eps=EPS) * g for x, g in ((q, self.q_gain), (k, self.k_gain)))
        return self.proj(F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """adaLN-Zero: shift, scale and gate come from the condition, all zero at first, so that a block begins as nothing.

    With a factor, the attention's output A is multiplied by it token by token, before gate and residual:
    A ⊙ (1 + α·M) of HierAmp's supplement.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        hidden = round(config.ffn_ratio * config.width)
        self.attn = Attention(config)
        self.fc1, self.fc2 = nn.Linear(config.width, hidden), nn.Linear(hidden, config.width)
        self.ada_lin = nn.Linear(config.width, 6 * config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTD: Tensor, condition_BD: Tensor, factor_BT: Tensor | None = None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.ada_lin(condition_BD)[:, None].chunk(6, dim=-1)
        attended = self.attn(modulated(x_BTD, shift1, scale1))
        if factor_BT is not None:
            attended = attended * factor_BT[..., None].to(attended.dtype)
        x_BTD = x_BTD + gate1 * self.dropout(attended)
        hidden = F.gelu(self.fc1(modulated(x_BTD, shift2, scale2)), approximate="tanh")
        return x_BTD + gate2 * self.dropout(self.fc2(hidden))


def modulated(x_BTD: Tensor, shift_B1D: Tensor, scale_B1D: Tensor) -> Tensor:
    return F.layer_norm(x_BTD, x_BTD.shape[-1:], eps=EPS) * (1 + scale_B1D) + shift_B1D


class DiT(nn.Module):
    """(noised latent, time, label) to the velocity v = ε - x0. Label `num_classes` is the null label, for guidance."""

    positions_TD: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = nn.Linear(config.channels, width)
        self.register_buffer("positions_TD", positions_2d(config.side, width), persistent=False)
        self.time_in, self.time_out = nn.Linear(TIME_FEATURES, width), nn.Linear(width, width)
        self.label = nn.Embedding(config.num_classes + 1, width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head_ada = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, config.channels)

    def initialize(self) -> None:
        """The weights to train from (DiT): Xavier for matrices, σ 0.02 for labels and time, zero for adaLN and head."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.label.weight, std=0.02)
        nn.init.normal_(self.time_in.weight, std=0.02)
        nn.init.normal_(self.time_out.weight, std=0.02)
        nn.init.zeros_(self.head_ada.weight)
        nn.init.zeros_(self.head.weight)
        for block in self.blocks:
            nn.init.zeros_(block.get_submodule("ada_lin").get_parameter("weight"))

    @property
    def num_classes(self) -> int:
        return self.config.num_classes

    @property
    def null_label(self) -> int:
        return self.config.num_classes

    @property
    def depth(self) -> int:
        return self.config.depth

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, side, side) of a latent."""
        return self.config.channels, self.config.side, self.config.side

    @property
    def token_side(self) -> int:
        """Tokens per row of the grid."""
        return self.config.side

    @property
    def device(self) -> torch.device:
        return self.positions_TD.device

    @property
    def dtype(self) -> torch.dtype:
        return self.label.weight.dtype

    def forward(
        self,
        z_BCHW: Tensor,
        time_B: Tensor,
        labels_B: Tensor,
        factors: Factors | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Velocity, (B, C, side, side); `time_B` from 0, the picture, to 1000, noise."""
        x, condition_BD = self._entering(z_BCHW, time_B, labels_B)
        for index, block in enumerate(self.blocks):
            if watch is not None:
                watch(index, x)
            x = block(x, condition_BD, None if factors is None else factors.get(index))
        shift, scale = self.head_ada(condition_BD)[:, None].chunk(2, dim=-1)
        v_BTC = self.head(modulated(x, shift, scale))
        return v_BTC.transpose(1, 2).unflatten(-1, (self.config.side, self.config.side))

    def tokens_at(self, block: int, z_BCHW: Tensor, time_B: Tensor, labels_B: Tensor) -> Tensor:
        """The image tokens as they enter a block, (B, T, D)."""
        x, condition_BD = self._entering(z_BCHW, time_B, labels_B)
        before: Sequence[nn.Module] = list(self.blocks)[:block]
        for one in before:
            x = one(x, condition_BD)
        return x

    def _entering(self, z_BCHW: Tensor, time_B: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens as they enter the first block, and the condition."""
        x = self.embed(z_BCHW.flatten(2).transpose(1, 2)) + self.positions_TD
        features = sinusoid(time_B, TIME_FEATURES).to(self.dtype)
        return x, F.silu(self.time_out(F.silu(self.time_in(features))) + self.label(labels_B))

    def levels(self, steps: int) -> list[NoiseLevel]:
        return flow_levels(steps)

    def predict(
        self,
        z_BCHW: Tensor,
        level: NoiseLevel,
        labels_B: Tensor,
        factors: Factors | None = None,
        watch: Watch | None = None,
    ) -> Prediction:
        """x0 = z - t·v and ε = z + (1 - t)·v, float32 whatever the weights are."""
        time_B = torch.full((len(z_BCHW),), level.time, device=z_BCHW.device)
        v = self(z_BCHW.to(self.dtype), time_B, labels_B, factors, watch).float()
        return Prediction(z_BCHW - level.t * v, z_BCHW + (1 - level.t) * v)
