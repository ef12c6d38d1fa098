"""How OpenMP's threads wait and how many there are: decided before torch is loaded, where the user decided nothing.

Beside other work on the machine a thread that spins while it waits for its turn takes the core that it waits for:
drawing three pictures beside two busy processes took 21 s instead of 0.43 s. Importing this module sets, unless torch
is loaded already or the user set any of them,

- OMP_WAIT_POLICY=passive: read by every OpenMP runtime (libgomp, which torch's wheels for Linux bring, LLVM's libomp
  and Intel's libiomp5), as not to spin at all. With nothing else to do that costs 2 to 3 % (docs/benchmarks.md), as
  GOMP_SPINCOUNT=200 does; on another machine it was 5 to 11 %. libgomp's GOMP_SPINCOUNT=2000 would lose less, but with
  3 to 6 processes waiting for two cores it took 6.6 times one thread's time: set it where nothing else runs;
- OMP_NUM_THREADS: where a container may use fewer cores than the machine shows. OpenMP itself sees the affinity mask,
  but no quota.
"""

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

import psutil

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
COUNTING = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_THREAD_LIMIT")


def share_cores(environment: MutableMapping[str, str]) -> None:
    """Put into `environment` what makes OpenMP share the machine; what is there stays."""
    if not any(name in environment for name in WAITING):
        environment["OMP_WAIT_POLICY"] = "passive"
    quota = quota_of_cgroups()
    if quota is not None and quota < len(allowed_cores()) and not any(name in environment for name in COUNTING):
        # torch takes one thread a physical core: a quota must not make it more
        environment["OMP_NUM_THREADS"] = str(max(1, min(int(quota), psutil.cpu_count(logical=False) or 1)))


def allowed_cores() -> set[int]:
    """The logical cores of the affinity mask (`taskset`, cpusets)."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def quota_of_cgroups(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """How many cores' worth of time the process and all its parents may use; None where nothing limits it.

    Version 2 of Linux's control groups says so in cpu.max, version 1 in cpu.cfs_quota_us and cpu.cfs_period_us.
    """
    try:
        lines = proc.read_text().splitlines()
    except OSError:  # not Linux
        return None
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            found += [_quota(folder, "cpu.max") for folder in _upwards(root, path)]
        elif "cpu" in controllers.split(","):
            for mount in {controllers, "cpu"}:
                found += [
                    _quota(folder, "cpu.cfs_quota_us", "cpu.cfs_period_us") for folder in _upwards(root / mount, path)
                ]
    return min((quota for quota in found if quota is not None), default=None)


def _upwards(root: Path, path: str) -> list[Path]:
    """The folder of a group and those of its parents. A container may see its own group at the root."""
    folder = root / path.strip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]


def _quota(folder: Path, *names: str) -> float | None:
    try:
        quota, period = " ".join((folder / name).read_text() for name in names).split()
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # absent, or "max"
        return None


if "torch" not in sys.modules:
    share_cores(os.environ)
