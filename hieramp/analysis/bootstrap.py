"""How sure a difference is: bootstrap intervals of what two sets of images differ by. Pure functions.

The percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13): the images are
drawn again with replacement, the figure is taken anew, and the middle 95 % of what comes out is the interval. Images of
one seed are drawn again together, plain and amplified, where they are pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from hieramp.analysis.tokens import Usage
from hieramp.captions import signed

LEVEL = 0.95
ROUNDING = 1e-6  # less is none
FEWEST = 5  # images or classes: drawn again, three come out as one of ten sets
DRAWS = 500  # of the images of a class
Verdict = Literal["up", "down", "open"]


@dataclass(frozen=True)
class Interval:
    """A figure and where it lies, 95 times in 100."""

    value: float
    low: float
    high: float
    count: int  # what was drawn again: images, or classes

    @property
    def verdict(self) -> Verdict:
        """Whether it is surely above 0, surely below, or neither; of very few, nothing is sure."""
        if self.is_of_few:
            return "open"
        return "up" if self.low > ROUNDING else "down" if self.high < -ROUNDING else "open"

    @property
    def is_of_few(self) -> bool:
        """Whether so few were drawn again that the interval is far too narrow."""
        return self.count < FEWEST

    @property
    def is_nothing(self) -> bool:
        """Whether there is no difference at all, but for rounding."""
        return max(abs(self.low), abs(self.value), abs(self.high)) <= ROUNDING

    def text(self, unit: str, of: str) -> str:
        """ "+0.031 nats (95 % interval +0.010 to +0.052, n = 8 classes)"."""
        ends = f"95 % interval {signed(self.low)} to {signed(self.high)}"
        return f"{signed(self.value)} {unit} ({ends}, n = {self.count} {of})"


def mean_interval(values: Sequence[float], draws: int = 10_000, seed: int = 0) -> Interval:
    """The mean of values, such as the differences of pairs, and its interval.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no value was given: an interval needs at least one")
    values_N = np.asarray(values, dtype=np.float64)
    again = np.random.default_rng(seed).integers(len(values_N), size=(draws, len(values_N)))
    low, high = _middle(values_N[again].mean(1))
    return Interval(float(values_N.mean()), low, high, len(values_N))


def over_classes(found: Sequence[Interval]) -> tuple[Interval, str]:
    """The mean over classes with its interval, and what was drawn again; of one class its own, over its images."""
    if len(found) == 1:
        return found[0], "images"
    return mean_interval([one.value for one in found]), "classes"


@dataclass(frozen=True)
class UsageDifference:
    """What amplification does to the entropy (nats) and coverage (share of the codebook) of a class."""

    entropy: Interval
    coverage: Interval


@dataclass(frozen=True)
class MeanUsage:
    """Entropy (nats) and coverage (share of the codebook) themselves, on average over classes."""

    entropy: Interval
    coverage: Interval


def mean_usage(usages: Sequence[Usage]) -> MeanUsage:
    """Of classes; of a single one, the interval is the value itself.

    Raises:
        ValueError: there is no class.
    """
    values = [[getattr(usage, what) for usage in usages] for what in ("entropy", "coverage")]
    return MeanUsage(*(Interval(v[0], v[0], v[0], 1) if len(v) == 1 else mean_interval(v) for v in values))


def code_counts(tokens_NL: Tensor, num_codes: int) -> Tensor:
    """How often each code occurs in each image: (N, L) tokens → (N, V) float32."""
    return torch.zeros(len(tokens_NL), num_codes).scatter_add_(1, tokens_NL.cpu(), torch.ones(tokens_NL.shape))


def usage_difference(
    before_NV: Tensor, after_MV: Tensor, is_paired: bool = True, draws: int = DRAWS, seed: int = 0
) -> UsageDifference:
    """After minus before, by the codes of each image (`code_counts`); image i of both is of one seed if paired.

    Entropy of few images is too low by itself, and more so of images drawn again, of which some are the same; the
    difference of two sets of one size loses most of that, and the interval is set around the difference found
    (the "basic" bootstrap: 2θ − θ*), which mends the rest to first order.

    Raises:
        ValueError: no image, or pairs of unequal number.
    """
    if not len(before_NV) or not len(after_MV) or (is_paired and len(before_NV) != len(after_MV)):
        counts = f"{len(before_NV)} images against {len(after_MV)}"
        raise ValueError(f"{counts}: give some of each, as many if they are pairs")
    generator = torch.Generator().manual_seed(seed)
    weights_DN = _weights(len(before_NV), draws, generator)
    weights_DM = weights_DN if is_paired else _weights(len(after_MV), draws, generator)
    num_codes, is_used_V = before_NV.shape[1], (before_NV.sum(0) + after_MV.sum(0)) > 0
    sides = before_NV[:, is_used_V], after_MV[:, is_used_V]
    found = [_usages(side.sum(0, keepdim=True), num_codes) for side in sides]
    again = [_usages(w @ side, num_codes) for w, side in zip((weights_DN, weights_DM), sides, strict=True)]
    intervals = []
    for what in (0, 1):
        value = (found[1][what] - found[0][what]).item()
        low, high = _middle((again[1][what] - again[0][what]).numpy())
        intervals.append(Interval(value, 2 * value - high, 2 * value - low, min(len(before_NV), len(after_MV))))
    return UsageDifference(*intervals)


def _weights(count: int, draws: int, generator: torch.Generator) -> Tensor:
    """How often each of `count` images is drawn when as many are drawn with replacement, (draws, count)."""
    again_DN = torch.randint(count, (draws, count), generator=generator)
    return torch.zeros(draws, count).scatter_add_(1, again_DN, torch.ones(draws, count))


def _usages(counts_DV: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """Entropy in nats and coverage of a codebook of so many, of each row of counts; (D,) float64 each."""
    p_DV = (counts_DV / counts_DV.sum(1, keepdim=True)).double()
    return torch.special.entr(p_DV).sum(1), (counts_DV > 0).double().sum(1) / num_codes


def _middle(values_D: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values_D, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


# The paper's direction (Figures 3, 8, 9): amplifying coarse scales spreads the codes used there, fine scales narrows
# them.
EXPECTED: dict[str, Verdict] = {"coarse": "up", "mid": "up", "fine": "down"}


def direction(stage: str, difference: Interval, of: str) -> str:
    """One sentence: whether the paper's direction holds for the entropy of a stage; `of` says what was drawn again."""
    expected = EXPECTED[stage]
    paper = "rises" if expected == "up" else "falls"
    found = difference.verdict
    if found == expected:
        here = "holds here"
    elif difference.is_nothing:
        here = "nothing changes here"
    elif difference.is_of_few:
        here = f"cannot be told here from so few (give at least {FEWEST})"
    elif found == "open":
        here = "can be neither confirmed nor ruled out here"
    else:
        here = "does not hold here: it is the other way round"
    subject = "" if difference.is_nothing else "that "
    return f"In the paper {stage} entropy {paper}; {subject}{here}: {difference.text('nats', of)}."
