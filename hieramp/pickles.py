"""Reading .pth files that others wrote, without running what is in them."""

import argparse
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from hieramp.checkpoints import read_safetensors

# what torch's readers raise about files that are none, or are damaged; none of it is a fault of ours
UNREADABLE = (RuntimeError, EOFError, OSError, KeyError, IndexError, AttributeError, ValueError, TypeError)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A .safetensors file, or a pickle with nothing but data in it (weights_only).

    Raises:
        ValueError: the file is missing, truncated, foreign, or wants to run code.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give the path of a checkpoint file")
    if path.suffix == ".safetensors":
        return dict(read_safetensors(path))
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # settings that many trainers store beside
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            raise ValueError(
                f"{path} holds more than tensors ({_wanted(error)}); it was not opened: save its state_dict() alone, "
                "with torch.save(model.state_dict(), FILE)"
            ) from error
        raise ValueError(f"{path} is no PyTorch checkpoint, or holds more than tensors; it was not opened") from error
    except UNREADABLE as error:
        raise ValueError(f"{path} is truncated or not a PyTorch checkpoint") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state


def _wanted(error: Exception) -> str:
    """The type that the pickle asked for, as torch names it: "argparse.Namespace"."""
    words = str(error).split("GLOBAL ")
    return words[1].split(" ")[0] if len(words) > 1 else "objects of Python"
