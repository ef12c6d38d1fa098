"""The adapter for official VAR and HierAmp checkpoints: sizes read off the tensors, keys renamed in one place.

Our parameter names are the official ones, so what is left is unwrapping and dropping buffers.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hieramp.checkpoints import load_strictly
from hieramp.config import VARConfig, VQVAEConfig
from hieramp.errors import UserError
from hieramp.generation.model import Model
from hieramp.pickles import unwrapped
from hieramp.scales import OFFICIAL_SIDES, Scales
from hieramp.var.class_tokens import class_token_sizes
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

State = Mapping[str, Tensor]
SIDES_512 = (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)  # of var-d36, which draws 512 px
HEAD_DIM = 64  # official widths are 64·heads
_BUFFERS = ("lvl_1L", "attn_bias_for_masking", "spatial_idx", "attn_bias_cls", "cls_positions")


def from_official(vae_state: State, var_state: State, sides: tuple[int, ...] | None = None) -> Model:
    """A model from the official state dicts; every size but the sides is read off the tensors.

    Takes shared-AdaLN and non-normalised-attention checkpoints, any depth, HierAmp fine-tunes, and weights inside of
    what trainers save (`unwrapped`). `sides` None takes the sides of the authors' 256 px or 512 px models, whichever
    have as many positions.

    Raises:
        UserError: a tensor is missing, foreign or of another shape, or the sides do not fit.
    """
    vae_state, var_state = _vae_tensors(vae_state), _var_tensors(var_state)
    sides = _sides(var_state) if sides is None else sides
    try:
        vae_config = _vqvae_config(vae_state, tuple(sides))
        var_config = _var_config(var_state, tuple(sides))
    except (KeyError, IndexError) as error:
        found = ", ".join(list(var_state)[:3]) or "no tensors at all"
        raise UserError(f"not an official VAR checkpoint: it has no tensor {error}; it has {found}, …") from error
    ours, theirs = ((c.num_codes, c.code_dim) for c in (var_config, vae_config))
    if ours != theirs:
        raise UserError(f"the VAR was trained on (codes, width) {ours}, this VQ-VAE has {theirs}: take its own")
    length, needed = var_state["pos_1LC"].shape[1], Scales(tuple(sides)).num_tokens
    if length != needed:
        raise UserError(f"the VAR has {length} positions, sides {tuple(sides)} make {needed}: give its own sides")
    vqvae, var = VQVAE(vae_config), VAR(var_config)
    load_strictly(vqvae, vae_state, "the VQ-VAE checkpoint")
    load_strictly(var, var_state, "the VAR checkpoint")
    names = tuple(str(i) for i in range(var_config.num_classes))
    return Model(vqvae.eval(), var.eval(), names, name=f"var-d{var_config.depth}")


def _sides(var_state: State) -> tuple[int, ...]:
    """The authors' sides that make as many positions as the checkpoint has; those of 256 px where none do."""
    length = var_state["pos_1LC"].shape[1] if "pos_1LC" in var_state else 0
    return next((sides for sides in (OFFICIAL_SIDES, SIDES_512) if Scales(sides).num_tokens == length), OFFICIAL_SIDES)


def _vae_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {k: v for k, v in unwrapped(state).items() if not k.endswith("ema_vocab_hit_SV")}


def _var_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Without the buffers, which follow from the sizes."""
    dropped = (*_BUFFERS, "zero_k_bias")
    return {key: value for key, value in unwrapped(state).items() if key.rsplit(".", 1)[-1] not in dropped}


def _count(state: State, pattern: str) -> int:
    """How many different numbers stand in the first group of `pattern` over all keys."""
    return len({match[1] for key in state if (match := re.match(pattern, key))})


def _vqvae_config(state: State, sides: tuple[int, ...]) -> VQVAEConfig:
    num_codes, code_dim = state["quantize.embedding.weight"].shape
    channels = state["encoder.conv_in.weight"].shape[0]
    num_levels = _count(state, r"encoder\.down\.(\d+)\.")
    widths = [state[f"encoder.down.{i}.block.0.conv1.weight"].shape[0] for i in range(num_levels)]
    return VQVAEConfig(
        sides=sides,
        num_codes=num_codes,
        code_dim=code_dim,
        channels=channels,
        multipliers=tuple(width // channels for width in widths),
        num_res_blocks=_count(state, r"encoder\.down\.0\.block\.(\d+)\."),
        attention="encoder.mid.attn_1.qkv.weight" in state,
        num_phi=_count(state, r"quantize\.quant_resi\.qresi_ls\.(\d+)\."),
    )


def _var_config(state: State, sides: tuple[int, ...]) -> VARConfig:
    width, code_dim = state["word_embed.weight"].shape
    l2 = "blocks.0.attn.scale_mul_1H11" in state
    return VARConfig(
        sides=sides,
        num_codes=state["head.weight"].shape[0],
        code_dim=code_dim,
        num_classes=state["class_emb.weight"].shape[0] - 1,
        depth=_count(state, r"blocks\.(\d+)\."),
        width=width,
        num_heads=state["blocks.0.attn.scale_mul_1H11"].shape[1] if l2 else width // HEAD_DIM,
        ffn_ratio=state["blocks.0.ffn.fc1.weight"].shape[0] / width,
        l2_attention=l2,
        shared_adaln="shared_ada_lin.1.weight" in state,
        **class_token_sizes(state),
    )
