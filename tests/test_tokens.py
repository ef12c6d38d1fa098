"""Counting tokens, with numbers a person can do by hand."""

import math

import pytest
import torch

from hieramp.analysis.tokens import CodeCounts, Usage, changed_tokens, share_that_rose, usage
from hieramp.scales import Scales


@pytest.mark.parametrize(
    ("counts", "entropy", "coverage"),
    [
        ([1, 1, 1, 1], math.log(4), 1.0),
        ([4, 0, 0, 0], 0.0, 0.25),
        ([2, 1, 1, 0], 1.5 * math.log(2), 0.75),
    ],
)
def test_entropy_and_coverage(counts: list[int], entropy: float, coverage: float) -> None:
    found = usage(torch.tensor(counts))
    assert found.entropy == pytest.approx(entropy, abs=1e-12)
    assert (found.coverage, found.num_tokens) == (coverage, 4)


def test_nothing_counted_is_said() -> None:
    with pytest.raises(ValueError, match="no token was counted"):
        usage(torch.zeros(4, dtype=torch.int64))


def test_stages_count_their_scales_together_and_batches_add_up() -> None:
    counts = CodeCounts(Scales((1, 2, 3, 4, 6)), num_codes=4)  # coarse: scale 1; mid: 2; fine: 3 and 4
    for _ in range(2):
        for scale in range(5):
            tokens = torch.full((1, counts.scales.sides[scale] ** 2), scale % 4)
            counts.add(scale, tokens)
    assert [u.num_tokens for u in counts.per_scale()] == [2, 8, 18, 32, 72]
    assert all(u.entropy == 0 and u.coverage == 0.25 for u in counts.per_scale())
    fine = counts.per_stage()["fine"]
    p = 32 / 104
    assert fine.entropy == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    assert (fine.coverage, fine.num_tokens) == (0.5, 104)


def test_changed_tokens() -> None:
    assert changed_tokens(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 0], [3, 4]])).tolist() == [
        [False, True],
        [False, False],
    ]


def test_share_of_classes_that_rose() -> None:
    before = [Usage(1.0, 0.5, 8)] * 4
    after = [Usage(1.5, 0.5, 8), Usage(0.5, 0.25, 8), Usage(1.2, 0.75, 8), Usage(1.0, 0.5, 8)]
    risen = share_that_rose(before, after)
    assert (risen.entropy, risen.coverage, risen.num_classes) == (0.5, 0.25, 4)
    with pytest.raises(ValueError, match="4 classes against 3"):
        share_that_rose(before, after[:3])
