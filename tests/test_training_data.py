"""Training on what strangers bring: small folders, models of before, too few test images."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_train import PRESET, PRESETS

from hieramp.analysis import measure
from hieramp.checkpoints import read_config, write_config
from hieramp.classifier import load_classifier
from hieramp.commands import train
from hieramp.commands.main import main
from hieramp.data import batches, decode, open_source
from hieramp.training import runs
from hieramp.training.class_tokens import ClassTokenOptions
from hieramp.training.loop import RunSettings
from hieramp.training.recipe import Recipe

TRAIN = ["train", "--preset", "tiny"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    main([*TRAIN, "all", "--data", str(image_folder), "--out", str(folder)])
    return folder


def test_a_small_folder_is_trained_for_a_number_of_steps_that_is_told(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe(64, 2, 2e-3)
    assert (recipe.num_steps(15), replace(recipe, min_steps=100).num_steps(15)) == (1, 100)
    assert replace(recipe, min_steps=100).num_steps(50_000) == 1562
    for name in ("cifar10", "cifar10-small", "imagenet256"):
        assert PRESETS[name].class_token_recipe.num_steps(15) == 100
    few = replace(PRESET, classifier_recipe=replace(PRESET.classifier_recipe, epochs=1 / 3, min_steps=3))
    outcome = runs.train_classifier(str(image_folder), few, RunSettings(tmp_path, "classifier"))
    said = capsys.readouterr().err
    assert outcome.steps == 3 and outcome.last["loss"] > 0  # told though it was fewer than ten
    assert "classifier: 3 steps of 16 images, 1 passes over 48 images; --budget would end it by the clock" in said


def test_a_folder_is_decoded_once_for_all_parts(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read: list[int] = []
    decode = batches.decode
    monkeypatch.setattr(batches, "_LAST_DECODED", {})
    monkeypatch.setattr(batches, "decode", lambda source, size: read.append(size) or decode(source, size))
    monkeypatch.setattr(train, "MIN_STEPS", 10**9)  # whatever this machine does in the time
    main([*TRAIN, "all", "--data", str(image_folder), "--out", str(tmp_path / "m"), "--budget", "5s"])
    said = capsys.readouterr().err
    assert read == [32]
    for name in ("vqvae", "var", "class_tokens-dropped", "classifier"):
        assert re.search(rf"1 step teaches {name} next|\d+ steps teach {name} next", said), name
    assert "next to nothing: give it more --budget, or none" in said


def test_parts_of_a_model_keep_its_order_of_classes(image_folder: Path, trained: Path, tmp_path: Path) -> None:
    """A model whose config names the classes the other way round, as an earlier version might have sorted them."""
    shutil.copytree(trained, tmp_path / "m")
    write_config(tmp_path / "m", class_names=["red", "blue"])
    main([*TRAIN, "classifier", "--data", str(image_folder), "--out", str(tmp_path / "m")])
    assert read_config(tmp_path / "m")["class_names"] == ["red", "blue"]
    images = decode(open_source(str(image_folder)), 32)
    with torch.no_grad():
        labels = load_classifier(tmp_path / "m").float()(images.images.float() / 255).argmax(1)
    assert (labels != images.labels).float().mean() > 0.8  # the folder's label 0 is blue, the model's is red


def test_too_few_test_images_are_told_before_anything_is_measured(
    image_folder: Path, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "measure_autoencoder", lambda *_: pytest.fail("it began to measure"))
    with pytest.raises(SystemExit) as ended:
        main(["measure", "--model", str(trained), "--data", str(image_folder), "--test-images", "2", "--device", "cpu"])
    assert ended.value.code == 2 and "fewer than 2 of the 2 test images" in capsys.readouterr().err


def test_class_tokens_of_other_classes_are_refused(image_folder: Path, trained: Path, tmp_path: Path) -> None:
    """As many classes, one of them renamed: the labels would mean something else."""
    shutil.copytree(trained, tmp_path / "m")
    shutil.copytree(image_folder, tmp_path / "images")
    for split in ("train", "test"):
        (tmp_path / "images" / split / "blue").rename(tmp_path / "images" / split / "zinc")
    settings = RunSettings(tmp_path / "m", "class_tokens-dropped")
    with pytest.raises(ValueError, match="has a class 'zinc', which the VAR in .* does not know: give its own data"):
        runs.train_class_tokens(str(tmp_path / "images"), PRESET, settings, ClassTokenOptions())
