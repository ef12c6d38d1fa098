"""A class token for a diffusion transformer: what it reads at one block is all that it can answer from.

HierAmp's class token (Eq. 4 to 6) for a picture that is still noise. It reads the image tokens of the unconditional
half of guidance, to which the class is hidden, as they enter one block, with projections of its own; it is no key, so
that nothing drawn changes by its reading. What scales are to a VAR, noise levels are here: the token has a query of its
own for each span of t, and image tokens are brought to mean 0 and spread 1 as they have them there.
Letters: B rows, T tokens (side² of them), D the transformer's width, W the token's own, H heads, K classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.amplification.saliency import class_token_saliency
from hieramp.config import DiTClassTokenConfig

SPANS = 8  # of t, even ones
WINDOW = 3  # logits are averaged over 3×3 positions, as objects hang together


class Seen(NamedTuple):
    """What the class token makes of image tokens."""

    weights_BHT: Tensor  # each row sums to 1
    values_BHTD: Tensor

    def read(self) -> Tensor:
        """The values under the weights, (B, W)."""
        return (self.weights_BHT[:, :, None].to(self.values_BHTD.dtype) @ self.values_BHTD).flatten(1)

    def map(self) -> Tensor:
        """M: the weights, averaged over the heads, (B, T); sums to 1."""
        return class_token_saliency(self.weights_BHT)


class DiTClassToken(nn.Module):
    """One query for each span of t, keys, values and a head; `config.class_token_block` says where it looks."""

    mean_SD: Tensor
    spread_SD: Tensor

    def __init__(self, config: DiTClassTokenConfig) -> None:
        super().__init__()
        self.config = config
        self.query_SW = nn.Parameter(0.02 * torch.randn(SPANS, config.own_width))
        self.key = nn.Linear(config.width, config.own_width, bias=False)
        self.value = nn.Linear(config.width, config.own_width)
        self.head = nn.Linear(config.own_width, config.num_classes)
        self.register_buffer("mean_SD", torch.zeros(SPANS, config.width))
        self.register_buffer("spread_SD", torch.ones(SPANS, config.width))

    @torch.no_grad()
    def calibrate(self, span: int, x_BTD: Tensor) -> None:
        """Take mean and spread at a span of t from the image tokens of many pictures."""
        x = F.layer_norm(x_BTD.float(), x_BTD.shape[-1:])
        self.mean_SD[span] = x.mean((0, 1))
        self.spread_SD[span] = x.std((0, 1), correction=0).clamp_min(1e-2)

    def forward(self, x_BTD: Tensor, t_B: Tensor) -> Seen:
        """Look at image tokens as they enter the block; t from 0, the picture, to 1, noise. Computes in float32."""
        x_BTD, heads = x_BTD.float(), self.config.num_heads
        span_B = (t_B * SPANS).long().clamp(0, SPANS - 1)
        x_BTD = F.layer_norm(x_BTD, x_BTD.shape[-1:])
        x_BTD = (x_BTD - self.mean_SD[span_B, None]) / self.spread_SD[span_B, None]
        key_BHTD, value_BHTD = (
            project(x_BTD).unflatten(-1, (heads, -1)).transpose(1, 2) for project in (self.key, self.value)
        )
        query_BHD = self.query_SW[span_B].unflatten(-1, (heads, -1))
        logits_BHT = (key_BHTD @ query_BHD[..., None].to(key_BHTD.dtype))[..., 0]
        side = round(logits_BHT.shape[-1] ** 0.5)
        grid = logits_BHT.float().unflatten(-1, (side, side))
        smooth = F.avg_pool2d(grid, WINDOW, 1, WINDOW // 2, count_include_pad=False)
        return Seen(smooth.flatten(2).softmax(-1), value_BHTD)

    def answer(self, seen: Seen) -> Tensor:
        """Class logits, (B, K), float32."""
        return self.head(seen.read()).float()
