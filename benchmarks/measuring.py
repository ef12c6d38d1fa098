"""What the benchmarks share."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch

Key = TypeVar("Key")


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


def in_turns(runs: Mapping[Key, Callable[[], float]], rounds: int) -> dict[Key, list[float]]:
    """What each run returned (its seconds) in every round.

    The runs take turns, each round in the other order, so that none is always the one after a slow one. A round before
    the first warms up and is not counted.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in runs}
    for number in range(rounds + 1):
        for key in list(runs) if number % 2 else list(reversed(list(runs))):
            taken = runs[key]()
            if number:
                seconds[key].append(taken)
    return seconds


def timed(act: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds that `act` took."""
    started = clock()
    act()
    return clock() - started


def peak_of(profiler: torch.profiler.profile) -> int:
    """The highest sum of all tensors allocated since the profile began, in bytes."""
    results: Any = profiler.profiler
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    size, peak = 0, 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        size += event.nbytes()
        peak = max(peak, size)
    return peak
