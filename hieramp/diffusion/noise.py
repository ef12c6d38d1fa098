"""Random numbers that belong to an image, not to a batch.

They come from Philox, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011),
keyed by label, seed and a name for the use: the same at any batch size and in any order. They are made on the CPU, in
float64 and then rounded, so that a GPU starts from the same noise. Only the generator's raw words are asked of numpy,
which it promises to keep the same.
"""

import hashlib
from collections.abc import Sequence
from math import pi, prod

import numpy as np
import torch
from torch import Tensor

from hieramp.devices import to_device_async


def _uniform(label: int, seed: int, use: str, count: int) -> np.ndarray:
    """Numbers between 0 and 1, never either of them, (count,) float64."""
    key = hashlib.blake2b(f"{label}/{seed}/{use}".encode(), digest_size=16).digest()
    words = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(count)
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def gaussian(
    labels: Sequence[int], seeds: Sequence[int], shape: Sequence[int], device: torch.device, use: str = "start"
) -> Tensor:
    """Standard normal noise for each image, (B, *shape) float32, by the Box-Muller transform."""
    count = prod(shape)
    rows = []
    for label, seed in zip(labels, seeds, strict=True):
        radius, angle = np.split(_uniform(label, seed, use, 2 * ((count + 1) // 2)), 2)
        length, turn = np.sqrt(-2 * np.log(radius)), 2 * pi * angle
        normal = np.concatenate([length * np.cos(turn), length * np.sin(turn)])[:count]
        rows.append(normal.astype(np.float32).reshape(tuple(shape)))
    return to_device_async(torch.from_numpy(np.stack(rows)), device)


def chances(labels: Sequence[int], seeds: Sequence[int], step: int, count: int, device: torch.device) -> Tensor:
    """A number from 0 to 1 for each of `count` positions of each image at one step, (B, count) float32."""
    rows = [
        _uniform(label, seed, f"chance/{step}", count).astype(np.float32)
        for label, seed in zip(labels, seeds, strict=True)
    ]
    return to_device_async(torch.from_numpy(np.stack(rows)), device)
