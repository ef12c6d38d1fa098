"""python -m benchmarks.denormals: what drawing and training cost a CPU with denormal numbers, and with them taken as 0.

Commands and the page take them as 0 (`hieramp.devices.flush_denormals`). The processor's time, on one thread, in turns:
every figure is a ratio within one round, so that a machine with other work does not show in it.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

import hieramp
from benchmarks.measuring import in_turns, paired_ratio, timed
from benchmarks.training import Stepper
from hieramp.devices import resolve_device, supports_fast_bf16
from hieramp.training.presets import PRESETS
from hieramp.training.tokens import Tokenizer
from hieramp.training.var import VARObjective


def tasks_of(name: str, batches: list[int], train: bool) -> dict[str, Callable[[], object]]:
    """By what it is: a drawing of the model, or a step of training its transformer further."""
    model = hieramp.load(name, "cpu")
    labels = [i % len(model.class_names) for i in range(max(batches))]
    tasks: dict[str, Callable[[], object]] = {
        f"{name}, {count} at once": partial(model.generate, labels[:count], range(count)) for count in batches
    }
    if train:
        preset = PRESETS["cifar10-small"]
        recipe = replace(preset.var_recipe, learning_rate=0.0)  # the weights stay those of a trained transformer
        objective = VARObjective(model.var.requires_grad_(True), Tokenizer(model.vqvae))
        stepper = Stepper(objective, recipe, model.vqvae.config.image_size, torch.device("cpu"))
        fast = supports_fast_bf16(resolve_device("cpu"))
        for dtype in [torch.float32, *([torch.bfloat16] if fast else [])]:
            tasks[f"{name}, a training step in {dtype}"] = partial(stepper.step, dtype)
    return tasks


def both_ways(task: Callable[[], object]) -> dict[bool, Callable[[], float]]:
    """Seconds of the processor, by whether denormal numbers are taken as 0."""

    def run(flushed: bool) -> float:
        torch.set_flush_denormal(flushed)
        try:
            return timed(task, time.process_time)
        finally:
            torch.set_flush_denormal(False)

    return {flushed: partial(run, flushed) for flushed in (False, True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tasks = tasks_of("cifar10", args.batch, train=True) | tasks_of("cifar10-dit", args.batch, train=False)
    for what, task in tasks.items():
        seconds = in_turns(both_ways(task), args.rounds)
        ratio = paired_ratio(seconds[False], seconds[True])
        print(
            f"{what}: {statistics.median(seconds[True]):.3f} s flushed, {ratio} times that with denormals", flush=True
        )


if __name__ == "__main__":
    main()
