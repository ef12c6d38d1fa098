"""Rows of a table spread over a Ray cluster: each worker makes a set and trains its students.

Sets, teachers and results go to --out, which all machines must see, as must the data; so a killed call goes on from
what is there, wherever its rows ran.
"""

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import torch

from hieramp.errors import UserError

Steps = list[list[str]]  # arguments of commands, in turn


class Done(NamedTuple):
    """A job that a worker is through with."""

    number: int
    worker: str  # machine and process
    error: str | None  # what it stopped at, a sentence


@contextmanager
def cluster() -> Iterator[Any]:
    """Ray: the cluster of RAY_ADDRESS, else one on this machine.

    Raises:
        UserError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError("--engine ray needs Ray: pip install -r requirements-ray.txt") from error
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def spread(
    ray: Any, jobs: Sequence[Steps], do: Callable[[Steps], None], out: Path, workers: int | None, device: str | None
) -> Iterator[Done]:
    """Do jobs, at most `workers` at a time (None: one a GPU, or one a machine where there is none), as they end.

    A job whose machine is lost is begun again elsewhere. One that a user's error ends is told of; the others go on.
    """
    gpus = 0 if device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
    at_once = workers or gpus or len([node for node in ray.nodes() if node["Alive"]])
    out.mkdir(parents=True, exist_ok=True)
    marker = out.resolve() / f".seen-by-{uuid4().hex}"
    marker.touch()
    remote = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(_do)
    waiting = list(enumerate(jobs))
    running: dict[Any, int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, steps = waiting.pop(0)
                running[remote.remote(do, steps, Path.cwd(), marker, torch.get_num_threads())] = number
            ready, _ = ray.wait(list(running))
            for future in ready:
                number = running.pop(future)
                yield Done(number, *ray.get(future))
    finally:
        marker.unlink()


def _do(do: Callable[[Steps], None], steps: Steps, folder: Path, marker: Path, threads: int) -> tuple[str, str | None]:
    """In a worker: who it is, and what it stopped at."""
    worker = f"{socket.gethostname()}, process {os.getpid()}"
    if not marker.is_file():
        return worker, f"{worker} does not see {marker.parent}: give an --out on a disk that all machines share"
    os.chdir(folder)
    torch.set_num_threads(threads)
    try:
        do(steps)
    except (UserError, OSError) as error:
        return worker, str(error)
    return worker, None
