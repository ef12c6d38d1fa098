"""What an evaluation leaves behind: result.json, a curve and a confusion matrix per run, and two pictures of them."""

import csv
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from hieramp.class_names import short_name
from hieramp.devices import supports_fast_bf16
from hieramp.errors import UserError
from hieramp.evaluation.keeper import EpochRow
from hieramp.evaluation.trainer import StudentResult
from hieramp.figures import save_figure, spelled_out
from hieramp.files import csv_text, write_text
from hieramp.version import __version__

RESULT = "result.json"
MAX_SHOWN = 24  # characters of a name on an axis
MAX_NAMED = 20  # more classes than this are not named on the axes
INK, ACCENT = "#1c1b22", "#b5483a"


@dataclass(frozen=True)
class Score:
    """Mean and standard deviation over runs, as shares; no deviation for one run."""

    mean: float
    std: float | None

    def __str__(self) -> str:
        spread = "" if self.std is None else f" ± {100 * self.std:.1f}"
        return f"{100 * self.mean:.1f}{spread}"


def score(values: Sequence[float]) -> Score:
    return Score(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def read_result(folder: Path) -> dict[str, Any] | None:
    """result.json of a folder, None where there is none.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict) or "key" not in found or "runs" not in found:
            raise ValueError("it holds no evaluation")
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; remove it to begin anew") from error
    return found


def write_result(folder: Path, result: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / RESULT, json.dumps(result, indent=1) + "\n")


def scores(result: dict[str, Any]) -> tuple[Score, Score]:
    """Best and last accuracy over the runs of a result."""
    return score([run["best"] for run in result["runs"]]), score([run["last"] for run in result["runs"]])


def run_entry(run: StudentResult) -> dict[str, Any]:
    return {
        "seed": run.seed,
        "best": run.best,
        "best_epoch": run.best_epoch,
        "last": run.last,
        "seconds": round(run.seconds, 1),
    }


def versions() -> dict[str, str]:
    return {
        "hieramp": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "timm": version("timm"),
    }


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    precision = "bfloat16" if supports_fast_bf16(device) else "float32"
    return f"{os.cpu_count()} CPU cores, {threads} thread{'s' if threads > 1 else ''}, {precision}"


def write_run(folder: Path, run: StudentResult, class_names: Sequence[str]) -> None:
    """Curve and confusion matrix of one run as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["epoch", "learning_rate", "loss", "agreement", "test_accuracy"]
    rows = [[getattr(row, name) for name in columns] for row in run.curve]
    write_text(folder / f"curve-{run.seed}.csv", csv_text([columns, *rows]))
    matrix = [[name, *counts] for name, counts in zip(class_names, run.confusion.tolist(), strict=True)]
    write_text(folder / f"confusion-{run.seed}.csv", csv_text([["true \\ named", *class_names], *matrix]))


def read_curve(path: Path) -> list[EpochRow]:
    with path.open(newline="") as file:
        return [
            EpochRow(
                int(row["epoch"]),
                float(row["learning_rate"]),
                float(row["loss"]),
                float(row["agreement"]),
                float(row["test_accuracy"]) if row["test_accuracy"] else None,
            )
            for row in csv.DictReader(file)
        ]


def read_confusion(path: Path) -> Tensor:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return torch.tensor([[int(count) for count in row[1:]] for row in rows])


def write_pictures(folder: Path, result: dict[str, Any], class_names: Sequence[str]) -> list[Path]:
    """curve.png and confusion.png, of all runs."""
    seeds = [run["seed"] for run in result["runs"]]
    curves = {seed: read_curve(folder / f"curve-{seed}.csv") for seed in seeds}
    confusion_KK = torch.stack([read_confusion(folder / f"confusion-{seed}.csv") for seed in seeds]).sum(0)
    paths = [folder / "curve.png", folder / "confusion.png"]
    save_figure(curve_figure(curves), paths[0])
    save_figure(confusion_figure(confusion_KK, class_names), paths[1])
    return paths


def curve_figure(curves: dict[int, list[EpochRow]]) -> Figure:
    """Loss of every epoch, and the test accuracy where it was measured; one line per run."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.add_subplot()
    right = left.twinx()
    for seed, rows in curves.items():
        left.plot([r.epoch for r in rows], [r.loss for r in rows], color=INK, alpha=0.6, linewidth=1)
        tested = [(r.epoch, 100 * r.test_accuracy) for r in rows if r.test_accuracy is not None]
        right.plot(*zip(*tested), "o-", color=ACCENT, markersize=3, linewidth=1, label=f"seed {seed}")
    left.set(xlabel="epoch", ylabel="loss", yscale="log")
    right.set_ylabel("test accuracy, %", color=ACCENT)
    return figure


def confusion_figure(confusion_KK: Tensor, class_names: Sequence[str]) -> Figure:
    """Shares of each true class (rows) that were named as which."""
    share_KK = confusion_KK / confusion_KK.sum(1, keepdim=True).clamp_min(1)
    num_classes = len(class_names)
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(100 * share_KK.numpy(), cmap="magma", vmin=0, vmax=100)
    figure.colorbar(picture, label="% of the true class")
    axes.set(xlabel="named", ylabel="true")
    if num_classes <= MAX_NAMED:
        short = [spelled_out(short_name(name))[:MAX_SHOWN] for name in class_names]
        axes.set_xticks(range(num_classes), short, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(num_classes), short, parse_math=False)
    if num_classes <= MAX_NAMED // 2:
        for i, row in enumerate(share_KK.tolist()):
            for j, share in enumerate(row):
                color = "white" if share < 0.6 else "black"
                axes.text(j, i, f"{100 * share:.0f}", color=color, ha="center", va="center", fontsize=8)
    return figure
