"""The first minutes on a card, rehearsed on the CPU at tiny size; a part that fails must show."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.card import runner
from benchmarks.card.part import read_results
from benchmarks.card.runner import LIMITS, Run

ROOT = Path(__file__).resolve().parent.parent


def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    """In a process of its own, as on a card: what has no GPU there is left out by the parts themselves."""
    command = [sys.executable, "-m", "benchmarks.card", "--out", tmp_path, "--tiny", "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = read_results(tmp_path)
    assert not [row for row in results if "failed" in row or row.get("ok") is False]
    assert [row["part"] for row in results if row["name"] == "done"] == list(LIMITS)
    named = {part: {str(row["name"]) for row in results if row["part"] == part} for part in LIMITS}
    assert {"rates, bfloat16", "attention chosen"} <= named["info"]
    assert {"noise, CPU and here", "shipped model, CPU and here", "logits, largest error"} <= named["equal"]
    assert {"bicubic", "sampling", "decoder", "attention of drawing, math, bias"} <= named["micro"]
    assert {f"{variant}, batch 2, replayed" for variant in ("base", "+ class tokens", "+ amplification")} <= named[
        "draw"
    ]
    assert {f"step of {of}" for of in ("var", "vqvae", "class-tokens", "classifier", "var, compiled")} <= named["train"]
    assert (tmp_path / "profile_draw.txt").stat().st_size and (tmp_path / "profile_train.txt").stat().st_size


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Parts of tests/broken_parts.py, which end quickly."""
    monkeypatch.setattr(runner, "ENDING", 0.5)
    monkeypatch.setattr(runner, "LEAST", 0.0)
    return Run(tmp_path, "cpu", True, False)


@pytest.mark.parametrize("how", ["raises", "attempts", "checks", "dies"])
def test_a_part_that_fails_is_told_and_the_next_one_runs(broken: Run, how: str) -> None:
    assert not broken.one(how, "broken_parts", 60)
    assert broken.one("works", "broken_parts", 60)
    rows = read_results(broken.folder)
    names = [row["name"] for row in rows if row["part"] == how]
    assert names[0] == "before" and names[-1] == "ended" and "failed" in rows[len(names) - 1]
    assert ("after" in names) == (how == "attempts")
    assert [row["name"] for row in rows if row["part"] == "works"] == ["before", "done"]


def test_a_part_that_hangs_is_stopped_and_keeps_what_it_emitted(broken: Run) -> None:
    assert not broken.one("hangs", "broken_parts", 2)
    rows = read_results(broken.folder)
    assert [row["name"] for row in rows] == ["before", "ended"]
    assert rows[-1]["failed"] == "stopped at its limit of 2 s"


def test_a_part_without_time_is_not_begun(tmp_path: Path) -> None:
    run = Run(tmp_path, "cpu", True, False)
    assert run.all(["info", "draw"], seconds=1) == ["info", "draw"]
    assert [row["failed"] for row in read_results(tmp_path)] == ["not begun: no time left"] * 2
