"""Runs the parts, each in a process of its own and no longer than it may.

The processes are forked from a server that has imported everything and touched no card, so that imports are paid once.
"""

import importlib
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.card.part import Part, append

LIMITS = {"info": 20, "equal": 60, "micro": 75, "draw": 75, "train": 120, "profile": 30}  # seconds, at most
MODULES = {part: f"benchmarks.card.{'profiles' if part == 'profile' else part}" for part in LIMITS}
ENDING = 3.0  # seconds that a part has after its limit, to end by itself
LEAST = 5.0  # seconds under which no part is begun


@dataclass(frozen=True)
class Run:
    """Where results go, and on what the parts compute."""

    folder: Path
    device: str
    tiny: bool
    cudnn_attention: bool

    def all(self, parts: Sequence[str], seconds: float) -> list[str]:
        """The parts one after the other, in so many seconds together; returns those that failed or were not done."""
        end = time.monotonic() + seconds
        start(int).join()  # the imports
        return [part for part in parts if not self.one(part, MODULES[part], min(LIMITS[part], end - time.monotonic()))]

    def one(self, name: str, module: str, limit: float) -> bool:
        """The part in that module, for `limit` seconds; whether it did all it had to."""
        if limit < LEAST:
            return self._ended(name, "not begun: no time left", 0.0)
        process = start(work, self, name, module, limit)
        started = time.monotonic()
        process.join(limit + ENDING)
        taken = time.monotonic() - started
        if process.is_alive():
            process.kill()
            process.join()
            return self._ended(name, f"stopped at its limit of {limit:.0f} s", taken)
        if process.exitcode:
            return self._ended(name, f"exit code {process.exitcode}", taken)
        append(self.folder, {"part": name, "name": "done", "seconds": round(taken, 2)})
        return True

    def _ended(self, name: str, why: str, taken: float) -> bool:
        print(f"== {name}: {why}", flush=True)
        append(self.folder, {"part": name, "name": "ended", "failed": why, "seconds": round(taken, 2)})
        return False


def start(target: Callable[..., object], *args: object) -> BaseProcess:
    """A process forked from the server that has all imports; returns once it runs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(MODULES.values()))
    process = context.Process(target=target, args=args)
    process.start()
    return process


def work(run: Run, name: str, module: str, limit: float) -> None:
    """The part in this process; exit code 1 where anything in it failed."""
    import torch

    try:
        torch.manual_seed(0)
        torch.backends.cuda.enable_cudnn_sdp(run.cudnn_attention)
        part = Part(name, run.folder, torch.device(run.device), run.tiny, limit, run.cudnn_attention)
        importlib.import_module(module).run(part)
    except BaseException:  # told here, since the parent sees an exit code only
        traceback.print_exc()
        sys.exit(1)
    sys.exit(1 if part.failures else 0)
