"""Intervals of differences: against answers that are known."""

import math

import numpy as np
import pytest
import torch

from hieramp.analysis.bootstrap import (
    EXPECTED,
    Interval,
    code_counts,
    direction,
    mean_interval,
    over_classes,
    usage_difference,
)
from hieramp.analysis.tokens import usage


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    found = mean_interval(values.tolist())
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean()) and found.count == 400
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)
    assert found.verdict == "up" and mean_interval((-values).tolist()).verdict == "down"


def test_one_value_has_no_spread_and_none_is_refused() -> None:
    assert mean_interval([2.5]) == Interval(2.5, 2.5, 2.5, 1)
    assert mean_interval([2.5] * 4).verdict == "open" and mean_interval([2.5] * 5).verdict == "up"
    assert "cannot be told here from so few" in direction("fine", Interval(0.2, 0.1, 0.3, 4), "classes")
    one = Interval(0.2, 0.1, 0.3, 8)
    assert over_classes([one]) == (one, "images") and over_classes([one, one]) == (
        Interval(0.2, 0.2, 0.2, 2),
        "classes",
    )
    with pytest.raises(ValueError, match="no value was given"):
        mean_interval([])


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for i in range(200):
        found = mean_interval(rng.normal(0, 1, 30).tolist(), draws=500, seed=i)
        held += found.low <= 0 <= found.high
    assert 180 <= held <= 200


def test_codes_of_each_image_are_counted() -> None:
    counts = code_counts(torch.tensor([[0, 0, 3], [1, 2, 1]]), 4)
    assert counts.tolist() == [[2, 0, 0, 1], [0, 2, 1, 0]]


def test_the_difference_is_that_of_the_usages() -> None:
    torch.manual_seed(0)
    before, after = torch.randint(8, (40, 5)), torch.randint(3, (40, 5))
    counts = [code_counts(tokens, 16) for tokens in (before, after)]
    found = usage_difference(*counts)
    both = [usage(side.sum(0).long()) for side in counts]
    assert found.entropy.value == pytest.approx(both[1].entropy - both[0].entropy, abs=1e-6)
    assert found.coverage.value == pytest.approx((3 - 8) / 16)
    assert found.entropy.low < found.entropy.value < found.entropy.high < 0
    assert found.entropy.verdict == "down" and found.entropy.count == 40


def test_pairs_that_are_the_same_differ_by_nothing_for_sure() -> None:
    counts = code_counts(torch.randint(8, (20, 5)), 8)
    same = usage_difference(counts, counts)
    assert (same.entropy.low, same.entropy.value, same.entropy.high) == (0, 0, 0) and same.entropy.verdict == "open"
    apart = usage_difference(counts, counts, is_paired=False)
    assert apart.entropy.low < 0 < apart.entropy.high  # not pairs: they might differ
    with pytest.raises(ValueError, match="20 images against 19"):
        usage_difference(counts, counts[1:])


def test_noise_is_called_noise() -> None:
    """Two sets of one distribution: the interval should hold 0 about 95 times in 100."""
    generator, held = torch.Generator().manual_seed(3), 0
    for i in range(100):
        both = [code_counts(torch.randint(12, (30, 6), generator=generator), 12) for _ in range(2)]
        found = usage_difference(*both, seed=i).entropy
        held += found.low <= 0 <= found.high
    assert held >= 88


@pytest.mark.parametrize(
    ("stage", "low", "high", "words"),
    [
        ("coarse", 0.1, 0.3, "In the paper coarse entropy rises; that holds here: +0.200 nats"),
        ("coarse", -0.3, -0.1, "that does not hold here: it is the other way round"),
        ("coarse", -0.1, 0.3, "that can be neither confirmed nor ruled out here"),
        ("fine", -0.3, -0.1, "In the paper fine entropy falls; that holds here: −0.200 nats"),
        ("fine", 0.1, 0.3, "it is the other way round"),
        ("coarse", 1e-9, 1e-9, "coarse entropy rises; nothing changes here: 0.000 nats"),  # rounding is no rise
    ],
)
def test_the_papers_direction_is_one_sentence(stage: str, low: float, high: float, words: str) -> None:
    said = direction(stage, Interval((low + high) / 2, low, high, 10), "classes")
    assert words in said and "n = 10 classes)." in said and set(EXPECTED) == {"coarse", "mid", "fine"}


def test_the_bias_of_few_images_is_taken_from_the_interval_not_added() -> None:
    """Images drawn again are fewer kinds, so their entropy is lower: of few much more than of many. With 5 images
    before and 200 after, a difference drawn again is too high; the middle of 2θ - θ* is below the value."""
    generator = torch.Generator().manual_seed(0)
    few, many = (code_counts(torch.randint(40, (n, 6), generator=generator), 40) for n in (5, 200))
    found = usage_difference(few, many, is_paired=False)
    for interval in (found.entropy, found.coverage):
        assert (interval.low + interval.high) / 2 < interval.value
