"""What amplification does to the tokens of many samples, and which schedules raise entropy and coverage across classes.

The paper's Figures 3, 8 and 9 (docs/method.md, "What the paper looks at").
Generators: the figures so far, batch by batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from hieramp.amplification.settings import SCHEDULES, Amplification
from hieramp.analysis.tokens import CodeCounts, Risen, Usage, changed_tokens, share_that_rose
from hieramp.generation.model import Model
from hieramp.generation.sampling import Sampling

BATCH = 16  # images drawn together: on two cores under a second


@dataclass(frozen=True)
class Count:
    """Code usage of the samples of one class so far, baseline and amplified."""

    num_samples: int
    num_wanted: int
    per_scale: tuple[list[Usage], list[Usage]]
    per_stage: tuple[dict[str, Usage], dict[str, Usage]]
    changed: tuple[list[list[float]], ...]  # per scale (n, n): the share of samples whose token changed

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
    for seeds in _batches(first_seed, num_samples, BATCH // 2):
        amplifications = [None] * len(seeds) + [amplification] * len(seeds)
        tokens = _tokens(model, [label] * 2 * len(seeds), [*seeds, *seeds], amplifications, sampling)
        for scale, (before, after) in enumerate(t.cpu().chunk(2) for t in tokens):
            plain.add(scale, before)
            amplified.add(scale, after)
            changes[scale] += changed_tokens(before, after).sum(0)
        done = seeds[-1] + 1 - first_seed
        shares = [(sums / done).view(side, side).tolist() for sums, side in zip(changes, sides, strict=True)]
        per_scale, per_stage = (plain.per_scale(), amplified.per_scale()), (plain.per_stage(), amplified.per_stage())
        yield Count(done, num_samples, per_scale, per_stage, tuple(shares))


def compare_schedules(
    model: Model, labels: Sequence[int], num_samples: int, first_seed: int = 0, sampling: Sampling | None = None
) -> Iterator[Comparison]:
    """The eight schedules on every class, each against "off"; after every class."""
    usages: dict[str, list[dict[str, Usage]]] = {name: [] for name in SCHEDULES}
    for done, label in enumerate(labels, 1):
        for name, usage in _usage_of_schedules(model, label, num_samples, first_seed, sampling).items():
            usages[name].append(usage)
        risen = {name: _risen(usages["off"], found) for name, found in usages.items() if name != "off"}
        yield Comparison(done, len(labels), num_samples, risen)


def _usage_of_schedules(
    model: Model, label: int, num_samples: int, first_seed: int, sampling: Sampling | None
) -> dict[str, dict[str, Usage]]:
    counts = {name: CodeCounts(model.var.scales, model.vqvae.config.num_codes) for name in SCHEDULES}
    for seeds in _batches(first_seed, num_samples, BATCH // len(SCHEDULES)):
        amplifications = [amplification for amplification in SCHEDULES.values() for _ in seeds]
        many = [*seeds] * len(SCHEDULES)
        for scale, drawn in enumerate(_tokens(model, [label] * len(many), many, amplifications, sampling)):
            for name, part in zip(SCHEDULES, drawn.split(len(seeds)), strict=True):
                counts[name].add(scale, part)
    return {name: count.per_stage() for name, count in counts.items()}


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
