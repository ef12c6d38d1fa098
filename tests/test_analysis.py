"""Figures of merit against numbers known beforehand."""

import pytest
import torch

import hieramp
from hieramp.analysis.autoencoder import encode, psnr, psnr_per_scale, token_figures
from hieramp.analysis.faithfulness import delete
from hieramp.analysis.fidelity import frechet_distance


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


def test_token_figures_cover_every_scale(model: hieramp.Model) -> None:
    torch.manual_seed(0)
    images, labels = (torch.rand(7, 3, 32, 32) * 255).byte(), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    figures = token_figures(model, images, labels)
    assert [f.scale for f in figures] == list(range(6))
    assert all(f.loss > 0 and 0 <= f.accuracy <= 1 for f in figures)
