"""The benchmark beside the authors' code, with a checkout of the same interface made of our own networks."""

import sys
from pathlib import Path

import pytest
from torch import nn

from benchmarks import reference
from hieramp.config import VARConfig, VQVAEConfig
from hieramp.vqvae.model import VQVAE

CHECKOUT = """
from torch import nn
from hieramp import SCHEDULES, Model
from hieramp.config import VARConfig, VQVAEConfig
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

class Theirs(VAR):
    def autoregressive_infer_cfg(self, B, label_B, cfg, top_k, top_p, amplify=False, amplify_layers=()):
        model = Model(self.boxed[0], self, ("",) * self.num_classes)
        return model.generate(label_B.tolist(), range(B), SCHEDULES["all"] if amplify else None, guidance=cfg).images

def build_vae_var(device, patch_nums, V, Cvae, ch, num_classes, depth, class_token_scales=()):
    nn.Linear.reset_parameters = lambda self: None
    vae = VQVAE(VQVAEConfig(patch_nums, V, Cvae, ch))
    var = Theirs(VARConfig(patch_nums, V, Cvae, num_classes, depth, 64 * depth, depth,
                           class_token_scales=class_token_scales))
    var.boxed, var.num_classes = (vae,), num_classes
    return vae.to(device), var.to(device)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text(CHECKOUT)
    return tmp_path


def test_all_take_their_turns(checkout: Path) -> None:
    reset, paths = nn.Linear.reset_parameters, list(sys.path)
    rows, rates = reference.measure(checkout, checkout, reference.SIZES["tiny"], "cpu", [1, 2], rounds=1)
    assert nn.Linear.reset_parameters is reset and sys.path == paths and "models" not in sys.modules
    keys = [("VAR", "base"), ("HierAmp", "+ class tokens"), ("HierAmp", "+ amplification")]
    keys += [("ours", variant) for variant in reference.VARIANTS]
    assert [(row.whose, row.variant) for row in rows] == keys * 2 and [row.batch for row in rows] == [1] * 6 + [2] * 6
    assert all(row.seconds > 0 and row.floor > 0 and row.num_bytes > 0 for row in rows)
    assert rates.operations > 0 and rates.num_bytes > 0
    assert len(reference.table(rows, rates).splitlines()) == 4 + len(rows)


def test_a_folder_without_their_code(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give a checkout"), reference.authors(tmp_path):
        pass


def test_the_floor_of_an_official_image() -> None:
    """By hand, var-d16: 12·1024²·16 weights, twice 680 tokens, 2 operations each; read in 2 bytes at ten scales."""
    costs = reference.transformer_cost(VARConfig(), 1, 2)
    operations, num_bytes = (sum(values) for values in zip(*costs, strict=True))
    linear = 12 * 1024**2 * 16
    assert linear * 2 * 1360 < operations < 1.2 * linear * 2 * 1360
    assert linear * 2 * 10 < num_bytes < 1.25 * linear * 2 * 10
    twice = reference.transformer_cost(VARConfig(), 2, 2)
    assert all(two[0] == 2 * one[0] and one[1] < two[1] < 2 * one[1] for one, two in zip(costs, twice, strict=True))
    tiny = VQVAE(VQVAEConfig(sides=(1, 2), num_codes=4, code_dim=4, channels=32, multipliers=(1,), num_res_blocks=1))
    assert reference.decoder_cost(tiny, 2)[0] == 2 * reference.decoder_cost(tiny, 1)[0] > 0
