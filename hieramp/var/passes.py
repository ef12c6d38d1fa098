"""Drawing the last scale in more than one pass, each of which knows the tokens of the passes before.

VAR draws all tokens of a scale at once, not knowing of each other. In a small model the last scale carries most of the
detail, and parts that do not know of each other do not fit together. Drawing a scale in several steps is HMAR's idea
(arXiv 2506.04421); the order here is fixed, by the parity of row and column, so that a pass never draws two neighbours:
first the even rows and columns, then the odd ones, then the rest in two halves.

Letters: B rows, N positions of the last scale, C code width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

QUARTER = ((0, 2), (3, 1))  # by parity of row and column: which quarter of the positions comes when


def pass_of_position(side: int, passes: int) -> list[int]:
    """The pass that draws each of the side² positions of a map, row by row."""
    return [QUARTER[y % 2][x % 2] * passes // 4 for y in range(side) for x in range(side)]


def append_known_tokens(inputs_BLC: Tensor, codes_BNC: Tensor, known_BN: Tensor) -> Tensor:
    """The input that tells the last scale, the last N positions, which of its tokens are known: (B, L, 2·C + 1).

    Next to f_hat come the known tokens' codes and a mark; both are zero where nothing is known.
    """
    known_BN1 = known_BN[..., None].to(codes_BNC.dtype)
    told = torch.cat([codes_BNC * known_BN1, known_BN1], dim=-1)
    return torch.cat([inputs_BLC, F.pad(told, (0, 0, inputs_BLC.shape[1] - told.shape[1], 0))], dim=-1)
