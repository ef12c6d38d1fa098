"""The papers' data sets by name: small folders with the layouts that people have."""

from pathlib import Path

import numpy as np
import pytest
import tiny_train
from PIL import Image
from timm.data import ImageNetInfo

from hieramp.class_names import key_of
from hieramp.commands.main import main
from hieramp.data import open_source
from hieramp.data.known import KNOWN, located
from hieramp.training.presets import PRESETS


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def lay_out(root: Path, name: str, classes: list[str]) -> None:
    """Two training images and a test image a class, as the set's own archive has them."""
    test = {"cifar10": "test", "cifar100": "test"}.get(name, "val")
    between = ["images"] if name == "tiny-imagenet" else []
    for number, label in enumerate(classes):
        for copy in range(2):
            draw(root.joinpath("train", label, *between, f"{label}_{copy}.JPEG"), 3 * number + copy)
        draw(root / test / label / "0.JPEG", 3 * number + 2)


def classes_of(name: str) -> list[str]:
    known = KNOWN[name]
    if known.wnids:
        return list(known.wnids)
    return ImageNetInfo().label_names()[:3] if "imagenet" in name else ["apple", "bear", "cloud"]


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_each_is_found_by_its_name_and_its_archives(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (name, *KNOWN[name].folders):
        root = tmp_path / "sets" / folder
        lay_out(root / folder, name, classes_of(name))
        monkeypatch.setenv("HIERAMP_DATA", str(root))
        for split, images in (("train", 2), ("test", 1)):
            source = open_source(name, split)
            assert source.class_names == tuple(sorted(classes_of(name)))
            assert len(source) == images * len(classes_of(name))
        assert f"{KNOWN[name].title}: the folder {root / folder}" in capsys.readouterr().err


def test_without_a_folder_it_is_the_hubs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HIERAMP_DATA", raising=False)
    assert located("ImageWoof") == "hfds/frgfm/imagewoof"
    assert "no folder imagewoof in data, .; frgfm/imagewoof of the Hub is taken" in capsys.readouterr().err
    for other in ("my/pictures", "cifar", "./imagewoof"):
        assert located(other) == other
    (tmp_path / "imagewoof").mkdir()
    assert located("imagewoof") == "imagewoof"  # a folder of that name right here is what it says


def test_the_classes_of_the_small_ones_are_imagenets() -> None:
    names = {key_of(wnid) for known in KNOWN.values() for wnid in known.wnids}
    assert len(names) == 20 and key_of("Samoyed, Samoyede") in names and key_of("chain saw, chainsaw") in names
    for known in KNOWN.values():
        assert known.preset in PRESETS and len(known.wnids) in (0, known.num_classes)


def test_the_whole_way_on_one_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path / "imagewoof2-160", "imagewoof", classes_of("imagewoof"))
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
