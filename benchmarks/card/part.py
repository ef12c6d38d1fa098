"""A part of the run: its settings, its results line by line, and a clock that waits for the device."""

import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

RESULTS = "results.jsonl"
Value = str | float | bool | list[float] | list[bool]


@dataclass
class Part:
    """One part, in a process of its own. What it emits is on the disk at once, so that a limit costs the rest only."""

    name: str
    folder: Path
    device: torch.device
    tiny: bool  # sizes that only try the code
    limit: float  # seconds
    cudnn_attention: bool = False
    failures: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def on_card(self) -> bool:
        return self.device.type == "cuda"

    @property
    def left(self) -> float:
        """Seconds until this part is ended."""
        return self.limit - (time.monotonic() - self.started)

    def emit(self, name: str, **values: Value) -> None:
        """One result: a line for people, and one for machines in results.jsonl."""
        rounded = {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in values.items()}
        taken = f"{self.name} {time.monotonic() - self.started:5.1f}s"
        print(f"[{taken}] {name}: " + ", ".join(f"{key} {value}" for key, value in rounded.items()), flush=True)
        append(self.folder, {"part": self.name, "name": name, **rounded})

    def check(self, name: str, is_right: bool, **values: Value) -> None:
        """A result that has to be right: the part has failed where it is not."""
        self.failures += not is_right
        self.emit(name, ok=is_right, **values)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """What fails inside is told and counted, and the part goes on: every other figure is still wanted."""
        try:
            yield
        except Exception as error:  # whatever it is, the next figure may be had
            self.failures += 1
            self.emit(name, failed=f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}")
            traceback.print_exc()
            self.forget()

    def forget(self) -> None:
        """Give memory that nothing holds any more back to the card."""
        if self.on_card:
            torch.cuda.empty_cache()

    def wait(self) -> None:
        """Until the device has done all that was asked of it."""
        if self.on_card:
            torch.cuda.synchronize()

    def seconds(self, act: Callable[[], object]) -> float:
        """Of one call, until the device has done it."""
        self.wait()
        started = time.perf_counter()
        act()
        self.wait()
        return time.perf_counter() - started

    def milliseconds(self, act: Callable[[], object], rounds: int = 10, warm: int = 3) -> float:
        """The median call, after `warm` calls: on the card by its own clock, each round by itself."""
        for _ in range(warm):
            act()
        if not self.on_card:
            return 1e3 * statistics.median(self.seconds(act) for _ in range(rounds))
        taken = []
        for _ in range(rounds):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self.wait()
            begin.record()
            act()
            end.record()
            self.wait()
            taken.append(begin.elapsed_time(end))
        return statistics.median(taken)

    def start_peak(self) -> None:
        """Begin to watch the card's memory; see `peak_gib`."""
        if self.on_card:
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> dict[str, Value]:
        """The most memory since `start_peak`, as a value to emit; nothing on a CPU, where it isn't counted."""
        return {"peak_gib": torch.cuda.max_memory_allocated() / 2**30} if self.on_card else {}


def append(folder: Path, result: dict[str, Value]) -> None:
    with (folder / RESULTS).open("a") as file:
        file.write(json.dumps(result) + "\n")


def read_results(folder: Path) -> list[dict[str, Value]]:
    path = folder / RESULTS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
