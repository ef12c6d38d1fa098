"""Weights of a smaller VAR made fit for a larger one, which then foretells the same and can learn the rest.

What is new is silent at first: added blocks write zeros into the residual stream, added columns read with weight zero.
The idea is Net2Net's (arXiv 1511.05641); blocks that begin as the identity are those of LLaMA Pro (arXiv 2401.02415).
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from hieramp.config import VARConfig

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
_OUTPUTS = ("attn.proj.", "ffn.fc2.")  # what a block adds to the residual stream comes through these alone


def grown(state: Mapping[str, Tensor], config: VARConfig) -> dict[str, Tensor]:
    """`state` for the sizes of `config`: more blocks, and a last scale drawn in several passes instead of one.

    Whatever else differs, fewer blocks included, is left as it is, to be refused by whoever loads it.
    """
    return _deepened(_widened(state, config), config.depth)


def _deepened(state: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """A silent copy behind as many of the blocks, evenly spread, as are missing (several behind each, if need be)."""
    had = 1 + max((int(match[1]) for key in state if (match := _BLOCK.fullmatch(key))), default=-1)
    if not 0 < had < depth:
        return state
    copies = [0] * had
    for added in range(1, depth - had + 1):
        copies[-(-added * had // (depth - had)) - 1] += 1
    result = {key: value for key, value in state.items() if not _BLOCK.fullmatch(key)}
    first = [block + sum(copies[:block]) for block in range(had)]
    for key, value in state.items():
        if match := _BLOCK.fullmatch(key):
            block, name = int(match[1]), match[2]
            result[f"blocks.{first[block]}.{name}"] = value
            silent = torch.zeros_like(value) if name.startswith(_OUTPUTS) else value
            for copy in range(1, copies[block] + 1):
                result[f"blocks.{first[block] + copy}.{name}"] = silent.clone()
    return result


def _widened(state: Mapping[str, Tensor], config: VARConfig) -> dict[str, Tensor]:
    """Columns of zeros for the codes that earlier passes have drawn (hieramp.var.passes)."""
    weight = state.get("word_embed.weight")
    if weight is None or weight.shape[1] != config.code_dim:
        return dict(state)
    return {**state, "word_embed.weight": F.pad(weight, (0, config.input_dim - config.code_dim))}
