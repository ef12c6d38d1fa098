"""Weights and configs on disk: the model folder (safetensors and config.json).

A model folder holds config.json and its parts, each in shards under 20 MB: vqvae, var, classifier, and class tokens by
the condition they were trained with, class_tokens-dropped and class_tokens-kept. config.json names the ones that load
by default, and by "stands_on" for each part the fingerprint of the part that it was trained on. Older folders have one
class_tokens, and no fingerprints. Everything is written as .part and renamed.

A folder may take parts from a folder beside it: {"parts_in": {"vqvae": "cifar10"}} in its config.json. A part of its
own goes before.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hieramp.errors import UserError
from hieramp.files import atomic, flush, part_of, write_text

_PACKAGE = Path(__file__).resolve().parent
# The models that ship: inside the package where it was installed, beside it in a checkout.
ASSETS = _PACKAGE / "assets" if (_PACKAGE / "assets").is_dir() else _PACKAGE.parent / "assets"
DEFAULT_MODEL = "cifar10"
CONDITIONS = ("dropped", "kept")  # of the class, where class tokens are trained
SHARD_BYTES = 16_000_000
DIT_TOKEN = "dit_class_token"
BASES = {
    "var": "vqvae",
    **dict.fromkeys(("class_tokens", *(f"class_tokens-{c}" for c in CONDITIONS)), "var"),
    DIT_TOKEN: "dit",
}
SAVE = "save"  # metadata of a shard: the fingerprint of all that was saved with it
log = logging.getLogger(__name__)
State = Mapping[str, Tensor]
M = TypeVar("M", bound=nn.Module)


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
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("format") != 1:
        raise UserError(f"{path} was not written by this version of hieramp (format 1 expected)")
    for name, is_right in ENTRIES.items():
        if name in config and not is_right(config[name]):
            raise UserError(f"{path} is damaged: its entry {name} is not what hieramp writes there")
    if not _has_names_for_all(config):
        raise UserError(f"{path} is damaged: it names another number of classes than its networks have")
    return config


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


def _is_about_tokens(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("condition"), str) and "read_only" in value


def _holds(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(is_right, value.values()))


# what is read of config.json beside the sizes, which `config.from_json` checks
ENTRIES: dict[str, Callable[[Any], bool]] = {
    "class_names": _is_list_of_names,
    "wnids": _is_list_of_names,
    "class_tokens": _is_about_tokens,
    "class_token_variants": _holds(_is_about_tokens),
    "stands_on": _holds(lambda value: isinstance(value, dict)),
    "trained": _holds(lambda value: isinstance(value, dict)),
}


def _has_names_for_all(config: dict[str, Any]) -> bool:
    sizes = [config[part].get("num_classes") for part in ("var", "classifier", "dit") if _is_dict(config.get(part))]
    return "class_names" not in config or all(size in (None, len(config["class_names"])) for size in sizes)


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def save_part(
    folder: Path, part: str, state: State, dtype: torch.dtype = torch.float16, followed_by: Collection[str] = ()
) -> None:
    """Write the weights of one part; floating tensors are stored in `dtype`.

    All shards carry the fingerprint of the whole, and none is renamed before all are written: after a kill between two
    renames the others are found by `load_part`. What was trained on the part before is told of, and refused by
    `load_part` from then on; of `followed_by`, the parts that are written next, nothing is told.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stored = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype).contiguous()
        for key, value in state.items()
    }
    plan = split_torch_state_dict_into_shards(
        stored, filename_pattern=part + "{suffix}.safetensors", max_shard_size=SHARD_BYTES
    )
    shards = {folder / name: {key: stored[key] for key in keys} for name, keys in plan.filename_to_tensors.items()}
    record_bases(folder, [other for other, base in BASES.items() if base == part])
    try:
        for path, tensors in shards.items():
            _write_safetensors(part_of(path), tensors, {SAVE: fingerprint(stored)})
            flush(part_of(path))
    except BaseException:
        for path in shards:
            part_of(path).unlink(missing_ok=True)
        raise
    for path in shards:
        part_of(path).replace(path)
    for old in set(_shards(folder, part)) - set(shards):
        old.unlink()
    record_bases(folder, [part], anew=True)
    for other in parts_on(folder, part):
        if other not in followed_by and has_other_base(folder, other):
            log.warning(_on_another_base(folder, other))


def record_bases(folder: Path, parts: list[str], anew: bool = False) -> None:
    """Put into config.json on what these parts of a folder stand; `anew` replaces what is said there."""
    known = read_config(folder).get("stands_on", {}) if (folder / "config.json").is_file() else {}
    found = {
        part: {BASES[part]: part_fingerprint(folder, BASES[part])}
        for part in parts
        if part in BASES and has_part(folder, part) and has_part(folder, BASES[part]) and (anew or part not in known)
    }
    if found:
        write_config(folder, stands_on=known | found)


def part_fingerprint(folder: Path, part: str) -> str:
    """The fingerprint of a part's weights as they are stored; a part written by an older version is read for it."""
    shards = _whole_save(folder, part)
    return _metadata(shards[0]).get(SAVE) or fingerprint(*[_merged(shards)])


def parts_on(folder: Path, base: str) -> list[str]:
    """The parts of a folder that were trained on its part `base`."""
    return [part for part, of in BASES.items() if of == base and has_part(folder, part)]


def has_other_base(folder: Path, part: str) -> bool:
    """Whether a part was trained on another part than the one that the folder has now."""
    if part not in BASES or not (folder / "config.json").is_file() or not has_part(folder, BASES[part]):
        return False
    expected = read_config(folder).get("stands_on", {}).get(part, {}).get(BASES[part])
    return expected is not None and expected != part_fingerprint(folder, BASES[part])


def _on_another_base(folder: Path, part: str) -> str:
    command = "class-tokens" if part.startswith("class_tokens") else part
    if part == DIT_TOKEN:
        command = "class-tokens --kind dit"
    files = "" if part == "var" else f", or remove {folder / part}.safetensors to do without"
    return (
        f"the part {part} in {folder} was trained on another {BASES[part]} than the one there now: train it again with "
        f"python -m hieramp train {command} --out {folder}{files}"
    )


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
        UserError: a shard is missing, truncated, foreign or of another save, or the part was trained on another part
            than the one that the folder has.
    """
    if not has_part(folder, part):
        home = home_of(folder, part)
        if home != folder:
            raise UserError(f"{folder} takes its {part} from {home}, which has none: put that folder beside it")
        raise UserError(f"{folder} has no {part} weights ({part}.safetensors)")
    state = _merged(_whole_save(folder, part))
    if has_other_base(folder, part):
        raise UserError(_on_another_base(folder, part))
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _whole_save(folder: Path, part: str) -> list[Path]:
    """The shards of one save, all of them: what was saved last, where that was killed between two renames too."""
    saves: dict[tuple[str, int], dict[str, Path]] = {}  # by save and number of shards: their files, by name
    for path in _shards(folder, part):
        saves.setdefault(_save_of(path), {})[path.name] = path
    if len(saves) > 1 or not _complete(saves):
        for path in home_of(folder, part).glob(f"{part}*.safetensors.part"):
            with suppress(UserError):  # one that was cut short is of no use
                saves.get(_save_of(path), {}).setdefault(path.name.removesuffix(".part"), path)
    whole = _complete(saves)
    if not whole and len(saves) == 1:
        (_, expected), files = next(iter(saves.items()))
        raise UserError(f"{folder} has {len(files)} of the {expected} shards of {part}: copy the missing ones")
    if not whole:
        raise UserError(
            f"the shards of {part} in {folder} are of different saves, and none of them is whole: copy all shards of "
            "one model, or train the part again"
        )
    return sorted(max(whole, key=lambda files: max(path.stat().st_mtime_ns for path in files)))


def _complete(saves: Mapping[tuple[str, int], Mapping[str, Path]]) -> list[list[Path]]:
    return [list(files.values()) for (_, expected), files in saves.items() if len(files) == expected]


def _save_of(path: Path) -> tuple[str, int]:
    """Of which save a shard is (nothing where an older version wrote it), and of how many shards."""
    stem = path.name.split(".safetensors")[0]
    return _metadata(path).get(SAVE, ""), int(stem.rsplit("-of-", 1)[1]) if "-of-" in stem else 1


def _merged(shards: list[Path]) -> dict[str, Tensor]:
    return {key: value for shard in shards for key, value in read_safetensors(shard).items()}


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path} is truncated or not a safetensors file: {error}") from error


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
    return _own_shards(home_of(folder, part), part)


def _own_shards(folder: Path, part: str) -> list[Path]:
    single = folder / f"{part}.safetensors"
    sharded = sorted(folder.glob(f"{part}-[0-9]*-of-[0-9]*.safetensors"))
    return [*sharded, *([single] if single.is_file() else [])]


def built(build: Callable[[], M], state: State, what: str) -> M:
    """The network that `build` makes, with its weights.

    It is built without memory first, so that sizes that its weights do not have are told before any is taken.

    Raises:
        UserError: its sizes describe no network, or the weights are those of another, or no numbers.
    """
    try:
        with torch.device("meta"):
            plan = build()
    except UserError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"the sizes of {what} in its config.json describe no network ({reason})") from error
    _check_fits(plan, state, what)
    network = build()
    load_strictly(network, state, what)
    return network


def home_of(folder: Path, part: str) -> Path:
    """Where the files of a part lie: in the folder, or in the one beside it that config.json names for it.

    Raises:
        UserError: config.json names something else than a folder beside it.
    """
    if _own_shards(folder, part) or not (folder / "config.json").is_file():
        return folder
    beside = read_config(folder).get("parts_in", {}).get(part)
    if beside is None:
        return folder
    if not isinstance(beside, str) or Path(beside).name != beside:
        raise UserError(f"parts_in of {folder / 'config.json'} names {beside!r}: give the name of a folder beside it")
    return folder.resolve().parent / beside


def load_strictly(module: nn.Module, state: State, what: str) -> None:
    """load_state_dict, with a mismatch told in one sentence.

    Raises:
        UserError: a tensor is missing, unknown or of another shape, or holds what is no number.
    """
    _check_fits(module, state, what)
    for key, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{what} cannot be used: {key} holds values that are no numbers; train or copy it again")
    module.load_state_dict(dict(state))


def _check_fits(module: nn.Module, state: State, what: str) -> None:
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
