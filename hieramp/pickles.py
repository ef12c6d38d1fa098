"""Reading .pth files that others wrote, without running what is in them."""

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hieramp.checkpoints import read_safetensors
from hieramp.errors import UserError

# where trainers put the weights inside of what they save, the first that is there being taken
WRAPPERS = (
    *("trainer", "var_wo_ddp", "model_state_dict", "state_dict", "model"),
    *("ema", "model_ema", "state_dict_ema", "module", "net", "shadow"),
)
COUNTERS = ("n_averaged",)  # of torch's AveragedModel, beside the weights
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.", "var.")  # of DDP, torch.compile, Lightning, …
# what torch's readers raise about files that are none, or are damaged; none of it is a fault of ours
UNREADABLE = (RuntimeError, EOFError, OSError, KeyError, IndexError, AttributeError, ValueError, TypeError)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A .safetensors file, or a pickle with nothing but data in it (weights_only).

    Raises:
        UserError: the file is missing, truncated, foreign, or wants to run code.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: give the path of a checkpoint file")
    if path.suffix == ".safetensors":
        return dict(read_safetensors(path))
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # settings that many trainers store beside
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            raise UserError(
                f"{path} holds more than tensors ({_wanted(error)}); it was not opened: save its state_dict() alone, "
                "with torch.save(model.state_dict(), FILE)"
            ) from error
        raise UserError(f"{path} is no PyTorch checkpoint, or holds more than tensors; it was not opened") from error
    except UNREADABLE as error:
        raise UserError(f"{path} is truncated or not a PyTorch checkpoint") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state


def _wanted(error: Exception) -> str:
    """The type that the pickle asked for, as torch names it: "argparse.Namespace"."""
    words = str(error).split("GLOBAL ")
    return words[1].split(" ")[0] if len(words) > 1 else "objects of Python"


def unwrapped(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint: out of a trainer's dictionaries, without a prefix that all of their names share."""
    inner = next((state[key] for key in WRAPPERS if _holds_tensors(state.get(key))), None)
    if inner is not None:
        return unwrapped(inner)
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor) and isinstance(key, str)}
    tensors = {key: value for key, value in tensors.items() if key not in COUNTERS}
    while prefix := next((p for p in PREFIXES if tensors and all(key.startswith(p) for key in tensors)), ""):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _holds_tensors(value: object) -> bool:
    """Whether it is a dictionary with tensors in it, or with one of the wrappers that has."""
    if not isinstance(value, Mapping):
        return False
    return any(isinstance(each, Tensor) for each in value.values()) or any(
        _holds_tensors(value.get(key)) for key in WRAPPERS
    )
