"""Part draw: what class tokens and amplification cost at the sizes of var-d16, plain and recorded."""

import statistics
from functools import partial

import torch

from benchmarks.card.graphs import is_recorded, plain, recorded
from benchmarks.card.models import draw, stand_in
from benchmarks.card.part import Part
from hieramp import SCHEDULES, Amplification, Model

BASE, TOKENS, AMPLIFIED = "base", "+ class tokens", "+ amplification"
BATCHES = (1, 25)
Variants = dict[str, tuple[Model, Amplification | None]]


def run(part: Part) -> None:
    bare, tokens = (stand_in(part, class_tokens) for class_tokens in (False, True))
    for dtype in (torch.bfloat16, torch.float32):
        for model in (bare, tokens):
            model.to(part.device, dtype)
        variants: Variants = {AMPLIFIED: (tokens, SCHEDULES["all"])}
        if dtype is torch.bfloat16:
            variants = {BASE: (bare, None), TOKENS: (tokens, None), **variants}
        for batch in (1, 2) if part.tiny else BATCHES:
            compare(part, variants, batch, dtype)
            if part.left < 10:
                return


def compare(part: Part, variants: Variants, batch: int, dtype: torch.dtype) -> None:
    """Each variant by itself, then all in turns on their recordings."""
    ready: Variants = {}
    for name, (model, amplification) in variants.items():
        with part.attempt(f"{name}, batch {batch}"):
            model = recorded(model)
            alone(part, name, model, amplification, batch, dtype)
            ready[name] = model, amplification
    taken: dict[str, list[float]] = {name: [] for name in ready}
    for number in range(2 if part.tiny else 12):
        for name in list(ready) if number % 2 else list(reversed(ready)):
            seconds = part.seconds(partial(draw, ready[name][0], batch, ready[name][1]))
            if number:  # the first round warms up
                taken[name].append(seconds)
        if part.left < 8 and number > 2:
            break
    for name, seconds_each in taken.items():
        ratio = {}
        if BASE in taken:
            ratio["over_base"] = statistics.median(s / b for s, b in zip(seconds_each, taken[BASE], strict=True))
        part.emit(
            f"{name}, batch {batch}, replayed",
            dtype=str(dtype),
            ms_an_image=1e3 * statistics.median(seconds_each) / batch,
            fastest=1e3 * min(seconds_each) / batch,
            rounds=len(seconds_each),
            **ratio,
        )


def alone(
    part: Part, name: str, model: Model, amplification: Amplification | None, batch: int, dtype: torch.dtype
) -> None:
    """The first drawing, plain ones after it, and the drawings that record."""
    slow = plain(model)
    part.start_peak()
    cold = part.seconds(partial(draw, slow, batch, amplification))
    eager = part.milliseconds(partial(draw, slow, batch, amplification), rounds=3, warm=0)
    recording = max(part.seconds(partial(draw, model, batch, amplification)) for _ in range(2))
    part.emit(
        f"{name}, batch {batch}",
        dtype=str(dtype),
        cold_s=cold,
        plain_ms_an_image=eager / batch,
        recording_s=recording,
        recorded=is_recorded(model),
        **part.peak_gib(),
    )
