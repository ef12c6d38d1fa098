"""The first minutes on a card, rehearsed on the CPU at tiny size; a part that fails must show."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.card import runner
from benchmarks.card.begin import begin
from benchmarks.card.part import read_results
from benchmarks.card.runner import LIMITS, Run
from hieramp.checkpoints import model_folder, read_config
from hieramp.classifier import load_classifier
from hieramp.commands.main import build_parser
from hieramp.training.presets import SMALL_SIDES
from hieramp.training.runs import load_vqvae

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


# the script


SCRIPT = ROOT / "benchmarks" / "card" / "first_minutes.sh"


def test_a_folder_to_train_in_has_what_a_transformer_needs(tmp_path: Path) -> None:
    begin(model_folder("cifar10"), tmp_path / "new")
    config = read_config(tmp_path / "new")
    assert set(config["trained"]) == {"vqvae", "classifier"} and not {"var", "class_tokens", "title"} & set(config)
    assert load_vqvae(tmp_path / "new").config.sides == SMALL_SIDES
    assert load_classifier(tmp_path / "new").config.num_classes == 10
    with pytest.raises(FileExistsError):
        begin(model_folder("cifar10"), tmp_path / "new")


def test_the_training_of_the_script_can_be_typed() -> None:
    lines = re.findall(r"python3 -m hieramp ([^>]*)", SCRIPT.read_text().replace("\\\n", " "))
    typed = [line.replace("${BUDGET:-$((END - 60))}", "240").replace("${budget}", "472") for line in lines]
    typed = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", line).replace('"$@"', "") for line in typed]
    args, of_dit = (build_parser().parse_args(shlex.split(line)) for line in typed)
    assert (of_dit.part, of_dit.batch_size, of_dit.budget) == ("dit", 512, 240)
    assert (args.part, args.preset, args.depth, args.shift, args.shift_until) == ("var", "cifar10-small", 12, 2, 0.94)
    assert (args.batch_size, args.learning_rate, args.budget) == (256, 2e-3, 472)
    assert args.warm_start == model_folder("cifar10")


def test_the_script_says_what_it_can_do(tmp_path: Path) -> None:
    for arguments, said in (([], "call 1"), (["prepare"], "prepare what?"), (["prepare", str(tmp_path / "no")], "no")):
        done = subprocess.run(["bash", SCRIPT, *arguments], capture_output=True, text=True)
        assert done.returncode == 1 and said in done.stdout + done.stderr
