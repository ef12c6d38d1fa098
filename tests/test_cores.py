"""OpenMP's threads share the machine: what is set before torch is loaded, and what is left as it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hieramp import cores
from hieramp.cores import quota_of_cgroups, share_cores

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")


def environment_of(code: str) -> dict[str, str | None]:
    """What stands in the environment of a fresh Python after `code`."""
    env = {name: value for name, value in os.environ.items() if name not in (*cores.WAITING, *cores.COUNTING)}
    ending = f"import json, os; print(json.dumps([os.environ.get(name) for name in {NAMES}]))"
    command = [sys.executable, "-c", f"{code}\n{ending}"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return dict(zip(NAMES, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_everything_that_loads_torch_sets_it_before() -> None:
    """`python -m hieramp`, the command, the page, and a person's own `import hieramp`, on an otherwise fresh Python."""
    watch = (
        "import builtins, os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': print('torch', os.environ.get('OMP_WAIT_POLICY'), file=sys.stderr)\n"
        "sys.meta_path.insert(0, Watch())\n"
    )
    for entry in ("import hieramp.__main__", "import app.serve"):
        command = [sys.executable, "-c", watch + entry]
        env = {name: value for name, value in os.environ.items() if name not in cores.WAITING}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        assert "torch passive" in done.stderr and "torch None" not in done.stderr


@pytest.mark.parametrize("name", cores.WAITING)
def test_what_the_user_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "quota_of_cgroups", lambda: None)
    environment = {name: "7"}
    share_cores(environment)
    assert environment == {name: "7"}


def test_nothing_is_set_once_torch_is_loaded() -> None:
    """It would not be read any more, and child processes would be run by other settings than their parent."""
    assert set(environment_of("import torch, hieramp").values()) == {None}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells which libraries are loaded")
def test_the_openmp_of_torch_reads_what_is_set() -> None:
    """libgomp knows GOMP_SPINCOUNT; LLVM's and Intel's know OMP_WAIT_POLICY; another one would have to be looked at."""
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import hieramp, torch;"
    code += "torch.ones(10**6).sum(); print(torch.get_num_threads(), open('/proc/self/maps').read())"
    env = {name: value for name, value in os.environ.items() if name not in cores.COUNTING}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    threads, shown = done.stdout.split(maxsplit=1)
    assert threads == "1"  # it sees the affinity mask
    libraries = {Path(line.split()[-1]).name for line in shown.splitlines() if "/" in line}
    openmp = {name for name in libraries if name.startswith(("libgomp", "libomp", "libiomp5"))}
    assert len(openmp) == 1


FLUSHED = """
import torch
from concurrent.futures import ThreadPoolExecutor
def flushed():
    return float((torch.full((10**6,), 1e-39) * 0.5 == 0).float().mean())
with ThreadPoolExecutor(1) as pool:
    print(flushed(), pool.submit(flushed).result())
"""


@pytest.mark.parametrize(
    "entry",
    [
        "from hieramp.commands.main import main; main(['verify', '/nothing'])",
        "from app.serve import main; main(['--model', '/nothing'])",
    ],
    ids=["commands", "page"],
)
def test_denormals_are_zero_in_every_thread_of_ours(entry: str) -> None:
    """OpenMP's threads too, which see the halves of a large tensor."""
    statements = "\n    ".join(entry.split("; "))
    code = f"try:\n    {statements}\nexcept SystemExit: pass\n{FLUSHED}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "1.0 1.0"


def test_the_library_leaves_denormals_to_its_user() -> None:
    code = f"import hieramp\n{FLUSHED}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0.0 0.0"


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.mark.parametrize(
    ("own", "parent", "cores_"), [("150000 100000", "max 100000", 1.5), ("max 100000", "200000 100000", 2.0)]
)
def test_quotas_of_version_2(own: str, parent: str, cores_: float, tmp_path: Path) -> None:
    """The smallest of the group's and its parents' counts."""
    group(tmp_path / "fs" / "a" / "b", cpu__max=own)
    group(tmp_path / "fs" / "a", cpu__max=parent)
    (tmp_path / "self").write_text("0::/a/b\n")
    assert quota_of_cgroups(tmp_path / "self", tmp_path / "fs") == cores_


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_quotas_of_version_1(mount: str, tmp_path: Path) -> None:
    (tmp_path / "self").write_text("4:memory:/x\n3:cpu,cpuacct:/docker/1\n")
    assert quota_of_cgroups(tmp_path / "self", tmp_path / "fs") is None
    # a container sees its own group at the root of the mount
    group(tmp_path / "fs" / mount, **{"cpu__cfs_quota_us": "300000", "cpu__cfs_period_us": "100000"})
    assert quota_of_cgroups(tmp_path / "self", tmp_path / "fs") == 3.0
    group(tmp_path / "fs" / mount, **{"cpu__cfs_quota_us": "-1"})
    assert quota_of_cgroups(tmp_path / "self", tmp_path / "fs") is None


def test_no_groups_no_quota(tmp_path: Path) -> None:
    assert quota_of_cgroups(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(
    ("quota", "allowed", "physical", "threads"),
    [(2.5, 16, 8, "2"), (0.5, 16, 8, "1"), (12.0, 16, 8, "8"), (16.0, 16, 8, None), (None, 16, 8, None)],
)
def test_no_more_threads_than_the_quota_has_cores(
    quota: float | None, allowed: int, physical: int, threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "quota_of_cgroups", lambda: quota)
    monkeypatch.setattr(cores, "allowed_cores", lambda: set(range(allowed)))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: physical)
    environment: dict[str, str] = {}
    share_cores(environment)
    assert environment.get("OMP_NUM_THREADS") == threads
    environment = {"OMP_NUM_THREADS": "5"}
    share_cores(environment)
    assert environment["OMP_NUM_THREADS"] == "5"
