"""What the benchmarks share."""

from typing import Any

import torch


def peak_of(profiler: torch.profiler.profile) -> int:
    """The highest sum of all tensors allocated since the profile began, in bytes."""
    results: Any = profiler.profiler
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    size, peak = 0, 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        size += event.nbytes()
        peak = max(peak, size)
    return peak
