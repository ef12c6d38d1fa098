"""What amplification changes in the tokens: their entropy, their coverage, and which of them differ.

Letters: B images, L positions of a scale, V codes. The paper's Figures 3, 8 and 9 (docs/method.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hieramp.scales import Scales

Grid = Sequence[Sequence[float]]  # (n, n), a figure for each position of a scale


@dataclass(frozen=True)
class Usage:
    """How the codes are used."""

    entropy: float  # in nats
    coverage: float  # the share of the codebook that occurs
    num_tokens: int  # counted


@dataclass(frozen=True)
class Risen:
    """The share of classes whose figure rose over the baseline."""

    entropy: float
    coverage: float
    num_classes: int

    def interval(self, what: str) -> tuple[float, float]:
        """Of the share of one of the two, "entropy" or "coverage"."""
        return share_interval(getattr(self, what), self.num_classes)


class CodeCounts:
    """How often each code occurs at each scale, gathered batch by batch."""

    def __init__(self, scales: Scales, num_codes: int) -> None:
        self.scales = scales
        self.counts_SV = torch.zeros(len(scales), num_codes, dtype=torch.int64)

    def add(self, scale: int, tokens_BL: Tensor) -> None:
        self.counts_SV[scale] += torch.bincount(tokens_BL.flatten().cpu(), minlength=self.counts_SV.shape[1])

    def per_scale(self) -> list[Usage]:
        return [usage(counts_V) for counts_V in self.counts_SV]

    def per_stage(self) -> dict[str, Usage]:
        """The codes of all scales of a stage counted together; stages without a scale are left out."""
        stages = self.scales.stages.items()
        return {stage: usage(self.counts_SV[list(scales)].sum(0)) for stage, scales in stages if scales}


def usage(counts_V: Tensor) -> Usage:
    """Entropy H = -Σ p log p in nats, and coverage, of codes that occurred `counts_V` times.

    Raises:
        ValueError: nothing was counted.
    """
    total = int(counts_V.sum())
    if not total:
        raise ValueError("no token was counted: draw at least one image first")
    p_V = counts_V[counts_V > 0].double() / total
    return Usage(-(p_V * p_V.log()).sum().item() + 0.0, len(p_V) / len(counts_V), total)


def changed_tokens(baseline_BL: Tensor, amplified_BL: Tensor) -> Tensor:
    """Where the two drew different tokens, (B, L) bool."""
    return baseline_BL != amplified_BL


def share_that_rose(baseline: Sequence[Usage], amplified: Sequence[Usage]) -> Risen:
    """Per class one usage each, in the same order; a figure that stays where it is has not risen.

    Raises:
        ValueError: no class, or not as many of either.
    """
    count = len(baseline)
    if not count or count != len(amplified):
        raise ValueError(f"{count} classes against {len(amplified)}: give one usage of each per class")
    pairs = list(zip(baseline, amplified, strict=True))
    entropy = sum(after.entropy > before.entropy for before, after in pairs)
    coverage = sum(after.coverage > before.coverage for before, after in pairs)
    return Risen(entropy / count, coverage / count, count)


def share_interval(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of so many."""
    spread = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    low, high = ((share + z * z / (2 * count) + side * spread) / (1 + z * z / count) for side in (-1, 1))
    return max(0.0, low), min(1.0, high)


def changed_rows(shares: Sequence[Grid]) -> list[list[Any]]:
    """The maps of `changed_tokens`, averaged over samples, as a table."""
    rows: list[list[Any]] = [["scale", "row", "column", "share_of_samples_changed"]]
    for share in shares:
        for y, line in enumerate(share):
            rows += [[f"{len(share)}×{len(share)}", y + 1, x + 1, value] for x, value in enumerate(line)]
    return rows
