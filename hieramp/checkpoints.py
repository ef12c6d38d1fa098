"""Weights and configs on disk: the model folder (safetensors and config.json).

A model folder holds config.json and its parts, each in shards under 20 MB: vqvae, var, classifier, and class tokens by
the condition they were trained with, class_tokens-dropped and class_tokens-kept. config.json names the ones that load
by default. Older folders have one class_tokens. Everything is written as .part and renamed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hieramp.errors import UserError
from hieramp.files import atomic, write_text

ASSETS = Path(__file__).resolve().parent.parent / "assets"  # the models that ship
DEFAULT_MODEL = "cifar10"
CONDITIONS = ("dropped", "kept")  # of the class, where class tokens are trained
SHARD_BYTES = 16_000_000
State = Mapping[str, Tensor]


def shipped() -> list[str]:
    """Names of the models that ship with us, the default first."""
    names = {path.parent.name for path in ASSETS.glob("*/config.json")}
    return sorted(names, key=lambda name: (name != DEFAULT_MODEL, name))


def model_folder(name: str | Path) -> Path:
    """The folder of a model that ships with us, or the folder of that name."""
    return ASSETS / name if str(name) in shipped() else Path(name)


def write_config(folder: Path, **entries: Any) -> None:
    """Merge `entries` into config.json of a model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = read_config(folder) if (folder / "config.json").exists() else {"format": 1}
    write_text(folder / "config.json", json.dumps(config | entries, indent=1) + "\n")


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder.

    Raises:
        UserError: there is none, or it is not one of ours.
    """
    path = folder / "config.json"
    if not path.is_file():
        known = ", ".join(shipped())
        raise UserError(f"{folder} is not a model folder: it has no config.json (models that ship: {known})")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("format") != 1:
        raise UserError(f"{path} was not written by this version of hieramp (format 1 expected)")
    return config


def save_part(folder: Path, part: str, state: State, dtype: torch.dtype = torch.float16) -> None:
    """Write the weights of one part; floating tensors are stored in `dtype`."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype).contiguous()
        for key, value in state.items()
    }
    plan = split_torch_state_dict_into_shards(
        stored, filename_pattern=part + "{suffix}.safetensors", max_shard_size=SHARD_BYTES
    )
    for name, keys in plan.filename_to_tensors.items():
        save_safetensors(folder / name, {key: stored[key] for key in keys})
    for old in _shards(folder, part):
        if old.name not in plan.filename_to_tensors:
            old.unlink()


def save_safetensors(path: Path, state: State, metadata: dict[str, str] | None = None) -> None:
    """Write one safetensors file, whole or not at all."""
    with atomic(path) as part:
        _write_safetensors(part, state, metadata)


def _write_safetensors(path: Path, state: State, metadata: dict[str, str] | None) -> None:
    try:
        save_file(dict(state), path, metadata=metadata)
        path.chmod(0o644)  # safetensors writes files that only their owner may read
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error


def has_part(folder: Path, part: str) -> bool:
    return bool(_shards(folder, part))


def class_token_variants(folder: Path) -> dict[str, dict[str, Any]]:
    """What config.json tells of the class tokens in a folder, by their condition; the default ones come first."""
    config = read_config(folder)
    default = config.get("class_tokens")
    told = ({default["condition"]: default} if default else {}) | config.get("class_token_variants", {})
    return {
        condition: about for condition, about in told.items() if has_part(folder, class_token_part(folder, condition))
    }


def class_token_part(folder: Path, condition: str) -> str:
    own = f"class_tokens-{condition}"
    return own if has_part(folder, own) else "class_tokens"


def load_part(folder: Path, part: str) -> dict[str, Tensor]:
    """Read the weights of one part as float32.

    Raises:
        UserError: a shard is missing, truncated or foreign.
    """
    shards = _shards(folder, part)
    if not shards:
        raise UserError(f"{folder} has no {part} weights ({part}.safetensors)")
    expected = int(shards[0].stem.rsplit("-of-", 1)[1]) if "-of-" in shards[0].stem else 1
    if len(shards) != expected:
        raise UserError(f"{folder} has {len(shards)} of the {expected} shards of {part}: copy the missing ones")
    state: dict[str, Tensor] = {}
    for shard in shards:
        state |= read_safetensors(shard)
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is truncated or not a safetensors file: {error}") from error


def fingerprint(*states: State) -> str:
    """SHA-256 over names, types, shapes and values of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for state in states:
        for name in sorted(state):
            tensor = state[name].detach().cpu().contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _shards(folder: Path, part: str) -> list[Path]:
    single = folder / f"{part}.safetensors"
    sharded = sorted(folder.glob(f"{part}-[0-9]*-of-[0-9]*.safetensors"))
    return sharded or ([single] if single.is_file() else [])


def load_strictly(module: nn.Module, state: State, what: str) -> None:
    """load_state_dict, with a mismatch told in one sentence.

    Raises:
        UserError: a tensor is missing, unknown or of another shape.
    """
    own = module.state_dict()
    missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or unknown:
        example = f"missing {missing[0]}" if missing else f"unknown {unknown[0]}"
        count = len(missing) + len(unknown)
        raise UserError(f"{what} does not fit this model: {count} tensors are missing or unknown ({example})")
    for key, value in own.items():
        if value.shape != state[key].shape:
            got, want = tuple(state[key].shape), tuple(value.shape)
            raise UserError(f"{what} does not fit this model: {key} is {got}, the model has {want}")
    module.load_state_dict(dict(state))
