"""A student half trained, on disk: weights, optimiser, random numbers and curve, as one safetensors file."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from hieramp.checkpoints import load_strictly, read_safetensors, save_safetensors

SAVE_SECONDS = 120.0  # at most this much work is lost, and the epoch in hand


@dataclass(frozen=True)
class EpochRow:
    """What one epoch came to."""

    epoch: int
    learning_rate: float
    loss: float
    agreement: float  # share of the mixed images that the student names as its target does
    test_accuracy: float | None  # at the epochs that the protocol tests


class Keeper:
    """Saves a run every two minutes; the file goes when the run is done."""

    def __init__(self, path: Path, every: float = SAVE_SECONDS) -> None:
        self.path, self.every = path, every
        self.saved = time.monotonic()

    def save_if_due(
        self, student: nn.Module, optimizer: torch.optim.Optimizer, curve: list[EpochRow], seconds: float
    ) -> None:
        """After an epoch: save where the last time is long ago."""
        if time.monotonic() - self.saved < self.every:
            return
        tensors = {f"student/{key}": value for key, value in student.state_dict().items()}
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in values.items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random/cuda"] = torch.cuda.get_rng_state()
        about = {"curve": [asdict(row) for row in curve], "seconds": seconds}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stored = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        save_safetensors(self.path, stored, {"run": json.dumps(about)})
        self.saved = time.monotonic()

    def load(self, student: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[list[EpochRow], float]:
        """Go back to where the run was: its curve so far and its seconds; an empty curve where there is nothing."""
        if not self.path.is_file():
            return [], 0.0
        tensors = read_safetensors(self.path)
        with safe_open(self.path, "pt") as file:
            about = json.loads(file.metadata()["run"])
        load_strictly(student, _under(tensors, "student/"), str(self.path))
        state = optimizer.state_dict()
        state["state"] = {}
        for key, value in _under(tensors, "optimizer/").items():
            index, name = key.split("/")
            state["state"].setdefault(int(index), {})[name] = value
        optimizer.load_state_dict(state)
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random/cuda"])
        return [EpochRow(**row) for row in about["curve"]], about["seconds"]

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
