"""`hieramp.load`: a model by name, from a folder or from the official checkpoints."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from hieramp.checkpoints import (
    CONDITIONS,
    DEFAULT_MODEL,
    DIT_TOKEN,
    built,
    class_token_part,
    class_token_variants,
    has_part,
    load_part,
    model_folder,
    read_config,
    read_safetensors,
    shipped,
)
from hieramp.config import DiTClassTokenConfig, DiTConfig, VARConfig, VQVAEConfig, from_json
from hieramp.data import described_classes, open_source
from hieramp.devices import resolve_device
from hieramp.diffusion.class_token import DiTClassToken
from hieramp.diffusion.dit import DiT
from hieramp.diffusion.latents import VQLatents, basis_of
from hieramp.diffusion.model import DiffusionModel
from hieramp.diffusion.official import OFFICIAL as OFFICIAL_DITS
from hieramp.diffusion.official import load_official as load_official_dit
from hieramp.errors import UserError
from hieramp.generation.model import Model
from hieramp.imagenet import WORDS
from hieramp.official import from_official
from hieramp.pickles import read_checkpoint, unwrapped
from hieramp.settings import defaults_in
from hieramp.var.class_tokens import class_token_sizes, is_class_token
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

OFFICIAL = ("var-d16", "var-d20", "var-d24", "var-d30", "var-d36")
HUB_REPOSITORY = "FoundationVision/var"
HUB_VQVAE = "vae_ch160v4096z32.pth"


@overload
def load(
    model: str | Path = ...,
    device: str | torch.device | None = ...,
    dtype: torch.dtype = ...,
    var_checkpoint: str | Path | None = ...,
    class_tokens: str | Path | None = ...,
    classes_from: str | Path | None = ...,
    cuda_graphs: bool = ...,
    kind: Literal["var"] | None = ...,  # of a folder that has a VAR
) -> Model: ...


@overload
def load(
    model: str | Path,
    device: str | torch.device | None = ...,
    dtype: torch.dtype = ...,
    *,
    kind: Literal["dit"],
) -> DiffusionModel: ...


def load(
    model: str | Path = DEFAULT_MODEL,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    var_checkpoint: str | Path | None = None,
    class_tokens: str | Path | None = None,
    classes_from: str | Path | None = None,
    cuda_graphs: bool = True,
    kind: Literal["var", "dit"] | None = None,
) -> Model | DiffusionModel:
    """Load a model: one that ships ("cifar10"; any folder in assets/ by its name), a model folder, "var-d16",
    "var-d20", "var-d24", "var-d30" (256 px), "var-d36" (512 px), or, with diffusers installed, "dit-xl-2-256",
    "dit-xl-2-512".

    `var_checkpoint` replaces the transformer's weights (an HierAmp fine-tune, .pth or .safetensors);
    `class_tokens` are those to put on top of the transformer: "dropped" or "kept" for the folder's own by the
    condition they were trained with, a class_tokens-….safetensors, or a folder that holds some. None takes the
    folder's default. `classes_from` names the classes of a VAR that was trained on others than ImageNet's: the image
    folder it was trained on, or a file with a list of names in label order (JSON, or a name a line).
    `device` None takes a GPU where there is one; with `cuda_graphs` the scales of a VAR are drawn there as CUDA
    graphs: the same images, several times faster where they are few.
    `kind` says which generator of a folder is meant that has two, a VAR and a diffusion transformer; None is the one
    that there is, or the VAR.

    Raises:
        UserError: an unknown name, a damaged or foreign file, a device that is not there.
        FileNotFoundError: an official checkpoint that is neither cached nor to be had; says where to put it.
    """
    name, target = str(model), resolve_device(device)
    if name in OFFICIAL_DITS:
        if kind == "var":
            raise UserError(f"{name} is a diffusion transformer: name a VAR here")
        named = described_classes(list(WORDS))
        return load_official_dit(name, tuple(named["class_names"]), tuple(named["wnids"])).to(target, dtype)
    if name in OFFICIAL:
        loaded = _load_official(name, var_checkpoint, classes_from)
        if class_tokens is not None:
            loaded = _with_class_tokens(loaded, class_tokens)
    else:
        folder = model_folder(name)
        if classes_from is not None:
            raise UserError(f"{name} names its classes itself: classes_from is for {', '.join(OFFICIAL)}")
        if kind == "dit" or (kind is None and _has_only_dit(folder)):
            if var_checkpoint or class_tokens:
                raise UserError(
                    f"{name} is a diffusion transformer, which takes neither var_checkpoint nor class_tokens"
                )
            return load_dit(folder).to(target, dtype)
        loaded = _load_folder(folder, var_checkpoint, class_tokens)
    return loaded.to(target, dtype, cuda_graphs)


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
            raise UserError(f"{folder} has no {part} yet: train it with python -m hieramp train {part} --out {folder}")
    sizes = from_json(VQVAEConfig, config["vqvae"])
    vqvae = built(lambda: VQVAE(sizes), load_part(folder, "vqvae"), f"the VQ-VAE in {folder}")
    basis = basis_of(load_part(folder, "latents"))
    basis.check_belongs(vqvae, f"the DiT in {folder}")
    dit_config = from_json(DiTConfig, config["dit"])
    dit = built(lambda: DiT(dit_config), load_part(folder, "dit"), f"the DiT in {folder}")
    names, wnids = tuple(config["class_names"]), tuple(config.get("wnids", ()))
    latents = VQLatents(vqvae.eval(), basis)
    defaults = defaults_in(config, "dit", str(folder / "config.json"))
    name = folder.resolve().name
    token = _dit_class_token(folder, config, dit_config)
    return DiffusionModel(
        latents, dit.eval(), names, name=name, folder=folder, wnids=wnids, defaults=defaults, class_token=token
    )


def _dit_class_token(folder: Path, config: dict[str, Any], dit: DiTConfig) -> DiTClassToken | None:
    if DIT_TOKEN not in config or not has_part(folder, DIT_TOKEN):
        return None
    sizes = from_json(DiTClassTokenConfig, config[DIT_TOKEN])
    if (sizes.width, sizes.num_classes) != (dit.width, dit.num_classes) or sizes.class_token_block >= dit.depth:
        raise UserError(f"the class token in {folder} is of another DiT: train it again, or remove {DIT_TOKEN}*")
    state = load_part(folder, DIT_TOKEN)
    return built(lambda: DiTClassToken(sizes), state, f"the class token of the DiT in {folder}").eval()


def _load_folder(folder: Path, var_checkpoint: str | Path | None, class_tokens: str | Path | None) -> Model:
    if not folder.is_dir():
        known = ", ".join([*shipped(), *OFFICIAL, *OFFICIAL_DITS])
        raise UserError(f"there is no model {str(folder)!r}: give a model folder, or one of {known}")
    config = read_config(folder)
    for part in ("vqvae", "var"):
        if part not in config:
            raise UserError(f"{folder} has no {part} yet: train it with python -m hieramp train {part} --out {folder}")
    sizes = from_json(VQVAEConfig, config["vqvae"])
    vqvae = built(lambda: VQVAE(sizes), load_part(folder, "vqvae"), f"the VQ-VAE in {folder}")
    var_config = from_json(VARConfig, config["var"])
    state = unwrapped(read_checkpoint(Path(var_checkpoint))) if var_checkpoint else load_part(folder, "var")
    tokens, read_only = _class_tokens(folder, class_tokens)
    if tokens:
        var_config = replace(var_config, read_only_class_tokens=read_only)
    var_config = replace(var_config, **class_token_sizes({**state, **tokens}))
    var = built(lambda: VAR(var_config), {**state, **tokens}, f"the VAR in {folder}")
    names, wnids = tuple(config["class_names"]), tuple(config.get("wnids", ()))
    defaults = defaults_in(config, "var", str(folder / "config.json"))
    name = folder.resolve().name
    return Model(vqvae.eval(), var.eval(), names, name=name, folder=folder, wnids=wnids, defaults=defaults)


def _with_class_tokens(model: Model, wanted: str | Path) -> Model:
    """An official transformer with class tokens that were trained on it, from a file or a folder."""
    if str(wanted) in CONDITIONS:
        raise UserError(
            f"{model.name} brings no class tokens of its own: give a class_tokens-….safetensors or the folder that "
            f"holds one (python -m hieramp train class-tokens --model {model.name} --out FOLDER)"
        )
    tokens, read_only = _class_tokens(Path(), wanted)
    backbone = {key: value for key, value in model.var.state_dict().items() if not is_class_token(key)}
    state = {**backbone, **tokens}
    config = replace(model.var.config, read_only_class_tokens=read_only)
    config = replace(config, **class_token_sizes(state))
    var = built(lambda: VAR(config), state, f"{model.name} with the class tokens of {wanted}")
    return replace(model, var=var.eval())


def _class_tokens(folder: Path, wanted: str | Path | None) -> tuple[dict[str, Tensor], bool]:
    """Class tokens to put on a folder's transformer, and whether they are only read; nothing where it has none."""
    if wanted is None or str(wanted) in CONDITIONS:
        variants = class_token_variants(folder)
        condition = next(iter(variants), "") if wanted is None else str(wanted)
        if condition in variants:
            return load_part(folder, class_token_part(folder, condition)), variants[condition]["read_only"]
        if wanted is None:
            return {}, False
        raise UserError(
            f"{folder} has no class tokens with the condition {condition} (it has: {', '.join(variants) or 'none'}): "
            f"train them with python -m hieramp train class-tokens --condition {condition} --out {folder}"
        )
    path = Path(wanted)
    if path.is_dir():
        found = _class_tokens(path, None)
        if not found[0]:
            raise UserError(f"{path} has no class tokens: give a folder that has, or a class_tokens-….safetensors")
        return found
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: give dropped, kept, a class_tokens-….safetensors or the folder that holds one"
        )
    told = class_token_variants(path.parent) if (path.parent / "config.json").is_file() else {}
    about = told.get(path.stem.removeprefix("class_tokens-")) or next(iter(told.values()), {})
    return read_safetensors(path), bool(about.get("read_only"))


def _load_official(name: str, var_checkpoint: str | Path | None, classes_from: str | Path | None) -> Model:
    var_file = Path(var_checkpoint) if var_checkpoint else hub_file(f"{name.replace('-', '_')}.pth")
    var_state = read_checkpoint(var_file)
    loaded = from_official(read_checkpoint(hub_file(HUB_VQVAE)), var_state)
    if loaded.name != name:
        way_out = f"give --model {loaded.name}" if loaded.name in OFFICIAL else "load it with hieramp.from_official"
        raise UserError(f"{var_file} is a {loaded.name}, not a {name}: {way_out}")
    named = described_classes(_class_folders(classes_from, loaded.var.config.num_classes))
    loaded.class_names, loaded.wnids = tuple(named["class_names"]), tuple(named.get("wnids", ()))
    return loaded


def _class_folders(classes_from: str | Path | None, num_classes: int) -> list[str]:
    """Names of the classes by label: those given, ImageNet's ids for 1,000 classes, else numbers."""
    if classes_from is None:
        return list(WORDS) if num_classes == len(WORDS) else [str(label) for label in range(num_classes)]
    names = read_names(Path(classes_from))
    if len(names) > num_classes:
        raise UserError(f"{classes_from} names {len(names)} classes, the VAR has {num_classes}: give its own")
    # the authors' trainer keeps 1,000 classes however few the data has
    return [*names, *(str(label) for label in range(len(names), num_classes))]


def read_names(path: Path) -> list[str]:
    """Class names in label order: of a folder of images, a JSON list, or a text file with a name a line.

    Raises:
        UserError: it is none of these.
    """
    if path.suffix.lower() not in (".json", ".txt"):
        return list(open_source(str(path)).class_names)
    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a list of class names: {error}") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"{path} must hold a list of class names in label order")
    return names


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
