"""Where the time of a drawing goes: phases of the loop, and within each what kind of operation.

Measured by torch's profiler, whose own cost falls on every operation alike, so phases of many small ones look a little
larger than they are. On a GPU the figures are of its kernels, of the plain loop (a graph has no phases).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from hieramp.files import markdown_table
from hieramp.generation import loop
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE
from hieramp.vqvae.quantizer import Quantizer

PHASES: list[tuple[str, Any, str]] = [
    ("transformer", VAR, "step"),
    ("class and weights, once a drawing", VAR, "conditions"),
    ("latent grid to the next input", Quantizer, "next_input"),
    ("tokens to the latent grid", Quantizer, "contribution"),
    ("guidance", loop, "guide"),
    ("noise", loop, "gumbel_noise"),
    ("top-k and top-p", loop, "filter_logits"),
    ("choice of the token", loop, "sample"),
    ("decoder", VQVAE, "to_images"),
]
KINDS = {  # the first that fits: some kernels of attention are named after the products in them
    "attention": ("attention", "fmha", "flash"),
    "convolutions": ("conv",),
    "sorting": ("sort", "topk"),
    "matrix products": ("mm", "gemm", "linear", "bmm"),
}
REST, OUTSIDE = "all other operations", "Python and numpy"
LOOP = "the loop around them"


@contextmanager
def named_phases() -> Iterator[None]:
    """The functions above mark their time in a profile."""
    with ExitStack() as stack:
        for phase, owner, name in PHASES:
            stack.enter_context(patch.object(owner, name, _marked(phase, getattr(owner, name))))
        yield


def _marked(phase: str, run: Callable[..., Any]) -> Callable[..., Any]:
    def marked(*args: Any, **kwargs: Any) -> Any:
        with record_function(phase):
            return run(*args, **kwargs)

    return marked


def kind_of(operation: str) -> str:
    name = operation.lower()
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), REST)


def phases_of(draw: Callable[[], Any], cuda: bool) -> dict[tuple[str, str], float]:
    """Share of the time of one `draw()` by phase and kind of operation; they sum to 1."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with named_phases():
        draw()
        with profile(activities=activities) as profiler, record_function(LOOP):
            draw()
            if cuda:
                torch.cuda.synchronize()
    names = {LOOP, *(phase for phase, _, _ in PHASES)}
    times: dict[tuple[str, str], float] = defaultdict(float)
    for event in profiler.events() or ():
        taken = event.self_device_time_total if cuda else event.self_cpu_time_total
        phase = _phase(event, names)
        if phase and taken:
            times[phase, OUTSIDE if event.name in names else kind_of(event.name)] += taken
    total = sum(times.values())
    return {key: taken / total for key, taken in times.items()}


def _phase(event: FunctionEvent, names: set[str]) -> str | None:
    """The innermost phase that an operation belongs to."""
    at: FunctionEvent | None = event
    while at is not None:
        if at.name in names:
            return at.name
        at = at.cpu_parent
    return None


def table(shares_per_batch: dict[int, dict[tuple[str, str], float]]) -> str:
    """Markdown: a line a phase, the dearest first, with its kinds of 1 % or more."""
    rows = []
    for batch, shares in shares_per_batch.items():
        phases: dict[str, dict[str, float]] = defaultdict(dict)
        for (phase, kind), share in shares.items():
            phases[phase][kind] = share
        for phase, kinds in sorted(phases.items(), key=lambda item: -sum(item[1].values())):
            total = sum(kinds.values())
            named = [f"{kind} {s:.0%}" for kind, s in sorted(kinds.items(), key=lambda item: -item[1]) if s >= 0.01]
            rows.append([str(batch), phase, f"{total:.1%}", ", ".join(named)])
    return markdown_table(["batch", "phase", "share", "of it"], rows)
