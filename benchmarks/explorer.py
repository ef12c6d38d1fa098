"""python -m benchmarks.explorer: the page under twenty people at once, its memory after many pictures, and at rest.

Real gradio clients against a server of its own. Every visitor draws in turn and, while others draw, asks for the
list of classes, which is cheap and must not wait. Memory is that of a process that draws as the page does. --rest
opens the page in headless Chromium and counts what server and browser compute while nobody touches it.
"""

import argparse
import gc
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from hieramp.files import markdown_table

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Tally:
    """What the visitors saw, in seconds."""

    drawings: list[float] = field(default_factory=list)
    cheap: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)  # places told while waiting
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Load:
    """One run with so many visitors."""

    visitors: int
    drawings: int
    failures: int
    seconds: float  # until everybody was served
    drawing_median: float
    drawing_p95: float
    cheap_median: float
    cheap_p95: float
    told_a_place: int  # visitors' drawings during which a place in line was told
    load_average: float  # of the machine, before the run


@contextmanager
def served(model: str, device: str | None) -> Iterator[tuple[str, float, psutil.Process]]:
    """A server of its own: its address, the seconds until it answered, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--model", model, "--port", str(port)]
    started, address = time.perf_counter(), f"http://127.0.0.1:{port}"
    server = subprocess.Popen(command + (["--device", device] if device else []), cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while not _answers(address):
            if server.poll() is not None:
                raise RuntimeError("the server ended before it answered")
            time.sleep(0.1)
        yield address, time.perf_counter() - started, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=30) as page:
            return page.status == 200
    except OSError:
        return False


def visit(address: str, number: int, rounds: int, tally: Tally, together: threading.Barrier) -> None:
    """One person: cheap question, drawing, cheap question, …"""
    from gradio_client import Client

    client = Client(address, verbose=False)
    together.wait()
    for turn in range(rounds):
        started = time.perf_counter()
        try:
            job = client.submit(class_name=str(number % 4), seed=1000 * number + turn, api_name="/generate")
            cheap = time.perf_counter()
            client.predict(api_name="/classes")
            tally.cheap.append(time.perf_counter() - cheap)
            best = 0
            while not job.done():
                best = max(best, job.status().rank or 0)
                time.sleep(0.25)
            job.result()
            tally.drawings.append(time.perf_counter() - started)
            tally.ranks.append(best)
        except Exception as error:  # a visitor who is turned away is what is counted here
            tally.failures.append(str(error))


def measure_load(address: str, visitors: int, rounds: int) -> Load:
    tally, together, before = Tally(), threading.Barrier(visitors + 1), os.getloadavg()[0]
    threads = [
        threading.Thread(target=visit, args=(address, number, rounds, tally, together)) for number in range(visitors)
    ]
    for thread in threads:
        thread.start()
    together.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    told = sum(rank > 0 for rank in tally.ranks)
    times = (statistics.median(tally.drawings), _p95(tally.drawings), statistics.median(tally.cheap), _p95(tally.cheap))
    return Load(visitors, len(tally.drawings), len(tally.failures), seconds, *times, told, before)


def _p95(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def measure_memory(model: str, device: str | None, counts: tuple[int, int]) -> dict[int, int]:
    """Resident bytes after so many drawings, drawn as the page does with all its settings moving."""
    import hieramp
    from app import view_requests
    from app.context import AppContext

    torch.set_num_threads(1)
    context, process, seen = AppContext.make(hieramp.load(model, device)), psutil.Process(), {}
    for number in range(1, counts[1] + 1):
        label = number % len(context.model.class_names)
        changes = {"class_name": label, "seed": number, "count": 1 + number % 3, "mid_strength": number % 10}
        view_request = view_requests.read_request(context.model, view_requests.defaults(context.model) | changes)
        for _ in context.grow(view_request):
            pass
        if number in counts:
            gc.collect()
            seen[number] = process.memory_info().rss
    return seen


def measure_rest(address: str, server: psutil.Process, seconds: float) -> dict[str, float]:
    """Seconds of computing of the server and of a browser with the page open, in so many seconds at rest."""
    from playwright.sync_api import sync_playwright

    from app.screenshots import CHROMIUM

    with sync_playwright() as running:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = running.chromium.launch(executable_path=CHROMIUM, args=flags)
        tab = browser.new_page()
        tab.goto(address, timeout=120_000)
        tab.wait_for_selector('.viewer[aria-busy="false"]', timeout=120_000)
        tab.wait_for_timeout(15_000)  # the first pair has grown by then
        (driver,) = (child for child in psutil.Process().children() if child != server)
        before = _computed([server]), _computed(driver.children(recursive=True))
        time.sleep(seconds)
        after = _computed([server]), _computed(driver.children(recursive=True))
        browser.close()
    return {"server": after[0] - before[0], "browser": after[1] - before[1], "seconds": seconds}


def _computed(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cifar10")
    parser.add_argument("--device")
    parser.add_argument("--visitors", type=int, nargs="*", default=[1, 20])
    parser.add_argument("--rounds", type=int, default=3, help="drawings of each visitor")
    parser.add_argument(
        "--memory", type=int, nargs="*", default=[50, 500], help="compare memory after so many drawings"
    )
    parser.add_argument("--rest", type=float, metavar="SECONDS", help="count what an open page computes at rest")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    if args.visitors:
        found |= _under_load(args)
        if not args.json:
            print(_words(args.model, found), flush=True)  # the memory takes many minutes yet
    if args.rest:
        with served(args.model, args.device) as (address, _, server):
            found["rest"] = measure_rest(address, server, args.rest)
        if not args.json:
            print(_words(args.model, {"rest": found["rest"]}), flush=True)
    if args.memory:
        first, last = args.memory
        seen = measure_memory(args.model, args.device, (first, last))
        found["memory"] = {**seen, "ratio": seen[last] / seen[first]}
        if not args.json:
            print(_words(args.model, {"memory": found["memory"]}))
    if args.json:
        print(json.dumps(found, indent=1))


def _under_load(args: argparse.Namespace) -> dict[str, Any]:
    with served(args.model, args.device) as (address, seconds, _):
        started = time.perf_counter()
        urllib.request.urlopen(address).read()
        page = time.perf_counter() - started
        loads = [asdict(measure_load(address, visitors, args.rounds)) for visitors in args.visitors]
    return {"up_after": seconds, "page_seconds": page, "loads": loads}


def _words(model: str, found: dict[str, Any]) -> str:
    lines = []
    if "loads" in found:
        lines += [f"{model}: up after {found['up_after']:.1f} s, the page in {found['page_seconds']:.2f} s", ""]
        rows = [[f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in found["loads"]]
        lines.append(markdown_table(list(found["loads"][0]), rows))
    if "rest" in found:
        server, browser, seconds = found["rest"].values()
        lines.append(f"at rest: {server:.2f} s of the server's and {browser:.2f} s of the browser's in {seconds:g} s")
    if "memory" in found:
        (first, before), (last, after), (_, ratio) = found["memory"].items()
        sizes = f"{before / 2**20:.0f} MiB after {first} drawings, {after / 2**20:.0f} MiB after {last}"
        lines.append(f"memory: {sizes}, ratio {ratio:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
