"""python -m benchmarks.generate: what class tokens and amplification cost, measured side by side.

Three variants of one model take turns in one process; a figure is the median over the rounds, and a ratio the
median of every round's own, with its 95 % interval. Memory is the growth of the peak during generation, each variant
in a process of its own (CPU: tensors in the profile; CUDA: peak allocated).

With --profile instead: where the time goes (benchmarks/phases.py).
With --reference DIR instead: beside the authors' code, at the sizes of var-d16 (benchmarks/reference.py).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

import hieramp
from benchmarks import phases, reference
from benchmarks.measuring import in_turns, paired_ratio, peak_of
from hieramp import SCHEDULES, Amplification, Model
from hieramp.devices import flush_denormals
from hieramp.files import markdown_table
from hieramp.var.class_tokens import is_class_token
from hieramp.var.model import VAR

VARIANTS = ("base", "+ class tokens", "+ amplification")


def variants(name: str, device: str) -> dict[str, tuple[Model, Amplification | None]]:
    """The model without its class tokens, with them, and amplified; all with the same weights."""
    model = hieramp.load(name, device)
    bare = VAR(replace(model.var.config, class_token_scales=())).to(model.device).eval()
    bare.load_state_dict({key: value for key, value in model.var.state_dict().items() if not is_class_token(key)})
    base = Model(model.vqvae, bare, model.class_names, "base").to(model.device)
    return dict(zip(VARIANTS, [(base, None), (model, None), (model, SCHEDULES["all"])], strict=True))


def draw(model: Model, amplification: Amplification | None, batch: int) -> float:
    """Seconds for one batch, from labels to pixels."""
    labels = [i % len(model.class_names) for i in range(batch)]
    started = time.perf_counter()
    for step in model.steps(labels, range(batch), amplification):
        last = step  # one at a time, as `Model.generate` does: a step holds its logits
    last.image.sum().item()
    return time.perf_counter() - started


def measure_time(name: str, device: str, batch: int, rounds: int) -> dict[str, list[float]]:
    """Seconds an image of each variant in every round."""

    def run(model: Model, amplification: Amplification | None) -> float:
        return draw(model, amplification, batch) / batch

    return in_turns({variant: partial(run, *what) for variant, what in variants(name, device).items()}, rounds)


def measure_memory(name: str, device: str, variant: str, batch: int) -> int:
    """Bytes by which the peak grows while one batch is drawn; in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.generate", "--model", name, "--device", device]
    command += ["--memory-of", variant, "--batch", str(batch)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak_growth(name: str, device: str, variant: str, batch: int) -> int:
    model, amplification = variants(name, device)[variant]
    draw(model, amplification, 1)
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        draw(model, amplification, batch)
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True) as profiler:
        draw(model, amplification, batch)
    return peak_of(profiler)


def _profile(name: str, device: str, batch: int) -> dict[tuple[str, str], float]:
    model, amplification = variants(name, device)[VARIANTS[-1]]
    plain = replace(model, captured=None)
    return phases.phases_of(lambda: draw(plain, amplification, batch), device.startswith("cuda"))


def _where(device: str) -> str:
    threads = torch.get_num_threads()
    return f"{os.cpu_count()} CPU cores, {threads} threads" if device == "cpu" else torch.cuda.get_device_name()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", action="store_true", help="where the time of an amplified drawing goes")
    parser.add_argument("--reference", type=Path, help="a checkout of FoundationVision/VAR to time beside ours")
    parser.add_argument("--reference-hieramp", type=Path, help="a checkout of HierAmp, likewise")
    parser.add_argument("--sizes", choices=reference.SIZES, default="d16", help="of the models with --reference")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    flush_denormals()
    if args.reference:
        sizes, batches = reference.SIZES[args.sizes], args.batch or [1, 25]
        rows, rates = reference.measure(
            args.reference, args.reference_hieramp, sizes, args.device, batches, args.rounds
        )
        print(f"{args.sizes} on {_where(args.device)}, torch {torch.__version__}, median of {args.rounds} rounds\n")
        print(reference.table(rows, rates))
        return
    args.batch = args.batch or [1, 8, 25]
    if args.profile:
        print(f"{args.model} on {_where(args.device)}, torch {torch.__version__}, amplified\n")
        print(phases.table({batch: _profile(args.model, args.device, batch) for batch in args.batch}))
        return
    if args.memory_of:
        print(_peak_growth(args.model, args.device, args.memory_of, args.batch[0]))
        return
    lines = []
    for batch in args.batch:
        seconds = measure_time(args.model, args.device, batch, args.rounds)
        memory = {variant: measure_memory(args.model, args.device, variant, batch) for variant in VARIANTS}
        lines += [
            {
                "batch": batch,
                "variant": v,
                "seconds": statistics.median(seconds[v]),
                "ratio": paired_ratio(seconds[v], seconds["base"]),
                "bytes": memory[v],
                "memory_ratio": memory[v] / memory["base"],
            }
            for v in VARIANTS
        ]
    if args.json:
        print(json.dumps([line | {"ratio": line["ratio"]._asdict()} for line in lines], indent=1))
        return
    print(f"{args.model} on {_where(args.device)}, torch {torch.__version__}, median of {args.rounds} rounds\n")
    cells = []
    for r in lines:
        memory_cells = [f"{r['bytes'] / 1e6:.1f} MB", f"{r['memory_ratio']:.3f}"]
        cells.append([str(r["batch"]), r["variant"], f"{r['seconds']:.4f}", str(r["ratio"]), *memory_cells])
    header = ["batch", "variant", "s an image", "time over base", "peak growth", "memory over base"]
    print(markdown_table(header, cells))


if __name__ == "__main__":
    main()
