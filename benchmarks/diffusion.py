"""python -m benchmarks.diffusion: what an image of the diffusion transformer costs, and what HierAmp adds.

Plain and amplified drawings take turns, in float32 and, where the device has it, in bfloat16. Every figure is a ratio
within one round, so that a machine with other work does not show in it. `--cpu-time` counts the processor's time
instead of the clock's: for a machine that is shared, with one thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import hieramp
from benchmarks.measuring import in_turns, paired_ratio
from hieramp.amplification.settings import OUTPUT_SCHEDULES
from hieramp.commands.arguments import DTYPES
from hieramp.devices import flush_denormals, resolve_device, supports_fast_bf16
from hieramp.settings import DEFAULTS, Settings

PLAIN, AMPLIFIED = "plain", "amplified"


def dtypes_of(device: str) -> list[str]:
    """float32, and bfloat16 where it is not emulated."""
    return ["float32", *(["bfloat16"] if supports_fast_bf16(resolve_device(device)) else [])]


def runs_of(name: str, device: str, batch: int, steps: int, clock: Callable[[], float]) -> dict:
    """By (type, kind of drawing) a run that draws `batch` images and returns its seconds."""
    plain = Settings.of(DEFAULTS["dit"], steps=steps)
    every = {PLAIN: plain, AMPLIFIED: Settings.of(plain, OUTPUT_SCHEDULES["all"])}

    def run(model: hieramp.Model, settings: Settings) -> float:
        labels = [i % len(model.class_names) for i in range(batch)]
        started = clock()
        model.generate(labels, range(batch), settings).images.cpu()
        return clock() - started

    runs = {}
    for dtype in dtypes_of(device):
        model = hieramp.load(name, device, DTYPES[dtype])
        for kind, settings in every.items():
            runs[dtype, kind] = lambda model=model, settings=settings: run(model, settings)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10-dit")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cpu-time", action="store_true")
    args = parser.parse_args()
    flush_denormals()
    clock = time.process_time if args.cpu_time else time.perf_counter
    seconds = in_turns(runs_of(args.model, args.device, args.batch, args.steps, clock), args.rounds)
    for (dtype, kind), taken in seconds.items():
        ratio = paired_ratio(taken, seconds["float32", PLAIN])
        print(f"{dtype}, {kind}: {statistics.median(taken) / args.batch:.3f} s an image, {ratio} of float32, plain")
    for dtype in dtypes_of(args.device):
        print(f"{dtype}: HierAmp takes {paired_ratio(seconds[dtype, AMPLIFIED], seconds[dtype, PLAIN])} of plain")


if __name__ == "__main__":
    main()
