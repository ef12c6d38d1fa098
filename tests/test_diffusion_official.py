"""The adapter to diffusers, against diffusers' own pipeline, with tiny random weights."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

import hieramp
from hieramp.amplification.settings import Amplification
from hieramp.diffusion.levels import alphas_bar
from hieramp.diffusion.model import DiffusionModel
from hieramp.diffusion.official import from_diffusers
from hieramp.diffusion.sampler import sample

diffusers = pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def pipeline():  # noqa: ANN201
    """A tiny DiT with learned variance, and a tiny autoencoder."""
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 3, "sample_size": 8, "patch_size": 2}
    transformer = diffusers.DiTTransformer2DModel(in_channels=4, out_channels=8, **sizes)
    for parameter in transformer.parameters():
        parameter.data.normal_(std=0.2)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 32), latent_channels=4, down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2, scaling_factor=0.18215,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False)
    made = diffusers.DiTPipeline(transformer.eval(), vae.eval(), scheduler)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def ours(pipeline) -> DiffusionModel:  # noqa: ANN001
    return from_diffusers(pipeline.transformer, pipeline.vae)


@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_our_sampler_gives_the_pipelines_latents_and_pictures(pipeline, ours: DiffusionModel, guidance: float) -> None:  # noqa: ANN001
    labels, generator = [3, 999], torch.Generator().manual_seed(5)
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    decoded: list[Tensor] = []
    before = pipeline.vae.decode
    pipeline.vae.decode = lambda z: decoded.append(z) or before(z)
    try:
        theirs = pipeline(labels, 1 + guidance, generator, num_inference_steps=20, output_type="pt").images
    finally:
        pipeline.vae.decode = before
    levels = ours.denoiser.levels(20)
    *_, last = sample(ours.denoiser, start, levels, torch.tensor(labels), guidance=guidance)
    latents = decoded[0] * pipeline.vae.config.scaling_factor
    assert latents.abs().mean() > 0.1
    assert float((last.after - latents).abs().max()) < 1e-4 * max(1.0, float(latents.abs().max()))
    with torch.no_grad():
        assert torch.allclose(ours.latents.decode(last.after), theirs, atol=1e-4)


def test_the_levels_are_the_schedulers(pipeline, ours: DiffusionModel) -> None:  # noqa: ANN001
    assert torch.allclose(torch.from_numpy(alphas_bar()).float(), pipeline.scheduler.alphas_cumprod, rtol=1e-4)
    pipeline.scheduler.set_timesteps(50)
    levels = ours.denoiser.levels(50)
    assert [level.time for level in levels[:-1]] == pipeline.scheduler.timesteps.tolist()
    assert all(level.t > following.t for level, following in pairwise(levels))


def test_the_attentions_output_is_amplified_before_the_gate(ours: DiffusionModel) -> None:
    denoiser = ours.denoiser
    z, level, labels = torch.randn(2, 4, 8, 8), denoiser.levels(10)[6], torch.tensor([1, 2])
    factor = torch.rand(2, 16)
    module = denoiser.transformer.transformer_blocks[1].attn1.to_out[0]  # type: ignore[attr-defined]
    plain, ours_out = denoiser.predict(z, level, labels), denoiser.predict(z, level, labels, {1: factor})
    handle = module.register_forward_hook(lambda *args: args[-1] * factor[..., None])
    by_hand = denoiser.predict(z, level, labels)
    handle.remove()
    assert torch.allclose(ours_out.eps, by_hand.eps, atol=1e-6) and not torch.allclose(ours_out.eps, plain.eps)
    seen: dict[int, torch.Tensor] = {}
    watched = denoiser.predict(z, level, labels, watch=lambda block, x: seen.update({block: x}))
    assert [x.shape[:2] for x in seen.values()] == [(2, 16)] * denoiser.depth
    assert torch.equal(watched.eps, plain.eps) and torch.equal(denoiser.predict(z, level, labels).eps, plain.eps)


def test_it_draws_and_is_amplified(ours: DiffusionModel) -> None:
    on = Amplification(fine=(0.25, 1.0))
    assert (ours.image_size, ours.denoiser.depth, ours.denoiser.token_side) == (16, 3, 4)
    *_, last = ours.steps([1, 2], [0, 0], [None, on], guidance=1.0, steps=4)
    assert last.image.shape == (2, 3, 16, 16) and [int(m.sum()) for m in last.amplified] == [0, 4]
    alone = ours.generate([1], [0], guidance=1.0, steps=4)
    assert torch.equal(alone.images[0], last.image[0])
    back = ours.latents.encode(last.image)
    assert back.shape == (2, 4, 8, 8)


def test_by_name_from_a_folder_and_offline(pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN001
    monkeypatch.setenv("HIERAMP_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"put them into .*DiT-XL-2-256"):
        hieramp.load("dit-xl-2-256", "cpu")
    for part in ("transformer", "vae"):
        getattr(pipeline, part).save_pretrained(tmp_path / "DiT-XL-2-256" / part)
    model = hieramp.load("dit-xl-2-256", "cpu")
    assert model.label_of("tench") == 0 and len(model.class_names) == 1000
    assert torch.isfinite(model.generate([0], [0], steps=2).images).all()


def test_what_does_not_fit_is_told(pipeline) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match="2 class names are given; the transformer has 1000"):
        from_diffusers(pipeline.transformer, pipeline.vae, ("a", "b"))
    other = diffusers.AutoencoderKL(block_out_channels=(32,), latent_channels=3)
    with pytest.raises(ValueError, match="4 channels, the autoencoder's 3"):
        from_diffusers(pipeline.transformer, other)
