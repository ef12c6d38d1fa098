"""What the benchmarks share."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch


class Ratio(NamedTuple):
    """The median of some ratios, and the interval that holds the true one with 95 %."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def paired_ratio(seconds: Sequence[float], base: Sequence[float]) -> Ratio:
    """How many times longer than its base, from rounds in which both ran one after the other.

    Each round gives one ratio, so that a machine that drifts from round to round does not show in it. The interval is
    that of the median by order statistics: it assumes rounds that are independent, and no distribution.
    """
    ratios = sorted(mine / its for mine, its in zip(seconds, base, strict=True))
    count = len(ratios)
    tail = 0  # the most ratios that may lie outside on either side with 2.5 % each
    while sum(math.comb(count, i) for i in range(tail + 1)) / 2**count <= 0.025:
        tail += 1
    outermost = max(0, tail - 1)
    return Ratio(statistics.median(ratios), ratios[outermost], ratios[-1 - outermost])


def peak_of(profiler: torch.profiler.profile) -> int:
    """The highest sum of all tensors allocated since the profile began, in bytes."""
    results: Any = profiler.profiler
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    size, peak = 0, 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        size += event.nbytes()
        peak = max(peak, size)
    return peak
