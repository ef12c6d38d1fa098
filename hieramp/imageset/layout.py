"""What a distilled set looks like on disk: the names inside it, and the manifest (dataset.json).

    train/<class folder>/<index>.png    class folder: wnid where the model has them, else the label in five digits
    train/metadata.csv                  file_name, label, class_name, seed; weight, where the method has weights
    dataset.json  README.md  contact.svg  class_map.txt  labels/soft_labels.safetensors

zip, folder and webdataset hold the same tree; a webdataset has its images in tars, each with its label beside it as
.cls, and _info.json. rded is the tree that RDED's published scripts read (arXiv 2312.03526): class folders 00000,
00001, … of the set's own classes at the root, their images called class00000_id00000.png, everything else beside them.

Names are made of labels and numbers alone, so no class name can lead out of the folder.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from hieramp.errors import UserError

FORMAT = 1
SHARD_FILES = 10_000  # images of one tar, so that any shard loads alike
SHARD_INFO = "_info.json"
MANIFEST, CARD, CONTACT, CLASS_MAP = "dataset.json", "README.md", "contact.svg", "class_map.txt"
METADATA_COLUMNS, WEIGHT = ("file_name", "label", "class_name", "seed"), "weight"
Format = Literal["zip", "folder", "webdataset", "rded"]
FORMATS: tuple[Format, ...] = ("zip", "folder", "webdataset", "rded")
MAX_IPC, MAX_SIDE = 1_000_000, 4096
MAX_IMAGE_BYTES = 2**28  # larger than any PNG of MAX_SIDE pixels
_WNID = re.compile(r"n\d{8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Places:
    """Where a format keeps what."""

    images: str  # put before the class folders
    metadata: str
    soft_labels: str


_TREE = Places("train/", "train/metadata.csv", "labels/soft_labels.safetensors")
# a folder called labels would be a class to the loader of RDED's scripts
_RDED = Places("", "metadata.csv", "soft_labels.safetensors")


def places(format: str) -> Places:
    return _RDED if format == "rded" else _TREE


METADATA, SOFT_LABELS = _TREE.metadata, _TREE.soft_labels


def class_folders(
    num_classes: int, wnids: Sequence[str] = (), format: str = "zip", classes: Sequence[int] | None = None
) -> tuple[str, ...]:
    """One folder name per label; sorted, they are in label order. Of rded, "" for a class that is not in `classes`.

    RDED's scripts take the folders 00000, 00001, … for the labels 0, 1, … of the classes of the set.
    """
    if format == "rded":
        inside = range(num_classes) if classes is None else classes
        position = {label: f"{i:05d}" for i, label in enumerate(inside)}
        return tuple(position.get(label, "") for label in range(num_classes))
    if len(wnids) == num_classes and all(map(_WNID.fullmatch, wnids)) and list(wnids) == sorted(set(wnids)):
        return tuple(wnids)
    return tuple(f"{label:05d}" for label in range(num_classes))


def image_name(folder: str, index: int, format: str = "zip") -> str:
    """Name of the index-th image of a class."""
    if format == "rded":
        return f"{folder}/class{folder}_id{index:05d}.png"
    return f"train/{folder}/{index:05d}.png"


def unique_names(class_names: Sequence[str], folders: Sequence[str]) -> list[str]:
    """Class names, those that occur twice with their folder: "crane (n03126707)". `datasets` wants each only once."""
    counts = Counter(class_names)
    return [
        name if counts[name] == 1 else f"{name} ({folder or label})"
        for label, (name, folder) in enumerate(zip(class_names, folders, strict=True))
    ]


def class_map(class_names: Sequence[str], folders: Sequence[str]) -> bytes:
    """class_map.txt: the class folders of the user's own images in the order of the set's labels, a line each.

    timm sorts folders in an order of its own; with `class_map=` it gives them these numbers.
    """
    names = folders if all(map(_WNID.fullmatch, folders)) else unique_names(class_names, folders)
    return "".join(" ".join(name.splitlines()) + "\n" for name in names).encode()


def metadata_rows(
    images: Sequence[dict[str, Any]], class_names: Sequence[str], format: str = "zip"
) -> list[tuple[str, ...]]:
    """metadata.csv, the line of the columns first, of the images of a manifest."""
    before, weighed = places(format).images, bool(images) and WEIGHT in images[0]
    rows = [
        (row["file"].removeprefix(before), str(row["label"]), class_names[row["label"]], str(row["seed"]))
        + ((repr(row[WEIGHT]),) if weighed else ())
        for row in images
    ]
    return [METADATA_COLUMNS + ((WEIGHT,) if weighed else ()), *rows]


def shard_name(number: int) -> str:
    return f"train-{number:06d}.tar"


def shard_info(num_images: int) -> bytes:
    """_info.json of a webdataset, by which timm's `wds/` knows its split, shards and their lengths."""
    lengths = [min(SHARD_FILES, num_images - start) for start in range(0, num_images, SHARD_FILES)]
    files = [shard_name(number) for number in range(len(lengths))]
    split = {"name": "train", "num_samples": num_images, "filenames": files, "shard_lengths": lengths}
    return (json.dumps({"splits": {"train": split}}) + "\n").encode()


def check_name(name: str, where: str) -> None:
    """Refuse a name that could lead out of the folder.

    Raises:
        UserError: it is absolute, has a parent or empty part, or a backslash or drive letter.
    """
    path = PurePosixPath(name)
    odd = "\\" in name or ":" in name or "\0" in name or not name
    if odd or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise UserError(f"{where} names the file {name!r}, which could lead out of the set; it was not opened")


def check_manifest(manifest: Any, where: str) -> dict[str, Any]:
    """A manifest that can be relied on: types, label range, names that stay inside and occur once.

    Raises:
        UserError: it is not one of ours, or contradicts itself.
    """
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or "images" not in manifest:
        raise UserError(f"{where} is not a set of this version of hieramp (its {MANIFEST} should say format {FORMAT})")
    try:
        _check_head(manifest, where)
        _check_files(manifest, where)
    except KeyError as error:
        raise UserError(f"{MANIFEST} of {where} is damaged: it lacks {error.args[0]!r}") from error
    except (TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{MANIFEST} of {where} is damaged: {error}") from error
    return manifest


def _check_head(manifest: dict[str, Any], where: str) -> None:
    """Everything but the lists of files."""
    folders, names, settings = manifest["class_folders"], manifest["class_names"], manifest["settings"]
    for key, values in (("class_folders", folders), ("class_names", names)):
        _need(isinstance(values, list) and all(isinstance(value, str) for value in values), key, where)
    if len(folders) != len(names):
        raise UserError(f"{MANIFEST} of {where} has {len(folders)} class folders for {len(names)} class names")
    _need(isinstance(settings, dict), "settings", where)
    _need(_is_whole(manifest["image_size"], 1, MAX_SIDE), "image_size", where)
    _need(manifest.get("storage", "zip") in FORMATS, "storage", where)
    _need(_is_whole(settings.get("ipc", 1), 1, MAX_IPC), "settings.ipc", where)
    classes = settings.get("classes", [])
    _need(isinstance(classes, list), "settings.classes", where)
    _need(all(_is_whole(label, 0, len(names) - 1) for label in classes), "settings.classes", where)


def _check_files(manifest: dict[str, Any], where: str) -> None:
    num_classes = len(manifest["class_names"])
    depth = image_name("folder", 0, manifest.get("storage", "zip")).count("/")
    seen, weighed = set(), 0
    _need(isinstance(manifest["images"], list) and isinstance(manifest["files"], dict), "images or files", where)
    for row in manifest["images"]:
        name, label = row["file"], row["label"]
        check_name(name, where)
        if name in seen:
            raise UserError(f"{MANIFEST} of {where} lists {name} twice")
        if not _is_whole(label, 0, num_classes - 1):
            raise UserError(f"{MANIFEST} of {where} gives {name} the label {label!r}; there are {num_classes}")
        _need(name.count("/") == depth and name.endswith(".png"), f"the name {name!r}", where)
        _need(_is_whole(row["bytes"], 0, MAX_IMAGE_BYTES), f"the size of {name}", where)
        _need(isinstance(row["sha256"], str) and bool(_SHA256.fullmatch(row["sha256"])), f"the hash of {name}", where)
        _need(_is_whole(row["seed"], 0, 2**63), f"the seed of {name}", where)
        seen.add(name)
        if WEIGHT in row:
            weight, weighed = row[WEIGHT], weighed + 1
            is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
            _need(is_number and 0 <= weight <= 1, f"the weight of {name}", where)
    _need(weighed in (0, len(manifest["images"])), "the weight of some images", where)
    for name, row in manifest["files"].items():
        check_name(name, where)
        _need(name not in seen and _is_whole(row["bytes"], 0, 2**40), f"the entry of {name}", where)
        _need(isinstance(row["sha256"], str) and bool(_SHA256.fullmatch(row["sha256"])), f"the hash of {name}", where)


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _need(good: bool, what: str, where: str) -> None:
    if not good:
        raise UserError(f"{MANIFEST} of {where} is damaged: {what} is missing, of a wrong type or out of range")
