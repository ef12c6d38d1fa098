"""Reading images: where classes and splits lie, what pictures hold, and what is wrong with either."""

import io
import json
import os
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

import hieramp
from hieramp.data import (
    DataSpec,
    EndlessBatches,
    batches,
    decode,
    decode_whole,
    endless_loader,
    in_order_of_model,
    open_source,
    read_image,
    source,
    to_signed,
    to_square,
)


def tree(root: Path, *files: str) -> Path:
    """Small files of these names: pictures by their endings, each of a colour of its own, others a line of text."""
    for number, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff", ".gif", ".ppm"):
            Image.new("RGB", (8, 8), (number % 256, 40, 200)).save(path)
        else:
            path.write_text("text")
    return root


def packed(folder: Path, tar: Path, arcname: str = ".") -> Path:
    with tarfile.open(tar, "w") as file:
        file.add(folder, arcname=arcname)
    return tar


def opened(root: Path, split: str = "train") -> tuple[tuple[str, ...], list[int]]:
    """Class names, and how many images each has."""
    found = open_source(str(root), split)
    return found.class_names, [found.labels().count(label) for label in range(len(found.class_names))]


# Where classes and splits lie


LAYOUTS: dict[str, tuple[list[str], str, tuple[str, ...], list[int]]] = {
    "byte order": (["10/a.png", "9/a.png", "Bee/a.png", "ant/a.png"], "train", ("10", "9", "Bee", "ant"), [1] * 4),
    "val serves as test": (
        ["train/a/1.png", "train/b/1.png", "val/a/2.png", "val/b/2.png"],
        "test",
        ("a", "b"),
        [1, 1],
    ),
    "any case": (["Training/a/1.png", "Test/a/1.png", "Test/a/2.png"], "test", ("a",), [2]),
    "validation": (["train/a/1.png", "validation/a/1.png", "validation/b/1.png"], "test", ("a", "b"), [1, 1]),
    "dev": (["train/a/1.png", "dev/a/1.png", "dev/b/1.png"], "test", ("a", "b"), [1, 1]),
    "test before val": (["train/a/1.png", "val/a/1.png", "test/a/1.png", "test/a/2.png"], "test", ("a",), [2]),
    "an unlabelled test": (["train/a/1.png", "val/a/1.png", "test/1.png", "test/2.png"], "test", ("a",), [1]),
    "a class called train": (["apple/1.png", "train/1.png", "train/2.png"], "train", ("apple", "train"), [1, 2]),
    "nested, one class train": (["apple/1.png", "train/a/1.png", "train/b/1.png"], "train", ("apple", "train"), [1, 2]),
    "cifar100": (["train/apple/1.png", "train/train/1.png", "test/apple/1.png"], "train", ("apple", "train"), [1, 1]),
    "tiny-imagenet": (
        ["train/n01443537/images/a.JPEG", "train/n01443537/images/b.JPEG", "train/n01629819/images/a.JPEG"],
        "train",
        ("n01443537", "n01629819"),
        [2, 1],
    ),
    "nested classes": (["dog/poodle/1.png", "dog/beagle/1.png", "cat/poodle/1.png"], "train", ("cat", "dog"), [1, 2]),
    "a picture at the root": (["cat/1.png", "dog/1.png", "sheet.png"], "train", ("cat", "dog"), [1, 1]),
    "hidden": (
        [
            "cat/1.png",
            ".ipynb_checkpoints/1.png",
            "__MACOSX/cat/._1.png",
            "cat/._1.png",
            "cat/.ipynb_checkpoints/x.png",
        ],
        "train",
        ("cat",),
        [1],
    ),
    "pictures beside splits": (["train/a/1.png", "test/a/1.png", "docs/shot.png"], "train", ("a",), [1]),
    "a folder around it": (["archive/train/a/1.png", "archive/val/a/1.png"], "train", ("a",), [1]),
    "other words in the names of splits": (
        ["seg_train/forest/1.png", "seg_train/sea/1.png", "seg_test/forest/1.png", "seg_test/sea/1.png"],
        "test",
        ("forest", "sea"),
        [1, 1],
    ),
    "a split in a folder of its name": (
        ["train/train/a/1.png", "train/train/b/1.png", "test/test/a/1.png", "test/test/b/1.png"],
        "train",
        ("a", "b"),
        [1, 1],
    ),
    "both": (["Train Data/Train Data/a/1.png", "Test Data/Test Data/a/1.png"], "test", ("a",), [1]),
    "classes with such words": (
        ["bullet_train/1.png", "test_tube/1.png", "test_tube/x/1.png"],
        "train",
        ("bullet_train", "test_tube"),
        [1, 2],
    ),
    "the one class of a split is called like it": (["train/train/1.png", "test/test/1.png"], "train", ("train",), [1]),
    "empty classes": (["a/1.png", "b/.keep"], "train", ("a",), [1]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_as_folders_and_as_tars(tmp_path: Path, name: str) -> None:
    files, split, names, counts = LAYOUTS[name]
    root = tree(tmp_path / "set", *files)
    assert opened(root, split) == (names, counts)
    assert opened(packed(root, tmp_path / "packed.tar"), split) == (names, counts)
    assert opened(packed(root, tmp_path / "set.tar", "set"), split) == (names, counts)


def test_labels_are_those_of_torchvision_and_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = [*map(str, range(12)), "Afghan_hound", "academic_gown", "class_2", "class_10", "über", "猫"]
    root = tree(tmp_path / "set", *(f"{name}/{i}.png" for name in names for i in range(2)))
    ours, theirs = open_source(str(root)), ImageFolder(str(root))
    assert list(ours.class_names) == theirs.classes
    assert {ours.files.where(i): ours.targets[i] for i in range(len(ours))} == dict(theirs.samples)
    hub = datasets.load_dataset("imagefolder", data_dir=str(root), cache_dir=str(tmp_path / "cache"))["train"]
    assert hub.features["label"].names == theirs.classes


@pytest.mark.parametrize(
    ("files", "split", "said"),
    [
        (
            ["train/a/1.png", "train/b/1.png"],
            "test",
            r"holds the split\(s\) train, but no test or val: give the folder",
        ),
        (["val/a/1.png", "test/a/1.png"], "train", r"holds the split\(s\) test, val, but no train"),
        (["train/1.png", "test/1.png"], "train", "train has no class sub-folders"),
        (
            ["train/a/1.png", "valid/a/1.png", "val/a/1.png"],
            "test",
            "holds val and valid, which are both the val split",
        ),
        (["a/1.heic", "a/2.heic", "b/1.png"], "train", "class 'a' of .* holds no image that can be read, but 2 other"),
        (["1.png"], "train", "no class sub-folders"),
        (["notes.txt"], "train", "holds no images"),
        (["a/1.png"], "extra", "has no split 'extra': it holds a"),
        (["train/a/1.png", "test/a/1.png"], "extra", "but no extra"),
    ],
)
def test_what_is_not_there_is_told(tmp_path: Path, files: list[str], split: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        open_source(str(tree(tmp_path / "set", *files)), split)


def test_one_line_says_what_was_taken_and_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = tree(tmp_path, "train/a/1.png", "train/b/1.png", "train/b/notes.txt", "train/sheet.png", "val/a/1.png")
    tree(tmp_path, "train/.DS_Store", "train/a/.ipynb_checkpoints/1.png")
    for _ in range(2):
        open_source(str(root))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"2 images of 2 classes in {root} (split train); left out: ")
    for part in ("hidden: 2", "(train/b/notes.txt)", "images outside the class folders: 1 (train/sheet.png)"):
        assert part in lines[0]


def test_tiny_imagenets_val_is_labelled_by_its_annotations(tmp_path: Path) -> None:
    root = tree(tmp_path / "tiny", "train/n1/images/a.png", "train/n2/images/a.png", "wnids.txt", "test/images/t_0.png")
    tree(root, "val/images/val_0.png", "val/images/val_1.png", "val/images/val_2.png")
    (root / "val/val_annotations.txt").write_text("val_0.png\tn2\t0\t0\nval_1.png\tn1\t0\t0\nval_2.png\tn2\t1\t1\n")
    for place in (root, packed(root, tmp_path / "tiny.tar", "tiny")):
        assert opened(place) == (("n1", "n2"), [1, 1])
        found = open_source(str(place), "test")
        assert found.class_names == ("n1", "n2")
        assert [(found.file_name(i)[-9:], found.targets[i]) for i in range(3)] == [
            ("val_1.png", 0),
            ("val_0.png", 1),
            ("val_2.png", 1),
        ]
    (root / "val/val_annotations.txt").write_text("val_0.png\tn2\n")
    with pytest.raises(ValueError, match="lacks an image: 'val_1.png'"):
        open_source(str(root), "test")


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "b/1.png")
    tree(tmp_path / "elsewhere", "c1.png", "c2.png")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "self").symlink_to(".")
    (root / "a" / "loop").symlink_to("..")
    (root / "b" / "other").symlink_to("../a")
    (root / "b" / "dead.png").symlink_to("nothing")
    os.mkfifo(root / "b" / "pipe.png")
    assert opened(root) == (("a", "b", "c"), [1, 2, 2])
    tree(tmp_path / "splits", "train/a/1.png", "test/a/1.png")
    (tmp_path / "splits" / "again").symlink_to(".")
    assert opened(tmp_path / "splits") == (("a",), [1])


def test_hard_links_in_a_tar_are_read(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png")
    (root / "b").mkdir()
    os.link(root / "a" / "1.png", root / "b" / "2.png")
    found = open_source(str(packed(root, tmp_path / "s.tar")))
    assert found.labels() == [0, 1]
    assert np.array_equal(np.asarray(read_image(found, 0)), np.asarray(read_image(found, 1)))


def test_a_tar_of_tars_and_damaged_tars(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for wnid in ("n01443537", "n01440764"):
            folder = tree(tmp_path / wnid, f"{wnid}_1.png", f"{wnid}_2.png")
            tar.add(packed(folder, tmp_path / f"{wnid}.tar"), arcname=f"{wnid}.tar")
    assert opened(tmp_path / "all.tar") == (("n01440764", "n01443537"), [2, 2])
    assert read_image(open_source(str(tmp_path / "all.tar")), 3).size == (8, 8)
    whole = (tmp_path / "all.tar").read_bytes()
    for data, said in ((whole[:700], "truncated or no tar"), (b"x" * 2000, "truncated or no tar")):
        (tmp_path / "bad.tar").write_bytes(data)
        with pytest.raises(ValueError, match=said):
            open_source(str(tmp_path / "bad.tar"))
    with tarfile.open(tmp_path / "zipped.tar", "w:gz") as tar:
        tar.add(tmp_path / "n01443537", arcname="a")
    with pytest.raises(ValueError, match="is compressed: unpack it"):
        open_source(str(tmp_path / "zipped.tar"))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        open_source(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="is empty: give a folder"):
        open_source("")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"not a folder or a \.tar"):
        open_source(str(tmp_path / "notes.txt"))


def test_a_folder_and_its_tar_are_the_same(image_folder: Path, tmp_path: Path) -> None:
    folder, tar = open_source(str(image_folder)), open_source(str(packed(image_folder / "train", tmp_path / "s.tar")))
    assert folder.class_names == tar.class_names == ("blue", "red") and folder.targets == tar.targets
    assert torch.equal(decode(folder, 32).images, decode(tar, 32).images)


def test_models_keep_their_order(tmp_path: Path) -> None:
    """A model of before, whose classes timm sorted: class_2 comes before class_10."""
    root = tree(tmp_path / "set", "class_2/1.png", "class_10/1.png", "Zebra/1.png")
    old = tmp_path / "model"
    old.mkdir()
    (old / "config.json").write_text(json.dumps({"format": 1, "class_names": ["class_2", "class_10", "zebra"]}))
    found = open_source(str(root))
    assert found.class_names == ("Zebra", "class_10", "class_2")
    kept = in_order_of_model(found, None, tmp_path / "none", old)
    assert kept.class_names == ("class_2", "class_10", "Zebra")
    assert [kept.class_names[label] for label in kept.targets] == [found.class_names[label] for label in found.targets]
    (old / "config.json").write_text(json.dumps({"format": 1, "class_names": ["cat", "dog"]}))
    assert in_order_of_model(found, old) is found
    with pytest.raises(ValueError, match=r"\(3\) are not those of the model \(2\): 'cat' is not among the images"):
        found.reordered(["cat", "dog"])


def test_wnids_and_their_words_are_one_class(tmp_path: Path) -> None:
    found = open_source(str(tree(tmp_path, "n01440764/1.png", "n01443537/1.png")))
    words = ["goldfish, Carassius auratus", "tench, Tinca tinca"]
    assert found.reordered(words).class_names == ("n01443537", "n01440764")


def test_names_with_accents_are_composed(tmp_path: Path) -> None:
    """macOS writes é as two characters."""
    assert open_source(str(tree(tmp_path / "a", "cafe\u0301/1.png"))).class_names == ("caf\u00e9",)
    both = open_source(str(tree(tmp_path / "b", "cafe\u0301/1.png", "caf\u00e9/1.png"))).class_names
    assert len(set(both)) == 2


# Pictures


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "png", "webp", "bmp", "tiff", "ppm", "gif"])
def test_every_usual_ending_is_read(tmp_path: Path, ending: str) -> None:
    found = open_source(str(tree(tmp_path, f"a/1.{ending}", f"a/2.{ending.upper()}")))
    assert len(found) == 2 and decode(found, 8).images.shape == (2, 3, 8, 8)


def _animated(path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def _turned(path: Path) -> None:
    """Blue above red, stored lying on its side as phones do."""
    upright = Image.new("RGB", (8, 8), "red")
    upright.paste((0, 0, 255), (0, 0, 8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90).save(path, exif=exif, quality=100)


def _half_transparent(mode: str) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        pixels = np.zeros((8, 8, 4), np.uint8)
        pixels[4:] = (255, 0, 0, 255)
        Image.fromarray(pixels).convert(mode).save(path)

    return save


def _palette_transparent(path: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.paste(1, (0, 4, 8, 8))
    image.save(path, transparency=0)


@pytest.mark.parametrize(
    ("name", "save", "above", "below"),
    [
        ("turned.jpg", _turned, (0, 0, 255), (255, 0, 0)),
        ("animated.gif", _animated, (255, 0, 0), (255, 0, 0)),
        ("rgba.png", _half_transparent("RGBA"), (255, 255, 255), (255, 0, 0)),
        ("la.png", _half_transparent("LA"), (255, 255, 255), (76, 76, 76)),
        ("palette.png", _palette_transparent, (255, 255, 255), (255, 0, 0)),
        ("cmyk.jpg", lambda path: Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path), (255, 0, 0), (255, 0, 0)),
        ("one-bit.png", lambda path: Image.new("1", (8, 8), 1).save(path), (255, 255, 255), (255, 255, 255)),
    ],
)
def test_pictures_are_as_a_viewer_shows_them(
    tmp_path: Path, name: str, save: Callable[[Path], None], above: tuple[int, ...], below: tuple[int, ...]
) -> None:
    (tmp_path / "a").mkdir()
    save(tmp_path / "a" / name)
    picture = np.asarray(read_image(open_source(str(tmp_path)), 0)).astype(int)
    assert abs(picture[1, 1:7] - above).max() <= 8 and abs(picture[6, 1:7] - below).max() <= 8


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bits_are_scaled(tmp_path: Path, ending: str) -> None:
    ramp = np.linspace(0, 65535, 1024).reshape(32, 32)
    (tmp_path / "a").mkdir()
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "a" / f"1.{ending}")
    picture = np.asarray(read_image(open_source(str(tmp_path)), 0))
    assert abs(picture[..., 0] - ramp / 257).max() <= 1 and np.array_equal(picture[..., 0], picture[..., 2])


def test_floats_are_read_where_their_range_is_known(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(tmp_path / "a" / "1.tiff")
    assert np.asarray(read_image(open_source(str(tmp_path)), 0)).max() == 128
    Image.fromarray(np.full((8, 8), -5, np.float32)).save(tmp_path / "a" / "1.tiff")
    with pytest.raises(ValueError, match="its values run from -5 to -5"):
        read_image(open_source(str(tmp_path)), 0)


def test_a_broken_image_is_skipped_and_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = tree(tmp_path, "a/1.png", "b/1.png", "b/2.png", "b/3.png")
    (root / "b" / "1.png").write_bytes(b"not an image")
    (root / "b" / "2.png").write_bytes((root / "b" / "3.png").read_bytes()[:50])
    assert decode(open_source(str(root)), 8).labels.tolist() == [0, 1]
    assert capsys.readouterr().err.count("skipped b/") == 2


@pytest.mark.parametrize("damage", [b"", b"not an image", b"<html>"])
def test_a_class_without_a_readable_image_is_an_error_that_names_it(tmp_path: Path, damage: bytes) -> None:
    root = tree(tmp_path, "a/1.png", "b/1.png", "b/2.png")
    for name in ("1.png", "2.png"):
        (root / "b" / name).write_bytes(damage)
    with pytest.raises(ValueError, match=r"not one of the images of class 'b' in .* can be read: b/2.png cannot"):
        decode(open_source(str(root)), 8)


def test_a_line_of_pixels_does_not_fill_the_memory() -> None:
    assert to_square(Image.new("RGB", (1, 1_000_000), "red"), 32).getpixel((5, 5)) == (255, 0, 0)
    assert to_square(Image.new("RGB", (60_000_000, 1), "red"), 32).size == (32, 32)


def test_a_file_too_large_for_a_picture_is_not_read(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.png", "a/2.png")
    with (root / "a" / "1.png").open("r+b") as stream:
        stream.truncate(3 * 2**30)  # a hole, which takes no room on the disk
    with pytest.raises(ValueError, match="has 3221225472 bytes, more than any picture"):
        read_image(open_source(str(root)), 0)


def test_images_become_square() -> None:
    wide = Image.fromarray(np.full((20, 50, 4), 200, np.uint8))
    assert to_square(wide, 8).size == (8, 8) and to_square(wide, 8).mode == "RGB"
    assert to_square(Image.new("L", (3, 100)), 16).size == (16, 16)


def test_vector_formats_do_not_run_programs(tmp_path: Path) -> None:
    root = tree(tmp_path, "a/1.png", "a/2.png")
    (root / "a" / "1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n")
    with pytest.raises(ValueError, match="no picture that is known here"):
        read_image(open_source(str(root)), 0)


# Tables and sets


def _table(folder: Path, features: dict[str, Any], rows: dict[str, list], split: str = "train") -> None:
    datasets = pytest.importorskip("datasets")
    folder.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(features) if features else None)
    table.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def _png(colour: str) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Local copies of how well-known data sets name their columns."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    image, names = datasets.Image(), datasets.ClassLabel(names=["cat", "dog"])
    pictures = [_png("red"), _png("blue"), _png("green")]
    for split in ("train", "test"):
        _table(tmp_path / "cifar10", {"img": image, "label": names}, {"img": pictures, "label": [1, 0, 1]}, split)
    coarse = datasets.ClassLabel(names=["animal"])
    features = {"img": image, "fine_label": names, "coarse_label": coarse}
    _table(tmp_path / "cifar100", features, {"img": pictures, "fine_label": [1, 0, 1], "coarse_label": [0, 0, 0]})
    _table(tmp_path / "pets", {"image": image, "labels": names}, {"image": pictures, "labels": [1, 0, 1]}, "validation")
    number, text = datasets.Value("int64"), datasets.Value("string")
    _table(tmp_path / "numbers", {"image": image, "label": number}, {"image": pictures, "label": [1, 0, 1]})
    _table(tmp_path / "words", {"image": image, "label": text}, {"image": pictures, "label": ["dog", "cat", "dog"]})
    _table(tmp_path / "odd", {"photo": image, "kind": text}, {"photo": pictures, "kind": ["dog", "cat", "dog"]})
    deep = {"photo": image, "label": names}
    _table(tmp_path / "converted" / "default" / "train", deep, {"photo": pictures, "label": [1, 0, 1]}, "0000")
    _table(tmp_path / "unlabelled", {"image": image, "label": number}, {"image": pictures, "label": [-1, -1, -1]})
    return tmp_path


@pytest.mark.parametrize(
    ("name", "split", "names"),
    [
        ("cifar10", "train", ("cat", "dog")),
        ("cifar10", "test", ("cat", "dog")),
        ("cifar100", "train", ("cat", "dog")),
        ("pets", "test", ("cat", "dog")),
        ("numbers", "train", ("0", "1")),
        ("words", "train", ("cat", "dog")),
        ("converted", "train", ("cat", "dog")),
    ],
)
def test_columns_are_found_by_their_features(tables: Path, name: str, split: str, names: tuple[str, ...]) -> None:
    for place in (str(tables / name), f"hfds/{tables / name}"):
        found = open_source(place, split)
        assert found.class_names == names and found.labels() == [1, 0, 1]
        assert read_image(found, 1).getpixel((0, 0)) == (0, 0, 255)


def test_columns_can_be_named(tables: Path) -> None:
    with pytest.raises(ValueError, match=r"--label-column; it has: photo \(Image\), kind \(string\)"):
        open_source(str(tables / "odd"))
    found = open_source(DataSpec(str(tables / "odd"), None, "photo", "kind"))
    assert found.class_names == ("cat", "dog") and found.labels() == [1, 0, 1]
    coarse = open_source(DataSpec(str(tables / "cifar100"), label_column="coarse_label"))
    assert coarse.class_names == ("animal",)
    for spec, said in [
        (DataSpec(str(tables / "odd"), None, "kind", "kind"), "column 'kind' of .* holds no images"),
        (DataSpec(str(tables / "odd"), None, "picture", "kind"), "has no column 'picture'; it has: photo"),
        (DataSpec(str(tables / "cifar10"), "extra"), r"has the split\(s\) train, test, but no extra: name one with"),
        (DataSpec(str(tables / "cifar100"), "test"), r"has the split\(s\) train, but no test"),
        (DataSpec(str(tables / "unlabelled")), "rows with the label -1"),
    ]:
        with pytest.raises(ValueError, match=said):
            open_source(spec)


def test_a_table_saved_to_disk_is_read(tables: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.load_dataset(str(tables / "cifar10")).save_to_disk(tables / "saved")
    assert open_source(str(tables / "saved"), "test").labels() == [1, 0, 1]


@pytest.mark.parametrize("format", ["zip", "folder", "webdataset", "rded"])
def test_our_own_sets_are_read_back(model: hieramp.Model, tmp_path: Path, format: str) -> None:
    out = tmp_path / ("set.zip" if format == "zip" else "set")
    for _ in hieramp.distill(model, 2, out, format=format, classes=["cat", "frog"]):  # type: ignore[arg-type]
        pass
    found = open_source(str(out))
    assert found.class_names == model.class_names and found.labels() == [1, 1, 3, 3]
    with hieramp.open_set(out) as image_set:
        assert np.array_equal(np.asarray(read_image(found, 3)), np.asarray(image_set.image(3)))


# Batches


def test_batches_are_epochs_and_can_start_anywhere() -> None:
    first = list(islice(EndlessBatches(10, 4, seed=1), 10))
    assert sorted([*first[0], *first[1], *first[2][:2]]) == list(range(10))
    assert list(islice(EndlessBatches(10, 4, seed=1, start=3), 7)) == first[3:]
    assert first != list(islice(EndlessBatches(10, 4, seed=2), 10))
    assert [len(b) for b in islice(EndlessBatches(3, 8, seed=0), 4)] == [8] * 4


def test_large_sets_are_streamed_with_a_random_crop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "CACHE_BYTES", 0)
    root = tree(tmp_path, *(f"{name}/{i}.png" for name in "ab" for i in range(6)))
    (root / "a" / "2.png").write_bytes(b"broken")
    images, labels = next(iter(endless_loader(open_source(str(root)), 24, 12, 0, 0, torch.device("cpu"))))
    assert (
        images.shape == (12, 3, 24, 24) and images.dtype == torch.uint8 and sorted(labels.tolist()) == [0] * 6 + [1] * 6
    )
    assert to_signed(images).min() >= -1 and to_signed(images).max() <= 1


def test_a_decoded_set_lies_where_it_is_trained_on(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU; the images are those of a loader that leaves them where they are."""
    monkeypatch.setattr(batches, "_is_small_on", lambda *_: True)
    images = open_source(str(image_folder))
    there, labels = next(iter(endless_loader(images, 24, 6, 0, 0, torch.device("meta"))))
    assert there.is_meta and labels.is_meta and there.shape == (6, 3, 24, 24)
    here = decode(images, 24)
    moved = here.to(torch.device("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(here.__getitems__([3, 1]), moved.__getitems__([3, 1]), strict=True))


def test_a_set_is_decoded_once_for_all_parts_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, "a/1.png", "b/1.png")
    read: list[int] = []
    monkeypatch.setattr(batches, "read_image", lambda *which: read.append(which[1]) or source.read_image(*which))
    for _ in range(5):
        endless_loader(open_source(str(root)), 8, 2, 0, 0, torch.device("cpu"))
    assert read == [0, 1]
    decode_whole(open_source(str(root)), 16)
    Image.new("RGB", (8, 8), "white").save(root / "a" / "1.png")
    assert decode_whole(open_source(str(root)), 16).images[0].min() == 255 and len(read) == 6


def _bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"\0" * (width * 3 + 1) * height)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_picture_that_unpacks_to_too_much_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = tree(tmp_path, "a/1.png", "a/2.png")
    (root / "a" / "1.png").write_bytes(_bomb(20_000, 10_000))
    shutil.copy(root / "a" / "2.png", root / "a" / "3.png")
    assert len(decode(open_source(str(root)), 8)) == 2 and "decompression bomb" in capsys.readouterr().err


def test_a_single_class_is_named_in_the_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Whoever gave the wrong folder sees it."""
    open_source(str(tree(tmp_path / "set", "all/images/cat/1.png", "all/labels/cat/1.png")))
    assert "2 images of 1 class (all) in" in capsys.readouterr().err


def test_a_folder_with_tables_that_cannot_be_read_is_not_called_missing(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "train/a/1.png", "train/b/1.png")
    (root / "train" / "metadata.parquet").write_bytes(b"junk")
    with pytest.raises(ValueError, match="tables .* in .* cannot be read: .*; if it is a folder of images, move them"):
        open_source(str(root))
