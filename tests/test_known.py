"""The papers' data sets by name: small folders with the layouts that people have, and the studies of each."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_train
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, ImageNetInfo

from hieramp import imagenet
from hieramp.checkpoints import save_part, write_config
from hieramp.class_names import described_classes
from hieramp.classifier import Classifier
from hieramp.commands.main import main
from hieramp.config import ClassifierConfig, to_json
from hieramp.data import open_source
from hieramp.data.known import KNOWN, located
from hieramp.evaluation.protocols import PROTOCOLS, training_of
from hieramp.training.presets import PRESETS

ROOT = Path(__file__).parent.parent
FEW = 4  # classes; as many as the tiny model has


def test_imagenets_classes_and_colours_are_those_of_timm() -> None:
    info = ImageNetInfo()
    assert {wnid: info.label_name_to_description(wnid) for wnid in info.label_names()} == imagenet.WORDS
    assert tuple(imagenet.WORDS) == tuple(info.label_names())
    assert (imagenet.MEAN, imagenet.STD) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def lay_out(root: Path, name: str, copies: int = 2) -> None:
    """A few training images and a test image a class, as the set's own archive has them."""
    test = {"cifar10": "test", "cifar100": "test"}.get(name, "val")
    between = ["images"] if name == "tiny-imagenet" else []
    for number, label in enumerate(KNOWN[name].classes):
        for copy in range(copies):
            draw(root.joinpath("train", label, *between, f"{label}_{copy}.JPEG"), 9 * number + copy)
        draw(root / test / label / "0.JPEG", 9 * number + 8)


@pytest.fixture(params=sorted(KNOWN))
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set with the first of its classes alone: a thousand folders would take a minute."""
    few = replace(KNOWN[request.param], classes=KNOWN[request.param].classes[:FEW])
    monkeypatch.setitem(KNOWN, request.param, few)
    return request.param


def test_each_is_found_by_its_name_and_its_archives(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (name, *KNOWN[name].folders):
        root = tmp_path / "sets" / folder
        lay_out(root / folder, name)
        monkeypatch.setenv("HIERAMP_DATA", str(root))
        for split, images in (("train", 2), ("test", 1)):
            source = open_source(name, split)
            assert source.class_names == tuple(sorted(KNOWN[name].classes))
            assert len(source) == images * FEW
        said = capsys.readouterr().err
        assert f"{KNOWN[name].title}: the folder {root / folder}" in said and "warning" not in said
    shutil.rmtree(root / folder / "train" / KNOWN[name].classes[0])
    draw(root / folder / "train" / "zebra fish" / "0.png", 0)
    open_source(name, "train")
    expected = f"warning: {KNOWN[name].title} has 4 classes, of which 3 are here; 'zebra fish' is none of them"
    assert expected in capsys.readouterr().err


def test_without_a_folder_it_is_the_hubs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HIERAMP_DATA", raising=False)
    hub = KNOWN[name].hub
    if hub is None:
        with pytest.raises(
            ValueError, match=f"no folder {name} in data, ., and it is not on the Hub; set HIERAMP_DATA"
        ):
            located(name)
    else:
        assert located(name.upper()) == f"hfds/{hub}"
        assert f"no folder {name} in data, .; {hub} of the Hub is taken" in capsys.readouterr().err
    for other in ("my/pictures", "cifar", f"./{name}"):
        assert located(other) == other
    (tmp_path / name).mkdir()
    assert located(name) == name  # a folder of that name right here is what it says


def test_the_lists_of_classes() -> None:
    counts = {title: len(set(known.classes)) for title, known in KNOWN.items()}
    assert counts == {
        "cifar10": 10,
        "cifar100": 100,
        "tiny-imagenet": 200,
        "imagenette": 10,
        "imagewoof": 10,
        "imagenet100": 100,
        "imagenet": 1000,
    }
    assert all(len(known.classes) == counts[title] for title, known in KNOWN.items())
    thousand = KNOWN["imagenet"].classes
    for title in ("tiny-imagenet", "imagenette", "imagewoof", "imagenet100"):
        assert set(KNOWN[title].classes) <= set(thousand)
    # the order of DD-Ranking, which counts by ImageNet's own numbers (docs/protocols.md)
    numbers = [thousand.index(wnid) for wnid in KNOWN["imagewoof"].classes]
    assert numbers == [193, 182, 258, 162, 155, 167, 159, 273, 207, 229]
    assert {known.preset for known in KNOWN.values()} <= set(PRESETS)


def test_the_protocol_of_each() -> None:
    """Batch size, least crop and shuffled patches at 1, 10 and 50 images a class, as in the code of RDED's authors."""
    batches = {"cifar100": (20, 100, 200), "tiny-imagenet": (100,) * 3} | dict.fromkeys(
        ("imagenet100", "imagenet"), (20, 100, 200)
    )
    for title, known in KNOWN.items():
        count, size = len(known.classes), known.image_size
        for ipc, batch in zip((1, 10, 50), batches.get(title, (10, 50, 100)), strict=True):
            training = training_of(PROTOCOLS["rded"], "resnet18", ipc * count, count, size)
            assert (training.batch_size, training.epochs, training.learning_rate) == (batch, 300, 1e-3), (title, ipc)
            assert (training.min_crop, training.shuffle_patches) == ((1.0, 1) if size <= 64 else (0.5, 2))


def test_each_has_a_line_of_the_page_and_a_study() -> None:
    page = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    lines = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert set(lines) == set(KNOWN)
    for title, known in KNOWN.items():
        cells = [cell.strip() for cell in lines[title].strip("|").split("|")]
        teacher = (
            "timm/resnet18.tv_in1k" if known.teacher_accuracy is None else f"ResNet-18, {known.teacher_accuracy} %"
        )
        assert cells[1:4] == [f"{len(known.classes):,}", f"{known.image_size} px", known.hub or "–"]
        assert known.preset in cells[4] and teacher in cells[5]
        study = "methods" if title == "cifar10" else title
        assert f"studies/{study}.json" in cells[6] and (ROOT / "studies" / f"{study}.json").is_file()


def test_the_study_of_each_runs_from_end_to_end(
    name: str,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Crops that the teacher chooses, of one set a model's drawings too: made, labelled and evaluated."""
    if name == "cifar10":
        pytest.skip("its study is run in test_compare.py")
    known = KNOWN[name]
    rows = ("RDED", "VAR") if name == "imagewoof" else ("RDED",)
    lay_out(tmp_path / "sets" / name, name, copies=4)
    shutil.copytree(model_folder, tmp_path / "m")
    config = ClassifierConfig(num_classes=FEW, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    torch.manual_seed(0)
    save_part(tmp_path / "m", "classifier", Classifier(config).state_dict())
    write_config(tmp_path / "m", classifier=to_json(config), **described_classes(sorted(known.classes)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIERAMP_DATA", "sets")
    study = ROOT / "studies" / f"{name}.json"
    common = ["compare", "--study", str(study), "--model", "m", "--teacher", "m", "--test", name, "--out", "out"]
    common += ["--data", name, "--student", "small", "--epochs", "1", "--runs", "1", "--last-alone", "--device", "cpu"]
    for row in rows:
        main([*common, "--only", f"{row} · IPC 1 "])
    assert f"{known.title}: the folder sets/{name}" in capsys.readouterr().err
    results = [json.loads(path.read_text()) for path in sorted(Path("out/results").glob("*/result.json"))]
    assert len(results) == len(rows)
    for result in results:
        assert result["set"]["image_size"] == known.image_size and result["set"]["images"] == FEW
        assert result["set"]["class_names"] == described_classes(sorted(known.classes))["class_names"]
        assert result["test"]["images"] == FEW and result["preview"] and 0 <= result["best"]["mean"] <= 100


def test_the_whole_way_on_one_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path / "imagewoof2-160", "imagewoof")
    monkeypatch.chdir(tmp_path)
    assert tiny_train.PRESET
    main(["train", "all", "--data", "imagewoof", "--preset", "tiny", "--out", "woof", "--budget", "2s"])
    main(["distill", "--model", "woof", "--ipc", "1", "--out", "set.zip"])
    main(
        [
            "evaluate",
            "set.zip",
            "--teacher",
            "woof",
            "--test",
            "imagewoof",
            "--student",
            "convnet",
            "--epochs",
            "1",
            "--runs",
            "1",
        ]
    )
    main(["measure", "--model", "woof", "--data", "imagewoof", "--only", "autoencoder"])
    text = (tmp_path / "woof" / "README.md").read_text()
    assert "perceptual distance of" in text
