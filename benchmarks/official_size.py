"""python -m benchmarks.official_size: the whole way at the official size, with random weights: time and memory.

A VAR of the geometry of var-d16 and its VQ-VAE (0.4 billion numbers) draw a set of 224 px, an ImageNet network labels
it for every epoch, and a ResNet-18 is trained on it and tested. Each step is a command of its own in a process of its
own. What comes out means nothing; what it takes does.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from PIL import Image

from hieramp.config import VARConfig, VQVAEConfig
from hieramp.loading import HUB_VQVAE
from hieramp.var.model import VAR
from hieramp.vqvae.model import VQVAE

MODEL = "var-d16"
TEACHER = "tf_efficientnet_lite2"
CLASSES = ("n02086240", "n02087394")  # two of ImageWoof's
SIZE = 224
TEST_IMAGES = 4  # of each class


class Step(NamedTuple):
    """What a command took."""

    command: str
    seconds: float
    cpu_seconds: float
    peak: int  # bytes of memory, of the whole process


def make_weights(folder: Path, seed: int = 0) -> None:
    """Random weights under the names of the official files: 1.7 GB."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(VQVAE(VQVAEConfig()).state_dict(), folder / HUB_VQVAE)
    torch.save(VAR(VARConfig()).state_dict(), folder / f"{MODEL.replace('-', '_')}.pth")


def make_teacher(file: Path, seed: int = 0) -> None:
    """Random weights of an ImageNet network of timm's."""
    torch.manual_seed(seed)
    torch.save(timm.create_model(TEACHER, pretrained=False).state_dict(), file)


def make_test_images(folder: Path, seed: int = 0) -> None:
    """Noise in a folder for each class."""
    rng = np.random.default_rng(seed)
    for wnid in CLASSES:
        (folder / "test" / wnid).mkdir(parents=True, exist_ok=True)
        for number in range(TEST_IMAGES):
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "test" / wnid / f"{number}.png")


def whole_way(folder: Path, teacher: Path | None = None, ipc: int = 1, epochs: int = 2) -> list[Step]:
    """Draw, label, evaluate, in `folder`; `teacher` is a file of the network's weights, None makes random ones."""
    make_weights(folder / "home")
    make_test_images(folder / "images")
    if teacher is None:
        teacher = folder / "teacher.pth"
        make_teacher(teacher)
    device = ["--device", "cpu"]
    drawn = ["--model", MODEL, "--classes", ";".join(CLASSES), "--size", str(SIZE), "--ipc", str(ipc)]
    labelled = ["--teacher", f"{TEACHER}={teacher}", "--epochs", str(epochs)]
    judged = ["--teacher", str(folder / "labels"), "--test", str(folder / "images"), "--student", "resnet18"]
    judged += ["--epochs", str(epochs), "--runs", "1", "--last-alone"]
    made = str(folder / "set.zip")
    return [
        _run(["distill", *drawn, *device, "--out", made], folder / "home"),
        _run(["relabel", made, *labelled, *device, "--out", str(folder / "labels")], folder / "home"),
        _run(["evaluate", made, *judged, *device, "--out", str(folder / "result")], folder / "home"),
    ]


def _run(arguments: list[str], home: Path) -> Step:
    started = time.perf_counter()
    environment = os.environ | {"HIERAMP_HOME": str(home.resolve())}
    process = subprocess.Popen([sys.executable, "-m", "hieramp", *arguments], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    seconds = time.perf_counter() - started
    return Step(arguments[0], seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, metavar="FILE", help=f"weights of {TEACHER} (default: random ones)")
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        steps = whole_way(Path(folder), args.teacher, args.ipc, args.epochs)
    print(f"{len(CLASSES)} classes, {args.ipc} image(s) of each, {args.epochs} epochs, {os.cpu_count()} CPU cores")
    print("| step | s | CPU s | peak memory |\n| --- | --- | --- | --- |")
    for step in steps:
        print(f"| {step.command} | {step.seconds:.0f} | {step.cpu_seconds:.0f} | {step.peak / 2**30:.1f} GiB |")


if __name__ == "__main__":
    main()
