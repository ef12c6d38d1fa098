"""Attention in the ways it could be computed: of teacher forcing under its mask, and of drawing with a key bias."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as attend

from benchmarks.card.part import Part
from hieramp.config import VARConfig

CUDNN, EFFICIENT, FLASH, MATH = (
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.MATH,
)


def random(part: Part, *shape: int) -> Tensor:
    return torch.randn(*shape, device=part.device, dtype=torch.bfloat16)


def teacher_forcing(part: Part) -> None:
    """The preset cifar10's: 680 tokens, each of which sees its own scale and those before, 62 % of all pairs."""
    batch, heads = (2, 2) if part.tiny else (256, 6)
    spans = VARConfig().scales.spans
    length, early = spans[-1].stop, spans[5].stop
    level = torch.cat([torch.full((s.stop - s.start,), i) for i, s in enumerate(spans)]).to(part.device)
    mask = torch.zeros(length, length, device=part.device, dtype=torch.bfloat16)
    mask.masked_fill_(level[:, None] < level, -torch.inf)
    early_mask = mask[:early, :early].contiguous()
    q, k, v = (random(part, batch, length, heads, 64).transpose(1, 2).requires_grad_() for _ in range(3))
    gradient = random(part, batch, length, heads, 64).transpose(1, 2)

    def nested() -> Tensor:
        """No mask but a small one: the first six scales together, each later one against all that it sees."""
        parts = [attend(q[:, :, :early], k[:, :, :early], v[:, :, :early], early_mask)]
        parts += [attend(q[:, :, s], k[:, :, : s.stop], v[:, :, : s.stop]) for s in spans[6:]]
        return torch.cat(parts, dim=2)

    masked, unmasked = partial(attend, q, k, v, mask), partial(attend, q, k, v)
    ways: dict[str, tuple[list[SDPBackend], Callable[[], Tensor]]] = {
        "efficient, mask": ([EFFICIENT], masked),
        "cudnn, mask": ([CUDNN], masked),
        "flash, nested": ([FLASH, EFFICIENT], nested),
        "cudnn, nested": ([CUDNN], nested),
        "flash, no mask (computes something else)": ([FLASH], unmasked),
    }
    if not part.on_card:
        ways = {"math, mask": ([MATH], masked), "math, nested": ([MATH], nested)}
    expected: Tensor | None = None
    for name, (backends, run) in ways.items():
        with part.attempt(f"attention of training, {name}"), sdpa_kernel(backends):
            measure_training(part, name, run, gradient)
            if run is not unmasked:
                found = run().detach()
                expected = found if expected is None else expected
                gap = (found - expected).abs().max().item()
                part.check(f"attention of training, {name}, is the same", gap < 0.05, largest_gap=gap)


def measure_training(part: Part, name: str, run: Callable[[], Tensor], gradient: Tensor) -> None:
    rounds = 2 if part.tiny else 10
    first = part.seconds(run)
    both = lambda: run().backward(gradient)  # noqa: E731
    first_both = part.seconds(both)
    part.emit(
        f"attention of training, {name}",
        forward_ms=part.milliseconds(run, rounds),
        with_backward_ms=part.milliseconds(both, rounds),
        first_s=first,
        first_with_backward_s=first_both,
    )


def drawing(part: Part) -> None:
    """The last scale of var-d16 at batch 25: 256 queries; the bias of amplification is one number a key."""
    rows, heads = (2, 2) if part.tiny else (50, 16)
    keys = random(part, rows, heads, 681, 64)[:, :, :680]
    queries = random(part, rows, 256, heads, 64).transpose(1, 2)

    def bias(length: int) -> Tensor:
        return random(part, rows, length).view(rows, 1, 1, -1).expand(-1, -1, 256, -1)

    odd = keys[:, :, :677]
    runs = {
        "plain": partial(attend, queries, keys, keys),
        "bias": partial(attend, queries, keys, keys, bias(680)),
        "bias of odd length": partial(attend, queries, odd, odd, bias(677)),
    }
    for backend in (FLASH, EFFICIENT, CUDNN) if part.on_card else (MATH,):
        for what, run in runs.items():
            if backend is FLASH and what != "plain":  # it takes no bias
                continue
            name = f"attention of drawing, {backend.name.lower()}, {what}"
            with part.attempt(name):
                with sdpa_kernel(MATH):
                    exact = run()
                with sdpa_kernel(backend):
                    first = part.seconds(run)
                    gap = (run() - exact).abs().max().item()
                    part.check(
                        name,
                        gap < 0.05,
                        ms=part.milliseconds(run, 2 if part.tiny else 10),
                        first_s=first,
                        largest_gap=gap,
                    )
