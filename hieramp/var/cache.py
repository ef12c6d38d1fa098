"""The key-value cache of one generation: allocated once, passed in, gone with its owner.

Letters: N blocks, B rows, H heads, T positions, D head width.
"""

import torch
from torch import Tensor

from hieramp.config import VARConfig


class KVCache:
    """Keys and values of all image tokens so far, for every block.

    One slot more than there are tokens: the class token of the present scale sits behind the last image
    token and is overwritten by the next scale's first one, so it never reaches another scale.
    """

    def __init__(self, config: VARConfig, num_rows: int, device: torch.device, dtype: torch.dtype) -> None:
        head_dim = config.width // config.num_heads
        shape = (config.depth, num_rows, config.num_heads, config.scales.num_tokens + 1, head_dim)
        self.keys_NBHTD = torch.empty(shape, device=device, dtype=dtype)
        self.values_NBHTD = torch.empty(shape, device=device, dtype=dtype)

    def write(self, block: int, start: int, k_BHTD: Tensor, v_BHTD: Tensor, hidden: int = 0) -> tuple[Tensor, Tensor]:
        """Store keys and values from position `start` on; returns all up to their end but for the last `hidden`."""
        rows, count = len(k_BHTD), k_BHTD.shape[2]
        keys, values = self.keys_NBHTD[block, :rows], self.values_NBHTD[block, :rows]
        keys.narrow(2, start, count).copy_(k_BHTD)
        values.narrow(2, start, count).copy_(v_BHTD)
        shown = start + count - hidden
        return keys.narrow(2, 0, shown), values.narrow(2, 0, shown)

    def select(self, rows: Tensor, filled: int) -> None:
        """Row i becomes a copy of row `rows[i]`, for the first `filled` positions."""
        self.take(self, rows, filled)

    def take(self, other: "KVCache", rows: Tensor, filled: int) -> None:
        """The same from another cache, which stays as it is."""
        stores = (self.keys_NBHTD, other.keys_NBHTD), (self.values_NBHTD, other.values_NBHTD)
        for mine, theirs in stores:
            mine[:, : len(rows), :, :filled] = theirs[:, rows, :, :filled]
