"""Class tokens with projections of their own: what each reads at one block is all that it can answer from.

A class token that shares the blocks' projections (HierAmp, Eq. 4-6) has nothing to look with while the transformer is
frozen, and may hide its answer in itself or in a later block. One with projections of its own only reads, at one block:
it is no key, changes no image token and leaves the cache alone, so whatever names the class went through its map.

Letters: B rows, S class tokens, L image tokens, H heads, C the transformer's width, W the class tokens' own, K classes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PREFIXES = ("cls_tokens.", "class_head.", "cls_attn.")
_KEY = re.compile(r"cls_attn\.(\d+)\.key\.weight")


class Reading(NamedTuple):
    """What class tokens make of the image tokens of their scales."""

    weights_BHSL: Tensor  # each row sums to 1 over the positions it may see; its mean over the heads is the map
    values_BHLD: Tensor

    def read(self) -> Tensor:
        """The values under the weights, (B, S, W): for the class head."""
        return (self.weights_BHSL.to(self.values_BHLD.dtype) @ self.values_BHLD).transpose(1, 2).flatten(2)


class ClassTokenAttention(nn.Module):
    """Attention of class tokens over image tokens as they enter a block.

    Image tokens are brought to mean 0 and spread 1 over all pictures (`calibrate`): what they have in common is larger
    than what tells them apart. A class token is its own query, since a projection of a constant is a constant. Its
    logits are averaged over neighbouring positions (`neighbourhood`), as objects hang together.
    """

    mean_SC: Tensor
    spread_SC: Tensor
    scale_L: Tensor
    smooth_LL: Tensor

    def __init__(self, width: int, own_width: int, num_heads: int, sides: Sequence[int]) -> None:
        super().__init__()
        self.num_heads, self.sides = num_heads, tuple(sides)
        self.key = nn.Linear(width, own_width, bias=False)
        self.value = nn.Linear(width, own_width)
        self.register_buffer("mean_SC", torch.zeros(len(sides), width))
        self.register_buffer("spread_SC", torch.ones(len(sides), width))
        scales = [scale for scale, side in enumerate(sides) for _ in range(side * side)]
        self.register_buffer("scale_L", torch.tensor(scales), persistent=False)
        self.register_buffer("smooth_LL", torch.block_diag(*map(neighbourhood, sides)), persistent=False)

    @torch.no_grad()
    def calibrate(self, image_BLC: Tensor) -> None:
        """Take mean and spread of each scale from the image tokens of many pictures, all scales of each."""
        parts = F.layer_norm(image_BLC.float(), image_BLC.shape[-1:]).split([side * side for side in self.sides], 1)
        self.mean_SC.copy_(torch.stack([part.mean((0, 1)) for part in parts]))
        self.spread_SC.copy_(torch.stack([part.std((0, 1), correction=0) for part in parts]).clamp_min(1e-2))

    def forward(
        self, tokens_SW: Tensor, image_BLC: Tensor, at: slice = slice(None), mask_SL: Tensor | None = None
    ) -> Reading:
        """Look at the image tokens of the positions `at`; `mask_SL` is additive, -inf where a token may not look."""
        x_BLC = F.layer_norm(image_BLC, image_BLC.shape[-1:])
        scale_L = self.scale_L[at]
        x_BLC = ((x_BLC - self.mean_SC[scale_L]) / self.spread_SC[scale_L]).to(x_BLC.dtype)
        key_BHLD, value_BHLD = (
            project(x_BLC).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for project in (self.key, self.value)
        )
        query_HSD = tokens_SW.unflatten(-1, (self.num_heads, -1)).transpose(0, 1)
        logits_BHSL = query_HSD.to(key_BHLD.dtype) @ key_BHLD.mT @ self.smooth_LL[at, at].to(key_BHLD.dtype).mT
        logits_BHSL = logits_BHSL.to(torch.promote_types(logits_BHSL.dtype, torch.float32))
        weights_BHSL = (logits_BHSL if mask_SL is None else logits_BHSL + mask_SL).softmax(-1)
        return Reading(weights_BHSL, value_BHLD)


def neighbourhood(side: int) -> Tensor:
    """The weights by which each position of a map is averaged with those around it, (side², side²); rows sum to 1.

    Binomial, 1-2-1 both ways, the border repeated; maps of fewer than 4 × 4 positions stay as they are.
    """
    if side < 4:
        return torch.eye(side * side)
    line = torch.zeros(side, side)
    for position in range(side):
        for step, weight in ((-1, 0.25), (0, 0.5), (1, 0.25)):
            line[position, min(max(position + step, 0), side - 1)] += weight
    return torch.kron(line, line)


def is_class_token(key: str) -> bool:
    """Whether a tensor of this name belongs to the class tokens rather than to the transformer."""
    return key.startswith(_PREFIXES)


def class_token_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of VARConfig that class tokens set, read off the names and shapes of their tensors."""
    scales = sorted(int(key.split(".")[1]) for key in state if key.startswith("cls_tokens."))
    sizes: dict[str, Any] = {"class_token_scales": tuple(scales)}
    for key, weight in state.items():
        if match := _KEY.fullmatch(key):
            own = {"class_token_attention": "own", "class_token_block": int(match[1])}
            sizes |= own | {"class_token_width": weight.shape[0], "read_only_class_tokens": True}
    return sizes
