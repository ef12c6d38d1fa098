"""Sets as other libraries read them: the same images, and the label numbers of the user's own folders."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image

import hieramp
from app import view_requests
from hieramp import figures
from hieramp.data import open_source
from hieramp.distillation.real import collect
from hieramp.imageset.layout import FORMATS
from hieramp.imageset.verify import problems

datasets = pytest.importorskip("datasets")
FEW = [*map(str, range(8, 12)), "class_2", "class_10", "Zebra", "apple", "a,b; c", 'quo"ted', "猫🐈", "x" * 120]
WNIDS = ["n01440764", "n01443537", "n01484850"]
NAMES = {"ten": FEW, "wnids": WNIDS, "many": [f"class_{i}" for i in range(120)]}


@pytest.fixture(scope="module", params=NAMES)
def images(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's own folder: train/ and test/, two images a class, each of a colour of its own."""
    root = tmp_path_factory.mktemp("user")
    for split in ("train", "test"):
        for number, name in enumerate(NAMES[request.param]):
            (root / split / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (8, 8), (number % 256, number // 256, 100 * i)).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def sets(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A set of these images in every format."""
    out = tmp_path_factory.mktemp("sets")
    source = open_source(str(images))
    paths = {format: out / (f"{format}.zip" if format == "zip" else format) for format in FORMATS}
    for format, path in paths.items():
        for _ in collect("random-real", source, 2, path, format=format):
            pass
        with hieramp.open_set(path) as image_set:
            assert not list(problems(image_set))
    shutil.unpack_archive(paths["zip"], out / "unzipped")
    return paths | {"unzipped": out / "unzipped"}


def expected(images: Path) -> dict[tuple[int, int], int]:
    """The label that torchvision gives a colour in the user's test folder."""
    return {colour(picture): label for picture, label in torchvision.datasets.ImageFolder(str(images / "test"))}


def colour(picture: Image.Image) -> tuple[int, int]:
    red, green, _ = picture.convert("RGB").getpixel((3, 3))  # type: ignore[misc]
    return red, green


def check(rows: Iterator[tuple[Image.Image, Any]], images: Path) -> None:
    wanted, count = expected(images), 0
    for picture, label in rows:
        assert wanted[colour(picture)] == int(label)
        count += 1
    assert count == 2 * len(wanted)


@pytest.mark.parametrize("format", ["unzipped", "folder"])
def test_torchvision_and_dd_ranking(images: Path, sets: dict[str, Path], format: str) -> None:
    """DD-Ranking 0.2 reads a folder by torchvision's ImageFolder."""
    check(iter(torchvision.datasets.ImageFolder(str(sets[format] / "train"))), images)


@pytest.mark.parametrize("format", ["unzipped", "folder"])
def test_timm_folders(images: Path, sets: dict[str, Path], format: str) -> None:
    from timm.data import create_dataset

    check(iter(create_dataset("", root=str(sets[format] / "train"))), images)
    # timm sorts the user's own folders in its way; with the set's class map it numbers them as the set does
    if len(expected(images)) != len(WNIDS):
        check(
            iter(create_dataset("", root=str(images / "test"), class_map=str(sets[format] / "class_map.txt"))), images
        )


def test_timm_tars_shards_and_tables(images: Path, sets: dict[str, Path], tmp_path: Path) -> None:
    from timm.data import create_dataset

    tar = shutil.make_archive(str(tmp_path / "packed"), "tar", sets["folder"] / "train")
    check(iter(create_dataset("", root=tar)), images)
    shards = create_dataset("wds/", root=str(sets["webdataset"]), split="train", is_training=False, batch_size=2)
    check(((picture, label) for picture, label in shards), images)
    table = create_dataset(f"hfds/{sets['folder']}", split="train", root=str(tmp_path / "cache"))
    check(iter(table), images)


def test_datasets_zip(images: Path, sets: dict[str, Path], tmp_path: Path) -> None:
    rows = datasets.load_dataset("imagefolder", data_files=str(sets["zip"]), split="train", cache_dir=str(tmp_path))
    check(zip(rows["image"], rows["label"], strict=True), images)
    names = (sets["unzipped"] / "class_map.txt").read_text().splitlines()
    named = rows.cast_column("label", datasets.ClassLabel(names=names))
    assert named.features["label"].names == torchvision.datasets.ImageFolder(str(images / "test")).classes


@pytest.mark.parametrize("format", ["unzipped", "folder", "webdataset", "rded"])
def test_datasets_folders_and_shards(images: Path, sets: dict[str, Path], format: str, tmp_path: Path) -> None:
    rows = datasets.load_dataset(str(sets[format]), split="train", cache_dir=str(tmp_path))
    image, label = ("png", "cls") if format == "webdataset" else ("image", "label")
    check(zip(rows[image], rows[label], strict=True), images)
    feature = rows.features[label]
    assert isinstance(feature, datasets.ClassLabel)
    with hieramp.open_set(sets[format]) as image_set:
        names = [f"class {name}" if name.isdecimal() else name for name in image_set.class_names]
        assert feature.names == names
    check(((each[image], each[label]) for each in rows), images)


def test_webdataset(images: Path, sets: dict[str, Path]) -> None:
    webdataset = pytest.importorskip("webdataset")
    shards = sorted(map(str, sets["webdataset"].glob("*.tar")))
    check(iter(webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("png", "cls")), images)


def test_rdeds_scripts(images: Path, sets: dict[str, Path]) -> None:
    """How validation/utils.py of LINs-lab/RDED reads exp/…/syn_data, told in its own order of calls."""
    root = sets["rded"]
    classes = torchvision.datasets.ImageFolder(str(root)).classes  # its class begins by this, which takes every folder
    assert classes == [f"{label:05d}" for label in range(len(expected(images)))]
    rows = []
    for label in range(len(classes)):
        files = [path.name for path in (root / str(label).zfill(5)).iterdir()]
        random.shuffle(files)
        rows += [(Image.open(root / classes[label] / files[i]), label) for i in range(2)]
    check(iter(rows), images)
    assert (root / "00001" / "class00001_id00000.png").is_file()


def test_rdeds_folders_are_those_of_the_sets_own_classes(model: hieramp.Model, tmp_path: Path) -> None:
    for _ in hieramp.distill(model, 2, tmp_path / "set", format="rded", classes=["cat", "frog"]):
        pass
    assert torchvision.datasets.ImageFolder(str(tmp_path / "set")).classes == ["00000", "00001"]
    with hieramp.open_set(tmp_path / "set") as image_set:
        assert image_set.labels == (1, 1, 3, 3) and not list(problems(image_set))


@pytest.mark.parametrize("format", FORMATS)
def test_a_card_shows_the_lines_of_its_format(sets: dict[str, Path], format: str, tmp_path: Path) -> None:
    """Every line of the card is run, from the folder that holds the set."""
    place = sets["unzipped"] if format == "zip" else sets[format]
    card = (place / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    shutil.copytree(place, tmp_path / "THIS") if format != "zip" else shutil.copy(sets["zip"], tmp_path / "THIS.zip")
    counted: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
        values: dict[str, Any] = {}
        for paragraph in code.split("\n\n"):
            exec(compile(paragraph, "card", "exec"), values)
            if "images" in values:
                counted.append(sum(1 for _ in values["images"].labels) if hasattr(values["images"], "manifest") else -1)
                if counted[-1] < 0 and hasattr(values["images"], "__len__"):
                    counted[-1] = len(values["images"])
    with hieramp.open_set(sets[format]) as image_set:
        assert counted and {count for count in counted if count >= 0} == {len(image_set)}
    assert '"THIS/train"' not in code if format in ("webdataset", "rded") else "ImageFolder" in code


# What is inside a picture


def test_a_picture_of_a_set_tells_how_it_was_drawn(model: hieramp.Model, tmp_path: Path) -> None:
    amp = hieramp.parse_stages("coarse=30%:4,mid=off,fine=50%:2")
    for _ in hieramp.distill(model, 2, tmp_path / "set", format="folder", amplification=amp, guidance=3.0, seed=5):
        pass
    settings = figures.read_settings(tmp_path / "set" / "train" / "00002" / "00001.png")
    assert (settings["class"], settings["label"], settings["seeds"]) == ("dog", 2, [5_000_001])
    assert settings["stages"] == {"coarse": [0.3, 4.0], "mid": None, "fine": [0.5, 2.0]} and settings["guidance"] == 3.0
    drawn = model.generate([2], settings["seeds"], amp, guidance=3.0).images[0]
    picture = np.asarray(Image.open(tmp_path / "set" / "train" / "00002" / "00001.png"))
    assert np.array_equal(np.asarray(figures.to_picture(drawn)), picture)


def test_a_picture_of_a_set_opens_in_the_page(model: hieramp.Model, tmp_path: Path) -> None:
    amp = replace(hieramp.SCHEDULES["all"], positions={2: (0, 3)})
    for _ in hieramp.distill(model, 1, tmp_path / "set", format="folder", amplification=amp):
        pass
    settings = figures.read_settings(tmp_path / "set" / "train" / "00001" / "00000.png")
    view_request = view_requests.from_picture(model, settings)
    assert view_request.label == 1 and view_request.seeds == (0,)
    assert view_request.settings.named_positions == {2: (0, 3)} and (
        view_request.settings.coarse,
        view_request.settings.fine,
    ) == (
        amp.coarse,
        amp.fine,
    )


def test_settings_do_not_change_with_batches(model: hieramp.Model, tmp_path: Path) -> None:
    for size in (1, 3):
        for _ in hieramp.distill(model, 2, tmp_path / f"{size}.zip", batch_size=size):
            pass
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "3.zip").read_bytes()


def test_two_classes_of_one_name(model: hieramp.Model, tmp_path: Path) -> None:
    twins = replace(model, class_names=("crane", "dog", "crane", "猫"), folder=None)
    for _ in hieramp.distill(twins, 1, tmp_path / "set", format="folder"):
        pass
    rows = datasets.load_dataset(str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features["label"].names == ["crane (00000)", "dog", "crane (00002)", "猫"]
    assert list(rows["label"]) == [0, 1, 2, 3]
    settings = figures.read_settings(tmp_path / "set" / "train" / "00002" / "00000.png")
    assert view_requests.from_picture(twins, settings).label == 2
