"""Our networks against what the authors' code gave with the same stand-in weights (tests/golden)."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import weights

import hieramp
from hieramp.config import VARConfig, VQVAEConfig
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

STORED = np.load(Path(__file__).parent / "golden" / "tiny.npz")
CONFIG = json.loads(str(STORED["config"]).replace("'", '"').replace("False", "false").replace("True", "true"))
SIDES = tuple(CONFIG["patch_nums"])
VAE = VQVAEConfig(sides=SIDES, num_codes=CONFIG["V"], code_dim=CONFIG["Cvae"], channels=CONFIG["ch"])
TRANSFORMER = VARConfig(
    sides=SIDES,
    num_codes=CONFIG["V"],
    code_dim=CONFIG["Cvae"],
    num_classes=CONFIG["num_classes"],
    depth=CONFIG["depth"],
    width=CONFIG["width"],
    num_heads=CONFIG["heads"],
)
ALL_SCALES = tuple(range(len(SIDES)))
AMPLIFIED = hieramp.Amplification(*[(CONFIG["rho"], CONFIG["beta"])] * 3, blocks=(CONFIG["layer"],))


def filled(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Stand-in weights for every key, and the buffers that official files carry as well."""
    state = {
        key: torch.from_numpy(np.asarray(weights.tensor(key, tuple(value.shape), CONFIG["seed"])))
        for key, value in module.state_dict().items()
    }
    if isinstance(module, VAR):
        state["lvl_1L"] = torch.zeros(1, module.scales.num_tokens, dtype=torch.long)
        state["attn_bias_for_masking"] = torch.zeros(1)
        state["blocks.0.attn.zero_k_bias"] = torch.zeros(module.config.width)
    else:
        state["quantize.ema_vocab_hit_SV"] = torch.zeros(len(SIDES), CONFIG["V"])
    return state


@pytest.fixture(scope="module")
def plain() -> hieramp.Model:
    return hieramp.from_official(filled(VQVAE(VAE)), filled(VAR(TRANSFORMER)), sides=SIDES)


@pytest.fixture(scope="module")
def with_tokens() -> hieramp.Model:
    state = filled(VAR(replace(TRANSFORMER, class_token_scales=ALL_SCALES)))
    return hieramp.from_official(filled(VQVAE(VAE)), {"trainer": {"var_wo_ddp": state}}, sides=SIDES)


def close(ours: torch.Tensor, key: str, tolerance: float = 1e-3) -> bool:
    return float(np.abs(ours.detach().double().numpy() - STORED[key]).max()) < tolerance


def test_vqvae(plain: hieramp.Model) -> None:
    tokens = plain.vqvae.encode(torch.from_numpy(weights.image(2, 128, CONFIG["seed"] + 1)))
    for scale, idx_BL in enumerate(tokens):
        assert np.array_equal(idx_BL.numpy(), STORED[f"vae.tokens.{scale}"])
    assert close(plain.vqvae.to_images(plain.vqvae.embed(tokens)) * 2 - 1, "vae.reconstruction")


def test_teacher_forcing(plain: hieramp.Model, with_tokens: hieramp.Model) -> None:
    tokens = [torch.from_numpy(STORED[f"vae.tokens.{s}"]).long() for s in ALL_SCALES]
    inputs, labels = plain.vqvae.teacher_input(tokens), torch.from_numpy(STORED["labels"])
    assert close(inputs, "var.input")
    assert close(plain.var(labels, inputs).logits_BLV, "var.logits")
    result = with_tokens.var(labels, inputs)
    assert close(result.logits_BLV, "cls.logits") and close(result.class_logits_BSK, "cls.class_logits")


@pytest.mark.parametrize("name", ["baseline", "tokens_only", "amplified"])
def test_generation(name: str, plain: hieramp.Model, with_tokens: hieramp.Model) -> None:
    model = plain if name == "baseline" else with_tokens
    amplification = AMPLIFIED if name == "amplified" else None
    drawing = model.generate(STORED["labels"], None, amplification, guidance=CONFIG["cfg_scale"], top_k=1, top_p=0)
    for scale, idx_BL in enumerate(drawing.tokens):
        assert np.array_equal(idx_BL.numpy(), STORED[f"{name}.tokens.{scale}"])
        if name != "baseline":
            ours = drawing.saliency[scale].flatten(1)
            stored = STORED[f"{name}.saliency.{scale}"][: len(ours)]
            assert np.abs(ours.numpy() - stored).max() < 1e-3
    assert close(drawing.images, f"{name}.image")


@pytest.mark.parametrize("change", [{"shared_adaln": True}, {"l2_attention": False}, {"depth": 5}])
def test_other_official_variants_are_recognised(change: dict) -> None:
    config = replace(TRANSFORMER, **change)
    model = hieramp.from_official(filled(VQVAE(VAE)), filled(VAR(config)), sides=SIDES)
    assert model.var.config == config
    assert torch.isfinite(model.generate([1], [0]).images).all()


def test_the_temperature_of_attention_ends_at_100() -> None:
    """As in the authors' code: an exponent learned beyond log 100 counts as log 100."""
    attention = VAR(TRANSFORMER).blocks[0].attn
    attention.scale_mul_1H11.data.fill_(9.0)
    gain_2H1 = attention.qkv_params().gain_2H1
    assert gain_2H1 is not None and torch.allclose(gain_2H1[0], torch.tensor(100.0)) and (gain_2H1[1] == 1).all()


@pytest.mark.parametrize("depth", [16, 20, 24, 30])
def test_every_official_depth_has_its_sizes(depth: int) -> None:
    """Built without memory: shapes alone, as in var_d16 … var_d30."""
    with torch.device("meta"):
        var = VAR(VARConfig(depth=depth, width=64 * depth, num_heads=depth)).state_dict()
        vae = VQVAE(VQVAEConfig()).state_dict()
    from hieramp import official

    assert official._var_config(var, VARConfig().sides).width == 64 * depth
    assert official._vqvae_config(vae, VQVAEConfig().sides) == VQVAEConfig()


def test_what_does_not_fit_is_told_in_a_sentence() -> None:
    vae, var = filled(VQVAE(VAE)), filled(VAR(TRANSFORMER))
    with pytest.raises(ValueError, match="no tensor 'word_embed.weight'"):
        hieramp.from_official(vae, vae, sides=SIDES)
    with pytest.raises(ValueError, match="155 positions"):
        hieramp.from_official(vae, var, sides=(1, 2, 3))
    with pytest.raises(ValueError, match="missing or unknown"):
        hieramp.from_official(vae, {k: v for k, v in var.items() if k != "head.bias"}, sides=SIDES)
