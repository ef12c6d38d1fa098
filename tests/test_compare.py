"""Studies: sets are made, rows measured, tables written, and a second call goes on where the first stopped."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_train import PRESET_NAME

from hieramp.checkpoints import save_part, write_config
from hieramp.classifier import Classifier
from hieramp.commands.compare import _chosen
from hieramp.commands.main import main
from hieramp.config import ClassifierConfig, to_json
from hieramp.data.known import KNOWN
from hieramp.evaluation.images import load_set
from hieramp.evaluation.studies import Study, filled, read_study
from hieramp.evaluation.tables import figures, markdown, plot, summary, write_into

ROOT = Path(__file__).parent.parent
REAL = "--method random-real"
ENDS = "", "-recover-model-steps-3"  # of a set before and after


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    config = ClassifierConfig(32, 2, (1, 1, 1, 1), (8, 8, 8, 8), "half")
    save_part(folder, "classifier", Classifier(config).state_dict())
    write_config(folder, classifier=to_json(config), class_names=["blue", "red"])
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    entries = {
        "title": "Two ways to choose",
        "rows": {
            "random": "--method random-real --data {data}",
            "again": "--method random-real --data {data} --seed 1",
        },
        "columns": {"IPC 1": "--ipc 1", "IPC 2": "--ipc 2"},
        "students": ["small"],
        "runs": 1,
        "published": {"random": {"IPC 2": "12.3"}, "Other": {"IPC 1": "45.6"}},
    }
    path = tmp_path / "choice.json"
    path.write_text(json.dumps(entries))
    return path


def command(study: Path, images: Path, teacher: Path, tmp_path: Path, *more: str) -> list[str]:
    base = ["compare", "--study", str(study), "--data", str(images), "--test", str(images), "--teacher", str(teacher)]
    return [*base, "--epochs", "2", "--device", "cpu", "--out", str(tmp_path / "out"), *more]


def test_no_two_rows_of_a_chart_look_alike() -> None:
    study = Study("many", "Twelve rows", rows={f"row {i}": f"--seed {i}" for i in range(12)})
    results = {cell: {"runs": [{"best": 0.5, "last": 0.5}]} for cell in study.cells()}
    bars = plot(study, results).axes[0].patches
    assert len({(bar.get_facecolor(), bar.get_hatch()) for bar in bars}) == len(bars) == 12


def test_a_row_is_named_by_how_it_begins() -> None:
    cells = list(read_study(ROOT / "studies" / "ablation.json").cells())
    assert {cell.row for cell in _chosen(cells, "coarse")} == {"coarse"}
    assert {cell.row for cell in _chosen(cells, "weak coarse · ipc 10 · convnet")} == {"weak coarse"}
    assert len(_chosen(cells, "convnet")) == 8 and _chosen(cells, "") == cells and not _chosen(cells, "vit")


def test_a_study_makes_its_sets_measures_and_resumes(
    study: Path, image_folder: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    document = tmp_path / "results.md"
    document.write_text("before\n<!-- study choice -->\nold\n<!-- end of study choice -->\nafter\n")
    run = command(study, image_folder, teacher, tmp_path)
    main([*run, "--only", "IPC 1 ", "--write", str(document)])
    out, sets, one = tmp_path / "out" / "choice", tmp_path / "out" / "sets", "method-random-real-data-ipc-1"
    assert {p.name for p in sets.iterdir()} == {f"{one}.zip", "method-random-real-data-seed-1-ipc-1.zip"}
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert text.count("| – |") == 2  # of IPC 2; a method that is only published has nothing to measure
    curve = tmp_path / "out" / "results" / f"{one}-small-rded" / "curve-0.csv"
    stamp = curve.stat().st_mtime_ns
    capsys.readouterr()
    main([*run, "--write", str(document)])
    said = capsys.readouterr()
    assert "[1/4] random · IPC 1 · small" in said.err and "has all 1 runs already" in said.err
    assert curve.stat().st_mtime_ns == stamp
    text, full = document.read_text(), (out / "table.md").read_text()
    assert "| random |" in text and "12.3" in text and "45.6" in text and str(tmp_path) not in text
    assert "2 of 300 epochs; student small" in full
    assert f"python -m hieramp distill --method random-real --data {image_folder} --ipc 2" in full
    assert said.out.splitlines()[0] == "### Two ways to choose"
    rows = (out / "table.csv").read_text().splitlines()
    assert len(rows) == 5 and rows[1].startswith("random,IPC 1,,small,0,")
    with Image.open(out / "table.png") as picture:
        assert picture.width > 400
    main(["compare", "--study", str(study), "--table", "--out", str(tmp_path / "out")])
    assert full.startswith(text.partition("-->\n\n")[2].partition("\n\n<!--")[0])  # a reader's part comes first
    other = tmp_path / "other.json"  # another study with a row of the same set finds it measured
    other.write_text(json.dumps({"title": "Other", "rows": {"x": f"{REAL} --data D --ipc 2"}, "students": ["small"]}))
    main(["compare", "--study", str(other), "--table", "--out", str(tmp_path / "out")])
    assert "Nothing measured" in capsys.readouterr().out  # --data D is another set
    other.write_text(
        json.dumps({"title": "O", "rows": {"x": f"{REAL} --data {{data}} --ipc 2"}, "students": ["small"]})
    )
    main(["compare", "--study", str(other), "--table", "--out", str(tmp_path / "out")])
    assert "| x · small | 4 |" in capsys.readouterr().out


def test_a_study_trains_a_teacher_once(study: Path, image_folder: Path, teacher: Path, tmp_path: Path) -> None:
    entries = json.loads(study.read_text())
    make = "{data} --test {test} --protocol hard --student small --size 16 --epochs 1 --runs 1 --out {folder}/t"
    entries |= {"teachers": {"given": None, "own": make}, "columns": {"IPC 1": "--ipc 1"}}
    entries["rows"] = {"random": entries["rows"]["random"]}
    study.write_text(json.dumps(entries))
    main(command(study, image_folder, teacher, tmp_path))
    out, one = tmp_path / "out", "method-random-real-data-ipc-1"
    folders = [out / "results" / f"{one}-{teacher}small-rded" for teacher in ("", "own-")]
    given, own = (json.loads((folder / "result.json").read_text()) for folder in folders)
    assert own["teacher"]["name"] == "small" and own["teacher"]["sha256"] != given["teacher"]["sha256"]
    assert own["set"]["sha256"] == given["set"]["sha256"]
    table = (out / "choice" / "table.md").read_text()
    assert "| random, teacher given |" in table and "| random, teacher own |" in table


def test_rows_are_spread_over_two_workers(
    study: Path,
    image_folder: Path,
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """Two processes of a cluster on this machine make the same table as one; what they stop at is told at the end."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    main(command(study, image_folder, teacher, tmp_path))
    alone = (tmp_path / "out" / "choice" / "table.csv").read_text()
    entries = json.loads(study.read_text())
    entries["rows"]["wrong"] = "--method random-real --data {data} --classes cat"
    study.write_text(json.dumps(entries))
    on_ray = [*command(study, image_folder, teacher, tmp_path / "ray"), "--engine", "ray", "--workers", "2"]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(on_ray)
    told = capsys.readouterr().err
    assert len(set(re.findall(r"process (\d+)\)", told))) == 2
    assert "wrong · IPC 1" in told.splitlines()[-1] and "'cat'" in told.splitlines()[-1] and "1 more" in told
    spread = (tmp_path / "ray" / "out" / "choice" / "table.csv").read_text().splitlines()
    rows = [line for line in spread if not line.startswith("wrong")]
    assert [line.rpartition(",")[0] for line in rows] == [line.rpartition(",")[0] for line in alone.splitlines()]
    assert not list((tmp_path / "ray" / "out").glob(".seen-by-*"))


def test_a_row_may_be_drawn_anew_by_diver(image_folder: Path, teacher: Path, tmp_path: Path) -> None:
    for part in ("vqvae", "dit"):
        main(["train", part, "--preset", PRESET_NAME, "--data", str(image_folder), "--out", str(tmp_path / "dit")])
    study, rows = tmp_path / "anew.json", {"real": f"{REAL} --data {{data}}", "real + DIVER": f"{REAL} --data {{data}}"}
    recovered = {"real + DIVER": "--model {dit} --steps 3"}
    entries = {"title": "Anew", "rows": rows, "columns": {"IPC 2": "--ipc 2"}, "students": ["small"], "runs": 1}
    study.write_text(json.dumps(entries | {"recovered": recovered}))
    main([*command(study, image_folder, teacher, tmp_path), "--define", f"dit={tmp_path / 'dit'}"])
    given, anew = (load_set(tmp_path / "out" / "sets" / f"method-random-real-data-ipc-2{end}.zip") for end in ENDS)
    assert torch.equal(given.labels, anew.labels) and given.images.shape[0] == anew.images.shape[0] == 4
    small = torch.nn.functional.interpolate(given.images.float(), anew.images.shape[-1])
    assert float((small - anew.images.float()).abs().mean()) > 5  # of 255: these are other pictures
    table = (tmp_path / "out" / "anew" / "table.md").read_text()
    assert table.count("hieramp recover ") == 1 and table.count("| – |") == 0 and "| real + DIVER |" in table


def test_sets_that_are_there(image_folder: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for ipc in (1, 2):
        path = str(tmp_path / f"ipc{ipc}.zip")
        main(["distill", "--method", "random-real", "--data", str(image_folder), "--ipc", str(ipc), "--out", path])
    sets = [str(tmp_path / f"ipc{ipc}.zip") for ipc in (1, 2)]
    options = ["--test", str(image_folder), "--teacher", str(teacher), "--epochs", "1", "--runs", "1"]
    capsys.readouterr()
    main(["compare", *sets, *options, "--student", "small", "convnet", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert "|  | small | convnet |" in said and "| ipc1 |" in said and "| ipc2 |" in said and "| – |" not in said


def test_every_study_that_ships_can_be_read(tmp_path: Path) -> None:
    results = (ROOT / "docs" / "results.md").read_text()
    names = {path.stem for path in (ROOT / "studies").glob("*.json")}
    assert names == {
        "methods",
        "methods-diffusion",
        "dit",
        "ablation",
        "controls",
        "architectures",
        "class-tokens",
        "ipc-curve",
        *(set(KNOWN) - {"cifar10"}),
    }
    for name in names:
        study = read_study(ROOT / "studies" / f"{name}.json")
        cells = list(study.cells())
        assert len({cell.slug for cell in cells}) == len(cells), name
        values = {"data": "D", "without": "W", "test": "T", "folder": "F", "teacher": "A", "dit": "D", "minimax": "M"}
        for cell in cells:
            assert "--ipc" in filled(cell.distill, values)
        assert f"<!-- study {name} -->" in results and markdown(study, dict.fromkeys(cells)).startswith("### ")
    ablation, methods = (list(read_study(ROOT / "studies" / f"{n}.json").cells()) for n in ("ablation", "methods"))
    assert len(ablation) == 16 and len({c.slug for c in ablation} & {c.slug for c in methods}) == 4  # off, all


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give either sets to compare or --study"),
        (["--study", "none.json"], "none.json does not exist"),
        (["a/s.zip", "b/s.zip"], "have the same name"),
        (["a.zip"], "--test is missing"),
        (["a.zip", "--test", ".", "--only", "z"], "no row of sets has that in its name"),
        (["--study", "STUDY", "--test", "."], "the study needs data: give --data"),
        (["--study", "STUDY", "--table", "--write", "no.md"], "--write is no.md, which does not exist"),
        (["--study", "STUDY", "--test", ".", "--define", "what"], "--define what should read NAME=VALUE"),
    ],
)
def test_compare_misuse(
    arguments: list[str], said: str, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = [str(study) if text == "STUDY" else text for text in arguments]
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *arguments, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_a_row_may_be_left_out_of_a_column() -> None:
    study = Study("s", "S", rows={"a": "", "b": ""}, columns={"one": "--ipc 1", "two": ""}, left_out={"a": ["one"]})
    assert [(cell.row, cell.column) for cell in study.cells()] == [("b", "one"), ("a", "two"), ("b", "two")]
    assert "| a |  | – |" in figures(study, dict.fromkeys(study.cells()))


def test_rows_of_fewer_than_three_students_are_marked_and_explained() -> None:
    study = Study("s", "S", rows={"a": "", "b": "", "c": ""}, columns={"one": ""})
    runs = [[{"best": 0.5, "last": 0.5}, {"best": 0.6, "last": 0.6}, {"best": 0.7, "last": 0.7}][:n] for n in (1, 2, 3)]
    results = {cell: {"runs": some, "preview": []} for cell, some in zip(study.cells(), runs, strict=True)}
    text = summary(study, results)
    assert "| a | 50.0¹ |" in text and "| b | 55.0 ± 7.1² |" in text and "| c | 60.0 ± 10.0 |" in text
    assert "¹ one run, so no deviation." in text and "² two runs, so the deviation is hardly known." in text
    first, *_ = study.cells()
    assert "²" not in summary(study, dict.fromkeys(study.cells()) | {first: results[first]})


def test_a_foreign_study_and_a_document_without_a_place(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"title": "t", "rows": {}, "colums": {}}')
    with pytest.raises(ValueError, match="unknown: colums"):
        read_study(tmp_path / "s.json")
    (tmp_path / "d.md").write_text("nothing")
    with pytest.raises(ValueError, match="has no place for this study"):
        write_into(tmp_path / "d.md", "s", "text")


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.json")), ids=lambda path: path.stem)
def test_labels_below_a_chart_can_be_read(path: Path) -> None:
    study = read_study(path)
    figure = plot(study, {cell: {"runs": [{"best": 0.5, "last": 0.5}]} for cell in study.cells()})
    figure.draw_without_rendering()
    labels = [label for label in figure.axes[0].get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    assert len(labels) == len(study.headings())
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
