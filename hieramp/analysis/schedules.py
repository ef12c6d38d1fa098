"""What amplification does to the tokens of many samples, and which schedules raise entropy and coverage across classes.

The paper's Figures 3, 8 and 9 (docs/method.md, "What the paper looks at").
Generators: the figures so far, batch by batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from hieramp.amplification.settings import SCHEDULES, Amplification
from hieramp.analysis.bootstrap import UsageDifference, code_counts, usage_difference
from hieramp.analysis.tokens import CodeCounts, Risen, Usage, changed_tokens, share_that_rose
from hieramp.generation.model import Model
from hieramp.generation.sampling import Sampling

Tokens = tuple[torch.Tensor, ...]  # per scale (B, n²)
BATCH = 16  # images drawn together: on two cores under a second


@dataclass(frozen=True)
class Count:
    """Code usage of the samples of one class so far, baseline and amplified."""

    num_samples: int
    num_wanted: int
    per_scale: tuple[list[Usage], list[Usage]]
    per_stage: tuple[dict[str, Usage], dict[str, Usage]]
    changed: tuple[list[list[float]], ...]  # per scale (n, n): the share of samples whose token changed
    differences: dict[str, UsageDifference]  # per stage ("fine") and scale ("scale 3"), amplified minus baseline

    @property
    def is_finished(self) -> bool:
        return self.num_samples == self.num_wanted


@dataclass(frozen=True)
class Comparison:
    """Over the classes so far: the share whose entropy or coverage rose, per schedule and stage."""

    num_classes: int
    num_wanted: int
    num_samples: int
    risen: dict[str, dict[str, Risen]]  # schedule → stage
    labels: tuple[int, ...]  # of the classes so far
    differences: dict[str, dict[str, list[UsageDifference]]]  # schedule → stage → per class, minus "off"

    @property
    def is_finished(self) -> bool:
        return self.num_classes == self.num_wanted


def count_tokens(
    model: Model,
    label: int,
    num_samples: int,
    amplification: Amplification,
    first_seed: int = 0,
    sampling: Sampling | None = None,
) -> Iterator[Count]:
    """Draw samples of a class, plain and amplified from the same seeds, and count their tokens."""
    plain, amplified = (CodeCounts(model.var.scales, model.vqvae.config.num_codes) for _ in range(2))
    sides = model.var.scales.sides
    changes = [torch.zeros(side * side) for side in sides]
    each: tuple[list[Tokens], list[Tokens]] = ([], [])
    for seeds in _batches(first_seed, num_samples, BATCH // 2):
        amplifications = [None] * len(seeds) + [amplification] * len(seeds)
        tokens = _tokens(model, [label] * 2 * len(seeds), [*seeds, *seeds], amplifications, sampling)
        for side, drawn in enumerate(zip(*(t.cpu().chunk(2) for t in tokens), strict=True)):
            each[side].append(drawn)
        for scale, (before, after) in enumerate(t.cpu().chunk(2) for t in tokens):
            plain.add(scale, before)
            amplified.add(scale, after)
            changes[scale] += changed_tokens(before, after).sum(0)
        done = seeds[-1] + 1 - first_seed
        shares = [(sums / done).view(side, side).tolist() for sums, side in zip(changes, sides, strict=True)]
        per_scale, per_stage = (plain.per_scale(), amplified.per_scale()), (plain.per_stage(), amplified.per_stage())
        differences = _differences(model, *each)
        yield Count(done, num_samples, per_scale, per_stage, tuple(shares), differences)


def compare_schedules(
    model: Model, labels: Sequence[int], num_samples: int, first_seed: int = 0, sampling: Sampling | None = None
) -> Iterator[Comparison]:
    """The eight schedules on every class, each against "off"; after every class."""
    usages: dict[str, list[dict[str, Usage]]] = {name: [] for name in SCHEDULES}
    stages = [stage for stage, scales in model.var.scales.stages.items() if scales]
    others = [name for name in SCHEDULES if name != "off"]
    differences: dict[str, dict[str, list[UsageDifference]]] = {name: {s: [] for s in stages} for name in others}
    for done, label in enumerate(labels, 1):
        found = _usage_of_schedules(model, label, num_samples, first_seed, sampling)
        for name, (usage, tokens) in found.items():
            usages[name].append(usage)
            if name != "off":
                for stage, one in _differences(model, found["off"][1], tokens, stages).items():
                    differences[name][stage].append(one)
        risen = {name: _risen(usages["off"], usages[name]) for name in others}
        yield Comparison(done, len(labels), num_samples, risen, tuple(labels[:done]), differences)


def _usage_of_schedules(
    model: Model, label: int, num_samples: int, first_seed: int, sampling: Sampling | None
) -> dict[str, tuple[dict[str, Usage], list[Tokens]]]:
    each: dict[str, list[Tokens]] = {name: [] for name in SCHEDULES}
    counts = {name: CodeCounts(model.var.scales, model.vqvae.config.num_codes) for name in SCHEDULES}
    for seeds in _batches(first_seed, num_samples, BATCH // len(SCHEDULES)):
        amplifications = [amplification for amplification in SCHEDULES.values() for _ in seeds]
        many = [*seeds] * len(SCHEDULES)
        tokens = [t.cpu() for t in _tokens(model, [label] * len(many), many, amplifications, sampling)]
        for name, parts in zip(SCHEDULES, zip(*(t.split(len(seeds)) for t in tokens), strict=True), strict=True):
            each[name].append(parts)
            for scale, part in enumerate(parts):
                counts[name].add(scale, part)
    return {name: (count.per_stage(), each[name]) for name, count in counts.items()}


def _differences(
    model: Model, before: list[Tokens], after: list[Tokens], places: Sequence[str] | None = None
) -> dict[str, UsageDifference]:
    """Per stage and scale, or for some of them, what amplification does to the samples of a class."""
    scales = model.var.scales
    named = {stage: list(part) for stage, part in scales.stages.items() if part}
    named |= {f"scale {scale}": [scale] for scale in range(len(scales))}
    found = {}
    for place in places or named:
        plain_NV, amplified_NV = (
            code_counts(
                torch.cat([torch.cat([batch[scale] for scale in named[place]], dim=1) for batch in side]),
                model.vqvae.config.num_codes,
            )
            for side in (before, after)
        )
        found[place] = usage_difference(plain_NV, amplified_NV)
    return found


def _tokens(
    model: Model,
    labels: list[int],
    seeds: list[int],
    amplifications: Sequence[Amplification | None],
    sampling: Sampling | None,
) -> tuple[torch.Tensor, ...]:
    how = sampling or model.defaults.sampling
    return model.generate(labels, seeds, amplifications, **how.options()).tokens


def _risen(baseline: list[dict[str, Usage]], amplified: list[dict[str, Usage]]) -> dict[str, Risen]:
    return {
        stage: share_that_rose([usage[stage] for usage in baseline], [usage[stage] for usage in amplified])
        for stage in baseline[0]
    }


def _batches(first: int, count: int, size: int) -> Iterator[range]:
    for start in range(first, first + count, size):
        yield range(start, min(start + size, first + count))
