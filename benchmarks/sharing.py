"""How threads that wait share a machine: python -m benchmarks.sharing [--beside N] [--work W …] [--rounds N]

Each way of waiting has a process of its own (OpenMP reads its settings once), and the processes take turns at the same
work: "draw B" draws B pictures, "train" takes a training step of the transformer and "student" one of a ConvNet.
Seconds are medians over the rounds, ratios those of the rounds, with their 95 % interval. --beside starts N
processes that keep a core busy each.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from benchmarks.measuring import in_turns, paired_ratio, timed
from hieramp.files import markdown_table

WAYS: dict[str, dict[str, str]] = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "OpenMP's own": {"OMP_WAIT_POLICY": ""},
    "GOMP_SPINCOUNT=200": {"GOMP_SPINCOUNT": "200"},
    "GOMP_SPINCOUNT=2000": {"GOMP_SPINCOUNT": "2000"},
    "as hieramp sets it": {},
}
SET = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "KMP_BLOCKTIME", "KMP_LIBRARY")


def training_step(part: str) -> Callable[[], object]:
    """A training step of a part of the preset cifar10-small, as `train` takes it here, with a batch of 16."""
    import torch

    from benchmarks.training import Stepper, objectives
    from hieramp.devices import supports_fast_bf16
    from hieramp.training.presets import PRESETS

    preset = PRESETS["cifar10-small"]
    objective, recipe = objectives(preset)[part]
    device = torch.device("cpu")
    stepper = Stepper(objective, replace(recipe, batch_size=16), preset.vqvae.image_size, device)
    return partial(stepper.step, torch.bfloat16 if supports_fast_bf16(device) else torch.float32)


def student_step() -> Callable[[], object]:
    """A step of the papers' ConvNet on 50 images, as a student's."""
    import torch

    from hieramp.evaluation.students import build_student

    network, images = build_student("convnet", 10, 32), torch.rand(50, 3, 32, 32)
    return lambda: network(images).sum().backward()


def work_when_asked(model: str) -> None:
    """For each line read, do that work and print the seconds."""
    import hieramp

    loaded, steps = hieramp.load(model, "cpu"), {}
    for line in sys.stdin:
        kind, *batch = line.split()
        if kind == "draw":
            size = int(batch[0])
            labels = [i % len(loaded.class_names) for i in range(size)]
            act: Callable[[], object] = partial(loaded.generate, labels, range(size), hieramp.SCHEDULES["all"])
        else:
            if kind not in steps:
                steps[kind] = student_step() if kind == "student" else training_step("var")
            act = steps[kind]
        print(timed(act), flush=True)


def started(model: str, way: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if name not in SET} | WAYS[way]
    environment = {name: value for name, value in environment.items() if value}
    first = "torch" if way == "OpenMP's own" else "hieramp"  # who sets what nobody did is who comes first
    code = f"import {first}; "
    code += f"from benchmarks.sharing import work_when_asked; work_when_asked({model!r})"
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def seconds_of(process: "subprocess.Popen[str]", work: str) -> float:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{work}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--work", nargs="+", default=["draw 1", "draw 8", "train", "student"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--beside", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"], text=True) for _ in range(args.beside)]
    workers = {way: started(args.model, way) for way in args.ways}
    try:
        rows = []
        for work in args.work:
            taken = in_turns({way: partial(seconds_of, process, work) for way, process in workers.items()}, args.rounds)
            for way, seconds in taken.items():
                ratios = (str(paired_ratio(seconds, taken[base])) for base in ("one thread", "OpenMP's own"))
                rows.append([work, way, f"{statistics.median(seconds):.3f}", *ratios])
    finally:
        for process in (*workers.values(), *busy):
            process.kill()
    print(f"{os.cpu_count()} cores, {args.beside} busy processes beside, load {os.getloadavg()[0]:.1f}\n")
    print(markdown_table(["work", "waiting", "s", "over one thread", "over OpenMP's own"], rows))


if __name__ == "__main__":
    main()
