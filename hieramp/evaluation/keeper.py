"""A student half trained, on disk: weights, optimiser, random numbers and curve, as one safetensors file."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from hieramp.state_file import SaveTimer, load_state, read_about, save_state

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
    """Saves a run every two minutes, or less often where that would cost too much; the file goes when it is done."""

    def __init__(self, path: Path, every: float = SAVE_SECONDS) -> None:
        self.path, self.timer = path, SaveTimer(every)

    def save_if_due(
        self, student: nn.Module, optimizer: torch.optim.Optimizer, curve: list[EpochRow], seconds: float
    ) -> None:
        """After an epoch: save where the last time is long ago."""
        if not self.timer.is_due:
            return
        random = {"random/cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["random/cuda"] = torch.cuda.get_rng_state()
        about = {"curve": [asdict(row) for row in curve], "seconds": seconds}
        with self.timer.saving():
            save_state(self.path, {"student": student, "optimizer": optimizer}, about, random)

    def load(self, student: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[list[EpochRow], float]:
        """Go back to where the run was: its curve so far and its seconds; an empty curve where there is nothing."""
        if not self.path.is_file():
            return [], 0.0
        about = read_about(self.path)
        tensors = load_state(self.path, {"student": student, "optimizer": optimizer})
        torch.set_rng_state(tensors["random/cpu"])
        if "random/cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random/cuda"])
        return [EpochRow(**row) for row in about["curve"]], about["seconds"]

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
