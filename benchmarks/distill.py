"""python -m benchmarks.distill: what writing a set costs over drawing it, and what a large one needs.

--rounds N      drawing alone and a whole set take turns over the same images; a ratio of medians
--memory        peak memory of a small and of a larger set, each in a process of its own
--large GIB     a zip of that size out of noise (a synthetic maker), written, opened and verified
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import hieramp
from benchmarks.measuring import in_turns, timed
from hieramp.distillation.maker import Batch, BatchRequest, finished, parallel_map
from hieramp.distillation.plan import Plan
from hieramp.distillation.production import produce
from hieramp.imageset.verify import problems


def rate(name: str, ipc: int, batch: int, rounds: int) -> None:
    """Median seconds of drawing alone and of a whole set, and the rate of the one over the other."""
    model = hieramp.load(name)
    labels = [label for label in range(len(model.class_names)) for _ in range(ipc)]
    seeds = list(range(ipc)) * len(model.class_names)

    def alone() -> None:
        for start in range(0, len(labels), batch):
            some = slice(start, start + batch)
            model.generate(labels[some], seeds[some], hieramp.SCHEDULES["all"]).images.sum().item()

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            for _ in hieramp.distill(model, ipc, Path(folder) / "set.zip", batch_size=batch):
                pass

    ways = {"drawing alone": alone, "a whole set": whole}
    seconds = in_turns({way: partial(timed, act) for way, act in ways.items()}, rounds)
    medians = {way: statistics.median(taken) for way, taken in seconds.items()}
    ratio = medians["drawing alone"] / medians["a whole set"]
    print(f"{len(labels)} images of {name}, batch {batch}, {torch.get_num_threads()} threads, {rounds} rounds:")
    for way, taken in medians.items():
        print(f"  {way}: {len(labels) / taken:.2f} images/s")
    print(f"  rate of a whole set over drawing alone: {ratio:.3f}")


def memory(name: str) -> None:
    """Peak resident memory in MB of sets of two sizes."""
    for ipc in (4, 40):
        line = f"from benchmarks.distill import peak; peak({name!r}, {ipc})"
        done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
        print(f"{ipc} images a class: peak {float(done.stdout):.0f} MB")


def peak(name: str, ipc: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for _ in hieramp.distill(hieramp.load(name, "cpu"), ipc, Path(folder) / "set.zip"):
            pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


class Noise:
    """A maker of images that do not compress."""

    def __init__(self, side: int) -> None:
        self.side = side

    def make(self, request: BatchRequest) -> Callable[[], Batch]:
        return lambda: Batch(parallel_map([lambda i=i: self._image(i.index) for i in request.items]), [])  # type: ignore[misc]

    def _image(self, index: int) -> object:
        pixels = np.random.default_rng(index).integers(0, 256, (self.side, self.side, 3), dtype=np.uint8)
        return finished(index, Image.fromarray(pixels), None)


def large(gib: float, side: int = 1024) -> None:
    """A zip beyond 4 GiB, made, opened and verified."""
    count = int(gib * 2**30 / (side * side * 3.0)) + 1
    with tempfile.TemporaryDirectory(dir=".") as folder:
        out = Path(folder) / "large.zip"
        plan = Plan(out, "noise", ("noise",), (), (0,), count, side, 0, {"data": "noise"})
        started = time.perf_counter()
        for _ in produce(plan, Noise(side), 16):
            pass
        made = time.perf_counter() - started
        with hieramp.open_set(out) as image_set:
            image_set.image(count - 1)
            wrong = list(problems(image_set))
        checked = time.perf_counter() - started - made
        size = out.stat().st_size
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{count} images of {side}×{side}, {size / 2**30:.2f} GiB")
        print(f"made in {made:.0f} s, verified in {checked:.0f} s")
        print(f"peak memory {used:.0f} MB, problems: {wrong or 'none'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--large", type=float, metavar="GIB")
    args = parser.parse_args()
    if args.rounds:
        rate(args.model, args.ipc, args.batch, args.rounds)
    if args.memory:
        memory(args.model)
    if args.large:
        large(args.large)


if __name__ == "__main__":
    main()
