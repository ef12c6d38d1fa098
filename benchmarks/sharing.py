"""How threads that wait share a machine: python -m benchmarks.sharing [--beside N] [--batch B …] [--rounds N]

Each way of waiting has a process of its own (OpenMP reads its settings once), and the processes take turns drawing.
A figure is the median over the rounds, a ratio that of the time over the time with one thread. --beside starts N
processes that keep a core busy each.
"""

import argparse
import os
import statistics
import subprocess
import sys
from functools import partial

from benchmarks.measuring import in_turns
from hieramp.files import markdown_table

WAYS: dict[str, dict[str, str]] = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "OpenMP's own": {"OMP_WAIT_POLICY": ""},
    "GOMP_SPINCOUNT=200": {"GOMP_SPINCOUNT": "200"},
    "GOMP_SPINCOUNT=2000": {"GOMP_SPINCOUNT": "2000"},
    "as hieramp sets it": {},
}
SET = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "KMP_BLOCKTIME", "KMP_LIBRARY")


def draw_when_asked(model: str) -> None:
    """For each batch size read, draw so many images and print the seconds."""
    import time

    import hieramp

    loaded = hieramp.load(model, "cpu")
    for line in sys.stdin:
        batch = int(line)
        started = time.perf_counter()
        loaded.generate([i % len(loaded.class_names) for i in range(batch)], range(batch), hieramp.SCHEDULES["all"])
        print(time.perf_counter() - started, flush=True)


def started(model: str, way: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if name not in SET} | WAYS[way]
    environment = {name: value for name, value in environment.items() if value}
    code = "import torch; " if way == "OpenMP's own" else ""  # torch first: hieramp would set what nobody did
    code += f"from benchmarks.sharing import draw_when_asked; draw_when_asked({model!r})"
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def seconds_of(process: "subprocess.Popen[str]", batch: int) -> float:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{batch}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--beside", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"], text=True) for _ in range(args.beside)]
    drawers = {way: started(args.model, way) for way in WAYS}
    try:
        rows = []
        for batch in args.batch:
            runs = {way: partial(seconds_of, process, batch) for way, process in drawers.items()}
            taken = {way: statistics.median(times) for way, times in in_turns(runs, args.rounds).items()}
            one = taken["one thread"]
            rows += [[str(batch), way, f"{seconds:.3f}", f"{seconds / one:.2f}"] for way, seconds in taken.items()]
    finally:
        for process in (*drawers.values(), *busy):
            process.kill()
    print(f"{os.cpu_count()} cores, {args.beside} busy processes beside, load {os.getloadavg()[0]:.1f}\n")
    print(markdown_table(["batch", "waiting", "s", "over one thread"], rows))


if __name__ == "__main__":
    main()
