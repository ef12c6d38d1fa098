"""`hieramp.load`: a model by name, from a folder or from the official checkpoints."""

import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from timm.data import ImageNetInfo
from torch import Tensor

from hieramp.checkpoints import (
    CONDITIONS,
    DEFAULT_MODEL,
    class_token_part,
    class_token_variants,
    load_part,
    load_strictly,
    model_folder,
    read_config,
    read_safetensors,
    shipped,
)
from hieramp.config import DiTConfig, VARConfig, VQVAEConfig, from_json
from hieramp.devices import device_of
from hieramp.diffusion.dit import DiT
from hieramp.diffusion.latents import VQLatents, basis_of
from hieramp.diffusion.model import DiffusionModel
from hieramp.diffusion.official import OFFICIAL as OFFICIAL_DITS
from hieramp.diffusion.official import load_official as load_official_dit
from hieramp.generation.model import Model
from hieramp.official import from_official
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

OFFICIAL = ("var-d16", "var-d20", "var-d24", "var-d30")
HUB_REPOSITORY = "FoundationVision/var"
HUB_VQVAE = "vae_ch160v4096z32.pth"


def load(
    model: str | Path = DEFAULT_MODEL,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    var_checkpoint: str | Path | None = None,
    class_tokens: str | Path | None = None,
    kind: Literal["var", "dit"] | None = None,
) -> Model:
    """Load a model: one that ships ("cifar10"; any folder in assets/ by its name), a model folder, "var-d16",
    "var-d20", "var-d24", "var-d30", or, with diffusers installed, "dit-xl-2-256", "dit-xl-2-512".

    `var_checkpoint` replaces the transformer's weights (an HierAmp fine-tune, .pth or .safetensors);
    `class_tokens` are those to put on top of the transformer: "dropped" or "kept" for the folder's own by the
    condition they were trained with, a class_tokens-….safetensors, or a folder that holds some. None takes the
    folder's default.
    `device` None takes a GPU where there is one. `kind` says which generator of a folder is meant that has two, a VAR
    and a diffusion transformer; None is the one that there is, or the VAR. With a diffusion transformer the result is a
    `DiffusionModel`.

    Raises:
        ValueError: an unknown name, a damaged or foreign file, a device that is not there.
        FileNotFoundError: an official checkpoint that is neither cached nor to be had; says where to put it.
    """
    name, target = str(model), device_of(device)
    if name in OFFICIAL_DITS:
        info = ImageNetInfo()
        wnids = tuple(info.label_names())
        names = tuple(info.index_to_description(i) for i in range(len(wnids)))
        return load_official_dit(name, names, wnids).to(target, dtype)  # type: ignore[return-value]
    if name in OFFICIAL:
        loaded = _load_official(name, var_checkpoint)
    else:
        folder = model_folder(name)
        if kind == "dit" or (kind is None and _has_only_dit(folder)):
            if var_checkpoint or class_tokens:
                raise ValueError(
                    f"{name} is a diffusion transformer, which takes neither var_checkpoint nor class_tokens"
                )
            return load_dit(folder).to(target, dtype)  # type: ignore[return-value]
        loaded = _load_folder(folder, var_checkpoint, class_tokens)
    return loaded.to(target, dtype)


def _has_only_dit(folder: Path) -> bool:
    config = read_config(folder) if folder.is_dir() else {}
    return "dit" in config and "var" not in config


def load_dit(folder: Path) -> DiffusionModel:
    """The diffusion transformer of a model folder, with the VQ-VAE whose latents it draws.

    Raises:
        ValueError: there is none, or the VQ-VAE is not the one that it was trained with.
    """
    config = read_config(folder)
    for part in ("vqvae", "dit"):
        if part not in config:
            raise ValueError(f"{folder} has no {part} yet: train it with python -m hieramp train {part} --out {folder}")
    vqvae = VQVAE(from_json(VQVAEConfig, config["vqvae"]))
    load_strictly(vqvae, load_part(folder, "vqvae"), f"the VQ-VAE in {folder}")
    basis = basis_of(load_part(folder, "latents"))
    basis.check_belongs(vqvae, f"the DiT in {folder}")
    dit = DiT(from_json(DiTConfig, config["dit"]))
    load_strictly(dit, load_part(folder, "dit"), f"the DiT in {folder}")
    names, wnids = tuple(config["class_names"]), tuple(config.get("wnids", ()))
    latents = VQLatents(vqvae.eval(), basis)
    return DiffusionModel(latents, dit.eval(), names, name=folder.resolve().name, folder=folder, wnids=wnids)


def _load_folder(folder: Path, var_checkpoint: str | Path | None, class_tokens: str | Path | None) -> Model:
    if not folder.is_dir():
        known = ", ".join([*shipped(), *OFFICIAL, *OFFICIAL_DITS])
        raise ValueError(f"there is no model {str(folder)!r}: give a model folder, or one of {known}")
    config = read_config(folder)
    for part in ("vqvae", "var"):
        if part not in config:
            raise ValueError(f"{folder} has no {part} yet: train it with python -m hieramp train {part} --out {folder}")
    vqvae = VQVAE(from_json(VQVAEConfig, config["vqvae"]))
    load_strictly(vqvae, load_part(folder, "vqvae"), f"the VQ-VAE in {folder}")
    var_config = from_json(VARConfig, config["var"])
    state = read_checkpoint(Path(var_checkpoint)) if var_checkpoint else load_part(folder, "var")
    tokens, read_only = _class_tokens(folder, class_tokens)
    if tokens:
        var_config = replace(var_config, read_only_class_tokens=read_only)
    scales = sorted(int(key.split(".")[1]) for key in {**state, **tokens} if key.startswith("cls_tokens."))
    var = VAR(replace(var_config, class_token_scales=tuple(scales)))
    load_strictly(var, {**state, **tokens}, f"the VAR in {folder}")
    names, wnids = tuple(config["class_names"]), tuple(config.get("wnids", ()))
    return Model(vqvae.eval(), var.eval(), names, name=folder.resolve().name, folder=folder, wnids=wnids)


def _class_tokens(folder: Path, wanted: str | Path | None) -> tuple[dict[str, Tensor], bool]:
    """Class tokens to put on a folder's transformer, and whether they are only read; nothing where it has none."""
    if wanted is None or str(wanted) in CONDITIONS:
        variants = class_token_variants(folder)
        condition = next(iter(variants), "") if wanted is None else str(wanted)
        if condition in variants:
            return load_part(folder, class_token_part(folder, condition)), variants[condition]["read_only"]
        if wanted is None:
            return {}, False
        raise ValueError(
            f"{folder} has no class tokens with the condition {condition} (it has: {', '.join(variants) or 'none'}): "
            f"train them with python -m hieramp train class-tokens --condition {condition} --out {folder}"
        )
    path = Path(wanted)
    if path.is_dir():
        found = _class_tokens(path, None)
        if not found[0]:
            raise ValueError(f"{path} has no class tokens: give a folder that has, or a class_tokens-….safetensors")
        return found
    if not path.is_file():
        raise ValueError(
            f"{path} does not exist: give dropped, kept, a class_tokens-….safetensors or the folder that holds one"
        )
    told = class_token_variants(path.parent) if (path.parent / "config.json").is_file() else {}
    about = told.get(path.stem.removeprefix("class_tokens-")) or next(iter(told.values()), {})
    return read_safetensors(path), bool(about.get("read_only"))


def _load_official(name: str, var_checkpoint: str | Path | None) -> Model:
    var_file = Path(var_checkpoint) if var_checkpoint else hub_file(f"{name.replace('-', '_')}.pth")
    vae_state = read_checkpoint(hub_file(HUB_VQVAE))
    loaded = from_official(vae_state, read_checkpoint(var_file))
    if loaded.name != name:
        raise ValueError(f"{var_file} is a {loaded.name}, not a {name}: give --model {loaded.name}")
    info = ImageNetInfo()
    loaded.wnids = tuple(info.label_names())
    loaded.class_names = tuple(info.index_to_description(i) for i in range(len(loaded.wnids)))
    return loaded


def hub_file(filename: str) -> Path:
    """A file of the official repository: from HIERAMP_HOME, the Hub's cache, or the Hub itself."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    home = Path(os.environ.get("HIERAMP_HOME", Path.home() / ".cache" / "hieramp"))
    if (home / filename).is_file():
        return home / filename
    try:
        return Path(hf_hub_download(HUB_REPOSITORY, filename))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(
            f"{filename} is not here and cannot be fetched: download it from "
            f"https://huggingface.co/{HUB_REPOSITORY} and put it at {home / filename}"
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Tensors of a .safetensors file, or of a pickle with nothing but data in it (weights_only).

    Raises:
        ValueError: the file is missing, truncated, foreign, or wants to run code.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the path of a checkpoint file")
    if path.suffix == ".safetensors":
        return dict(read_safetensors(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is not a checkpoint, or holds more than tensors; it was not opened") from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is truncated or not a PyTorch checkpoint") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state
