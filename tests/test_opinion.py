"""A classifier's opinion, on judges whose answer is known."""

import pytest
import torch
from torch import Tensor

from hieramp.analysis.opinion import occlusion, rank_correlation, verdicts
from hieramp.errors import UserError


def corner_judge(images: Tensor) -> Tensor:
    """Knows class 1 by the detail in the upper left eighth of a picture, and by nothing else."""
    corner = images[:, :, :8, :8]
    detail = (corner - corner.mean((2, 3), keepdim=True)).square().mean((1, 2, 3))
    return torch.stack([torch.zeros_like(detail), 40 * detail], dim=1)


def test_the_map_finds_the_only_place_that_matters() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 32, 32)
    for side in (4, 8):
        found = occlusion(corner_judge, images, torch.tensor([1, 0]), side)
        assert found.shape == (2, side * side)
        inside = torch.zeros(side, side, dtype=torch.bool)
        inside[: side // 4, : side // 4] = True
        assert (found[0][inside.flatten()] > 0.01).all() and (found[1][inside.flatten()] < -0.01).all()
        assert found[:, ~inside.flatten()].abs().max() < 1e-5


def test_verdicts_are_probabilities() -> None:
    p_BK = verdicts(corner_judge, torch.rand(3, 3, 32, 32))
    torch.testing.assert_close(p_BK.sum(1), torch.ones(3))
    assert (p_BK[:, 1] > 0.5).all()


def test_rank_correlation_is_spearmans() -> None:
    one = torch.tensor([1.0, 2.0, 2.0, 9.0])
    assert rank_correlation(one, one.exp()) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    # by hand: ranks 0, 1.5, 1.5, 3 against 1, 0, 2, 3
    assert rank_correlation(one, torch.tensor([2.0, 1.0, 3.0, 4.0])) == pytest.approx(3 / (4.5 * 5) ** 0.5)
    assert rank_correlation(one, torch.ones(4)) is None
    with pytest.raises(UserError, match="maps of 4 and 9 positions"):
        rank_correlation(one, torch.ones(9))


def test_labels_are_counted() -> None:
    with pytest.raises(UserError, match="1 labels for 2 pictures"):
        occlusion(corner_judge, torch.rand(2, 3, 32, 32), torch.tensor([1]), 4)
