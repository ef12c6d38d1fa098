"""Files that somebody else wrote, or that were damaged: each is answered with one sentence, before memory is taken."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import hieramp
import hieramp.errors
from app.distill_requests import DistillRequest
from app.jobs import STORED, Job, JobBook
from app.scheduling import Device
from app.visitor_limits import VisitorLimits
from hieramp.checkpoints import load_part, save_part
from hieramp.commands import compare, evaluate
from hieramp.commands.main import build_parser, main
from hieramp.distillation.parts import num_kept
from hieramp.evaluation.runner import Evaluation
from hieramp.evaluation.studies import filled, read_study
from hieramp.state_file import save_state
from hieramp.training.loop import progress_of


@pytest.fixture
def copied(model_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in model_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("var", "depth", 10**9),
        ("vqvae", "num_phi", 10**40),
        ("var", "width", 2**23),
        ("var", "depth", "x"),
        ("var", "depth", True),
        ("var", "width", None),
        ("var", "num_heads", 0),
        ("var", "sides", ["a"]),
        ("var", "sides", []),
        ("vqvae", "sides", 5),
        ("vqvae", "multipliers", []),
        ("vqvae", "num_groups", 0),
        ("vqvae", "num_groups", 7),
        ("vqvae", "phi_ratio", "half"),
        ("vqvae", "attention", "no"),
        ("var", "class_token_scales", [-1]),
    ],
)
def test_a_config_of_impossible_sizes_is_refused(copied: Path, part: str, name: str, value: Any) -> None:
    config = json.loads((copied / "config.json").read_text())
    config[part][name] = value
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(hieramp.errors.UserError) as told:
        hieramp.load(copied, "cpu")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("var", 3),
        ("vqvae", []),
        ("class_names", 3),
        ("class_names", ["a"]),
        ("class_names", ["a", None, "b", "c"]),
        ("class_tokens", ["x"]),
        ("class_tokens", {"condition": 5}),
        ("stands_on", 7),
        ("stands_on", {"var": 7}),
    ],
)
def test_a_config_of_wrong_entries_is_refused(copied: Path, name: str, value: Any) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {name: value}))
    with pytest.raises(hieramp.errors.UserError):
        hieramp.load(copied, "cpu")


def test_a_deep_config_is_refused(copied: Path) -> None:
    (copied / "config.json").write_text("[" * 100_000)
    with pytest.raises(hieramp.errors.UserError, match="is damaged"):
        hieramp.load(copied, "cpu")


def test_class_tokens_of_a_scale_that_is_not_there(copied: Path) -> None:
    tokens = load_part(copied, "class_tokens")
    tokens["cls_tokens.99"] = tokens.pop("cls_tokens.0")
    save_part(copied, "class_tokens", tokens)
    with pytest.raises(hieramp.errors.UserError):
        hieramp.load(copied, "cpu")


@pytest.mark.parametrize("part", ["vqvae", "var", "class_tokens"])
def test_weights_that_are_no_numbers_are_refused(copied: Path, part: str) -> None:
    state = load_part(copied, part)
    name = next(key for key, value in state.items() if value.is_floating_point())
    state[name].view(-1)[0] = torch.nan
    save_part(copied, part, state)
    if part != "class_tokens":
        config = json.loads((copied / "config.json").read_text())
        config.pop("stands_on", None)  # else the parts on it are refused first
        (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(hieramp.errors.UserError, match=r"holds values that are no numbers"):
        hieramp.load(copied, "cpu")


@pytest.mark.parametrize(
    "entries",
    [
        {"rows": 3},
        {"rows": {"a": "'"}},
        {"students": 5},
        {"students": []},
        {"runs": "x"},
        {"runs": 0},
        {"columns": [1]},
        {"published": [3]},
        {"protocol": "zz"},
        {"teachers": {"a": 1}},
        {"plot": "pie"},
    ],
)
def test_a_study_of_wrong_types_is_refused(tmp_path: Path, entries: dict[str, Any]) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps({"title": "t", "rows": {"a": "--ipc 1"}} | entries))
    with pytest.raises(hieramp.errors.UserError, match=f"its {next(iter(entries))} cannot be"):
        read_study(path)


@pytest.mark.parametrize("text", ["{data.foo}", "{data[0}", "{", "{0}", "{data:q}"])
def test_braces_that_hold_no_name_are_told(text: str) -> None:
    with pytest.raises(hieramp.errors.UserError):
        filled((text,), {"data": "images"})


@pytest.mark.parametrize("rows", ["--ipc x", "--ipc 1 --nonsense"])
def test_what_a_command_does_not_take_is_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: str
) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps({"title": "t", "rows": {"good": "--ipc 1", "bad": rows}}))
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "--study", str(path), "--test", ".", "--teacher", "t", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "usage" not in said and said.count("\n") == 1 and "study asks for" in said
    assert not (tmp_path / "out").exists()


def test_a_document_without_a_place_is_told_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, document = tmp_path / "study.json", tmp_path / "text.md"
    study.write_text(json.dumps({"title": "t", "rows": {"a": "--ipc 1"}}))
    document.write_text("nothing")
    given = ["--test", ".", "--teacher", "t", "--write", str(document), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        main(["compare", "--study", str(study), *given])
    assert "has no place for this study" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_training_state_that_does_not_say_how_far_it_is(tmp_path: Path) -> None:
    path = tmp_path / "training" / "var.safetensors"
    save_state(path, {"objective": torch.nn.Linear(1, 1)}, {"progress": "half"})
    with pytest.raises(hieramp.errors.UserError, match=r"does not say how far the run is"):
        progress_of(tmp_path, "var")


def test_a_search_with_a_student_that_is_none_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    data = image_folders(tmp_path / "data")
    given = ["--proxy", "student", "--student", "zzz", "--data", str(data), "--real-images", "10"]
    with pytest.raises(SystemExit) as stopped:
        main(["tune", "--trials", "1", "--ipc", "1", *given, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2 and "zzz" in capsys.readouterr().err and not (tmp_path / "out").exists()


def image_folders(root: Path) -> Path:
    for name in hieramp.load("cifar10", "cpu").class_names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), "red").save(root / name / "0.png")
    return root


@pytest.mark.parametrize("given", [["--teacher", ""], ["--teacher", "cifar10", "--size", "9" * 20]])
def test_an_evaluation_that_cannot_be_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    data, out = str(image_folders(tmp_path / "data")), tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", data, "--test", data, "--student", "small", "--epochs", "1", *given, "--out", str(out)])
    said = capsys.readouterr().err.splitlines()[-1]
    assert stopped.value.code == 2 and said.startswith("error: ") and not out.exists()


def test_names_that_steer_a_terminal_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["verify", "set\x1b[31m.zip"])
    assert "\x1b" not in capsys.readouterr().err


# Jobs of the page


def unfinished(book: JobBook) -> Job:
    """A set that was stopped after its first batch, under the book of a server that has ended since."""
    request = DistillRequest((0, 1), 4, 0, hieramp.Settings(), False, "set")
    job = Job("a" * 20, book.root / ("a" * 20), request)
    job.folder.mkdir(parents=True)
    (job.folder / STORED).write_text(request.to_json())
    return job


def begun(model: hieramp.Model, job: Job) -> Any:
    progress = iter(hieramp.distill(model, 4, job.path, classes=["airplane", "cat"], batch_size=4))
    while next(progress).done == 0:
        pass
    return progress


def test_a_job_found_again_tells_what_is_done(model: hieramp.Model, tmp_path: Path) -> None:
    job = unfinished(JobBook(model, tmp_path, Device(), VisitorLimits()))
    begun(model, job).close()
    found = JobBook(model, tmp_path, Device(), VisitorLimits()).get(job.id)
    assert found is not None and found.state == "stopped" and found.done == num_kept(job.path) == 4


def test_a_second_server_removes_no_job_that_is_looked_at_or_at_work(model: hieramp.Model, tmp_path: Path) -> None:
    job = unfinished(JobBook(model, tmp_path, Device(), VisitorLimits()))
    progress = begun(model, job)
    os.utime(job.folder / STORED, (0, 0))  # nobody has looked for long
    second = JobBook(model, tmp_path, Device(), VisitorLimits())
    second.sweep()
    assert job.folder.is_dir()  # for the first server is at work on it
    progress.close()
    os.utime(job.folder / STORED, (time.time(), time.time()))  # somebody asked the first server for it
    second.sweep()
    assert job.folder.is_dir()
    os.utime(job.folder / STORED, (0, 0))
    second.sweep()
    assert not job.folder.exists()


# Which images an evaluation reads


def test_an_evaluation_takes_the_split_that_is_named(tmp_path: Path) -> None:
    for split, count in {"train": 4, "test": 2, "extra": 3}.items():
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                Image.new("RGB", (32, 32), (40 * k, 90, 9)).save(folder / f"{k}.png")
    path = str(tmp_path / "data")
    given = ["evaluate", path, "--test", path, "--protocol", "hard", "--student", "small", "--device", "cpu"]
    for split, expected in {None: 4, "extra": 6, "train": 8}.items():
        more = ["--split", split, "--image-column", "photo"] if split else []
        args = build_parser().parse_args([*given, *more])
        config = evaluate.config_of(args, args.set, args.teacher, args.student)
        assert (config.split, config.image_column) == ((split, "photo") if split else (None, None))
        found = Evaluation(config)
        assert len(found.test.images) == expected and len(found.held.images) == 8


def test_compare_hands_split_and_columns_on(tmp_path: Path) -> None:
    given = [str(tmp_path), "--test", ".", "--split", "extra", "--label-column", "kind", "--out", str(tmp_path)]
    args = build_parser().parse_args(["compare", *given])
    study = compare._study(args)
    (cell,) = study.cells()
    (step,) = compare._steps(args, study, cell, {})
    made = build_parser().parse_args(step)
    assert (made.split, made.label_column, made.image_column) == ("extra", "kind", None)
