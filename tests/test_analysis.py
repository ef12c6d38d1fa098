"""Figures of merit against numbers known beforehand."""

import pytest
import torch

import hieramp
from hieramp.analysis.autoencoder import encode, psnr, psnr_per_scale, token_figures
from hieramp.analysis.deletion import delete, deletion_test
from hieramp.analysis.fidelity import frechet_distance
from hieramp.classifier import Classifier
from hieramp.config import ClassifierConfig


def test_frechet_distance_of_known_gaussians() -> None:
    torch.manual_seed(0)
    features = torch.randn(4000, 3)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features, features + torch.tensor([3.0, 4.0, 0.0])) == pytest.approx(25, rel=1e-4)
    # tr(Σ + 4Σ - 2·2Σ) = tr(Σ) where one set is twice as wide
    spread = frechet_distance(features - features.mean(0), 2 * (features - features.mean(0)))
    assert spread == pytest.approx(features.var(0).sum().item(), rel=1e-4)


def test_psnr() -> None:
    flat = torch.zeros(1, 3, 8, 8)
    assert psnr(flat, flat + 0.1) == pytest.approx(20, abs=1e-3)


def test_psnr_after_each_scale(model: hieramp.Model) -> None:
    torch.manual_seed(0)
    images = (torch.rand(3, 3, 32, 32) * 255).byte()
    tokens = encode(model.vqvae, images)
    wanted = [
        psnr(model.vqvae.to_images(model.vqvae.embed(tokens[:count])), images / 255)
        for count in range(1, len(tokens) + 1)
    ]
    assert psnr_per_scale(model.vqvae, images) == pytest.approx(wanted, abs=1e-3)


def test_deleting_replaces_just_the_chosen_positions() -> None:
    torch.manual_seed(0)
    images = torch.rand(1, 3, 32, 32)
    gone = delete(images, torch.tensor([[True, False, False, False]]))
    assert torch.equal(gone[..., 16:, :], images[..., 16:, :]) and torch.equal(
        gone[..., :16, 16:], images[..., :16, 16:]
    )
    corner = gone[..., :16, :16]
    assert not torch.allclose(corner, images[..., :16, :16]) and corner.var() < images[..., :16, :16].var() / 5


class CornerJudge(Classifier):
    """Sure of class 1 as far as the upper left quarter still varies."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        detail = images_BCHW[..., :16, :16].var((1, 2, 3)) * 100
        return torch.stack([torch.zeros_like(detail), detail], 1)


def test_a_map_that_points_at_the_object_falls_faster(model: hieramp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def pointed(*args: object) -> tuple[torch.Tensor, ...]:
        maps = []
        for side in (1, 2, 3, 4, 6, 8):
            m = torch.full((20, side, side), 1e-3)
            m[:, : max(1, side // 2), : max(1, side // 2)] = 1
            maps.append(m.flatten(1))
        return tuple(maps)

    monkeypatch.setattr("hieramp.analysis.deletion.teacher_forced_saliency", pointed)
    torch.manual_seed(0)
    images = (torch.rand(20, 3, 32, 32) * 255).byte()
    judge = CornerJudge(ClassifierConfig(layers=(1, 1, 1, 1), channels=(8, 8, 8, 8), num_classes=4))
    results = deletion_test(model, judge, images, torch.ones(20, dtype=torch.long), rho=0.25, seed=0)
    assert [d.scale for d in results] == [1, 2, 3, 4, 5]
    assert all(d.gain > 0.05 for d in results if d.scale in (1, 3, 5))


def test_token_figures_cover_every_scale(model: hieramp.Model) -> None:
    torch.manual_seed(0)
    images, labels = (torch.rand(7, 3, 32, 32) * 255).byte(), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    figures = token_figures(model, images, labels)
    assert [f.scale for f in figures] == list(range(6))
    assert all(f.loss > 0 and 0 <= f.accuracy <= 1 for f in figures)
