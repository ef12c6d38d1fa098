"""A run half done, on disk: modules, optimisers and where the run stands, as one safetensors file (no pickles)."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hieramp.checkpoints import read_safetensors, save_safetensors
from hieramp.errors import UserError

SAVING_SHARE = 0.02  # of a run's time may go into saving it
Parts = Mapping[str, nn.Module | torch.optim.Optimizer]  # by the name that their tensors have in the file


def save_state(path: Path, parts: Parts, about: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
    """Write the state of all `parts`, more tensors, and what is known of the run.

    The copies are made on the CPU, one tensor at a time: a GPU has no room for a second model.
    """
    found: dict[str, Tensor] = {}
    for name, part in parts.items():
        found |= {f"{name}/{key}": value for key, value in _flat(part).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_safetensors(path, _on_cpu(found | dict(tensors or {})), {"run": json.dumps(about)})


def load_state(path: Path, parts: Parts) -> dict[str, Tensor]:
    """Put the state of a file into `parts`; returns all tensors of the file.

    Raises:
        UserError: the file is damaged, or holds the state of something else.
    """
    tensors = read_safetensors(path)
    try:
        for name, part in parts.items():
            own = {key.removeprefix(name + "/"): value for key, value in tensors.items() if key.startswith(name + "/")}
            if isinstance(part, nn.Module):
                part.load_state_dict(own)
            else:
                if not own:
                    raise UserError(f"cannot resume {path}: it has no state of the optimiser; remove it to begin anew")
                state = part.state_dict()
                state["state"] = _unflat(own)
                part.load_state_dict(state)
    except UserError:
        raise
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"cannot resume {path}: it belongs to a model of other sizes") from error
    return tensors


def read_about(path: Path) -> dict[str, Any]:
    """What `save_state` was told of the run.

    Raises:
        UserError: the file is damaged, or not one of ours.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["run"])
        if not isinstance(about, dict):
            raise UserError("it says nothing of a run")
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise UserError(f"{path} is damaged: remove it to begin anew ({error})") from error
    return about


class SaveTimer:
    """When to save again: after `every` seconds, or later where saving would take more than its share of the time."""

    def __init__(self, every: float) -> None:
        self.every = every
        self.next = time.monotonic() + every

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self.next

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around a save; how long it takes decides about the next."""
        started = time.monotonic()
        yield
        now = time.monotonic()
        self.next = now + max(self.every, (now - started) / SAVING_SHARE)


def are_finite(*modules: nn.Module) -> bool:
    """Whether all weights are numbers; waits for the device once."""
    found = [value.isfinite().all() for module in modules for value in module.state_dict().values()]
    return bool(torch.stack(found).all())


def _flat(part: nn.Module | torch.optim.Optimizer) -> dict[str, Tensor]:
    if isinstance(part, nn.Module):
        return part.state_dict()
    per_parameter = part.state_dict()["state"].items()
    return {f"{i}/{key}": torch.as_tensor(value) for i, values in per_parameter for key, value in values.items()}


def _unflat(flat: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    nested: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, name = key.split("/")
        nested.setdefault(int(index), {})[name] = value
    return nested


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors takes them: on the CPU, in one piece, and none that shares another's memory."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in tensors.items():
        tensor = value.detach().cpu().contiguous()
        where = tensor.untyped_storage().data_ptr()
        found[key] = tensor.clone() if where in seen else tensor
        seen.add(where)
    return found
