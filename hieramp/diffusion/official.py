"""The official DiT-XL/2 and the autoencoder of Stable Diffusion, as `diffusers` has them, behind our interface.

`diffusers` is an optional extra (requirements-diffusion.txt); this module needs it only to read weights.
DiT's weights are for non-commercial use (CC-BY-NC 4.0).
"""

import os
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hieramp.diffusion.levels import NoiseLevel, alphas_bar, ddpm_levels
from hieramp.diffusion.model import DiffusionModel
from hieramp.diffusion.sampler import Prediction, Watch
from hieramp.errors import UserError

OFFICIAL = {"dit-xl-2-256": "facebook/DiT-XL-2-256", "dit-xl-2-512": "facebook/DiT-XL-2-512"}
REQUIREMENTS = "requirements-diffusion.txt"


class DDPMTransformer:
    """A `DiTTransformer2DModel` that predicts ε under DDPM's schedule; a learned variance is not used.

    All channels are guided (the authors' code guides three of four, so that their figures can be reproduced exactly).
    """

    def __init__(self, transformer: Any) -> None:
        """Takes the transformer with its diffusers `config`."""
        self.transformer, self.config = transformer.eval(), transformer.config
        self.alpha_bar = alphas_bar()
        # hooks that stay, and look at what the thread in hand wants: threads may share a model
        self.wanted = threading.local()
        for index, block in enumerate(transformer.transformer_blocks):
            block.attn1.register_forward_hook(partial(self._amplified, index))
            block.register_forward_pre_hook(partial(self._seen, index))

    def _amplified(self, index: int, _module: nn.Module, _given: object, attended_BTD: Tensor) -> Tensor | None:
        factors: Mapping[int, Tensor] = getattr(self.wanted, "factors", None) or {}
        return attended_BTD * factors[index][..., None].to(attended_BTD.dtype) if index in factors else None

    def _seen(self, index: int, _module: nn.Module, given: tuple[Tensor, ...]) -> None:
        watch: Watch | None = getattr(self.wanted, "watch", None)
        if watch is not None:
            watch(index, given[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.config.in_channels, self.config.sample_size, self.config.sample_size

    @property
    def token_side(self) -> int:
        return self.config.sample_size // self.config.patch_size

    @property
    def num_classes(self) -> int:
        return self.config.num_embeds_ada_norm

    @property
    def null_label(self) -> int:
        return self.num_classes

    @property
    def depth(self) -> int:
        return self.config.num_layers

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.transformer.parameters()).dtype

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "DDPMTransformer":
        self.transformer.to(device, dtype)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        return self.transformer.state_dict()

    def levels(self, steps: int) -> list[NoiseLevel]:
        return ddpm_levels(steps, self.alpha_bar)

    def predict(
        self,
        z_BCHW: Tensor,
        level: NoiseLevel,
        labels_B: Tensor,
        factors: Mapping[int, Tensor] | None = None,
        watch: Watch | None = None,
    ) -> Prediction:
        """x0 = (z - s·ε) / a."""
        times_B = torch.full((len(z_BCHW),), int(level.time), device=z_BCHW.device)
        self.wanted.factors, self.wanted.watch = factors, watch
        try:
            out = self.transformer(z_BCHW.to(self.dtype), timestep=times_B, class_labels=labels_B).sample
        finally:
            self.wanted.factors = self.wanted.watch = None
        eps = out[:, : z_BCHW.shape[1]].float()
        return Prediction((z_BCHW - level.noise * eps) / level.signal, eps)


class KLLatents:
    """The latents of an `AutoencoderKL`, times its scaling factor."""

    def __init__(self, vae: Any, side: int) -> None:
        """`side`: of the latents in use."""
        self.vae, self.side = vae.eval().requires_grad_(False), side
        self.factor: float = vae.config.scaling_factor

    @property
    def image_size(self) -> int:
        return self.side * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def to(self, device: torch.device | str) -> "KLLatents":
        self.vae.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        return self.vae.state_dict()

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """The mean of what the encoder gives."""
        return self.vae.encode(images_BCHW * 2 - 1).latent_dist.mode() * self.factor

    def decode(self, z_BCHW: Tensor) -> Tensor:
        return (self.vae.decode(z_BCHW / self.factor).sample / 2 + 0.5).clamp(0, 1)


def from_diffusers(
    transformer: Any, vae: Any, class_names: tuple[str, ...] = (), name: str = "dit", wnids: tuple[str, ...] = ()
) -> DiffusionModel:
    """A model of a diffusers `DiTTransformer2DModel` and `AutoencoderKL`; classes without a name have their number.

    Raises:
        ValueError: the two, or the names, do not fit together.
    """
    denoiser = DDPMTransformer(transformer)
    if vae.config.latent_channels != denoiser.shape[0]:
        channels = f"{denoiser.shape[0]} channels, the autoencoder's {vae.config.latent_channels}"
        raise UserError(f"the transformer's latents have {channels}: take its own")
    names = class_names or tuple(map(str, range(denoiser.num_classes)))
    if len(names) != denoiser.num_classes:
        raise UserError(f"{len(names)} class names are given; the transformer has {denoiser.num_classes} classes")
    return DiffusionModel(KLLatents(vae, denoiser.shape[1]), denoiser, names, name=name, wnids=wnids)


def load_official(name: str, class_names: tuple[str, ...], wnids: tuple[str, ...]) -> DiffusionModel:
    """ "dit-xl-2-256" or "dit-xl-2-512", from HIERAMP_HOME, the Hub's cache, or the Hub itself.

    Raises:
        ValueError: diffusers is not installed.
        FileNotFoundError: the weights are neither here nor to be had; says where to put them.
    """
    try:
        from diffusers import AutoencoderKL, DiTTransformer2DModel
    except ImportError as error:
        raise UserError(f"{name} is read by diffusers: pip install -r {REQUIREMENTS}") from error
    repository = OFFICIAL[name]
    home = Path(os.environ.get("HIERAMP_HOME", Path.home() / ".cache" / "hieramp"))
    here = home / repository.rpartition("/")[2]
    source = str(here) if here.is_dir() else repository
    try:
        transformer = DiTTransformer2DModel.from_pretrained(source, subfolder="transformer")
        vae = AutoencoderKL.from_pretrained(source, subfolder="vae")
    except OSError as error:
        raise FileNotFoundError(
            f"{name} is not here and cannot be fetched: download the folders transformer and vae of "
            f"https://huggingface.co/{repository} and put them into {here}"
        ) from error
    return from_diffusers(transformer, vae, class_names, name, wnids)
