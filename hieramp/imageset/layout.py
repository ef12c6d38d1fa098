"""What a distilled set looks like on disk: the names inside it, and the manifest (dataset.json).

    train/<class folder>/<index>.png    class folder: wnid where the model has them, else the label in five digits
    train/metadata.csv                  file_name, label, class_name, seed
    dataset.json  README.md  contact.svg  labels/soft_labels.safetensors

Every format (zip, folder, webdataset) holds the same tree. Names are made of labels and numbers alone, so no
class name can lead out of the folder.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

FORMAT = 1
MANIFEST, METADATA, CARD, CONTACT = "dataset.json", "train/metadata.csv", "README.md", "contact.svg"
SOFT_LABELS = "labels/soft_labels.safetensors"
METADATA_COLUMNS = ("file_name", "label", "class_name", "seed")
Format = Literal["zip", "folder", "webdataset"]
FORMATS: tuple[Format, ...] = ("zip", "folder", "webdataset")
_WNID = re.compile(r"n\d{8}")


def class_folders(num_classes: int, wnids: Sequence[str] = ()) -> tuple[str, ...]:
    """One folder name per label.

    Five digits also satisfy the CIFAR loaders of RDED and D3HR; sorted, both kinds are in label order.
    """
    if len(wnids) == num_classes and all(_WNID.fullmatch(wnid) for wnid in wnids):
        return tuple(wnids)
    return tuple(f"{label:05d}" for label in range(num_classes))


def image_name(folder: str, index: int) -> str:
    """Name of the index-th image of a class."""
    return f"train/{folder}/{index:05d}.png"


def check_name(name: str, where: str) -> None:
    """Refuse a name that could lead out of the folder.

    Raises:
        ValueError: it is absolute, has a parent or empty part, or a backslash or drive letter.
    """
    path = PurePosixPath(name)
    odd = "\\" in name or ":" in name or "\0" in name or not name
    if odd or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise ValueError(f"{where} names the file {name!r}, which could lead out of the set; it was not opened")


def check_manifest(manifest: Any, where: str) -> dict[str, Any]:
    """A manifest that can be relied on: types, label range, names that stay inside and occur once.

    Raises:
        ValueError: it is not one of ours, or contradicts itself.
    """
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or "images" not in manifest:
        raise ValueError(f"{where} is not a set of this version of hieramp (its {MANIFEST} should say format {FORMAT})")
    try:
        folders, names = manifest["class_folders"], manifest["class_names"]
        num_classes = len(names)
        if len(folders) != num_classes:
            raise ValueError(f"{MANIFEST} of {where} has {len(folders)} class folders for {num_classes} class names")
        seen = set()
        for row in manifest["images"]:
            name, label = row["file"], row["label"]
            check_name(name, where)
            if name in seen:
                raise ValueError(f"{MANIFEST} of {where} lists {name} twice")
            if not isinstance(label, int) or not 0 <= label < num_classes:
                raise ValueError(f"{MANIFEST} of {where} gives {name} the label {label!r}; there are {num_classes}")
            if not (isinstance(row["bytes"], int) and isinstance(row["sha256"], str) and isinstance(row["seed"], int)):
                raise ValueError(f"{MANIFEST} of {where} is damaged: size, hash or seed of {name} is of a wrong type")
            seen.add(name)
        for name, row in manifest["files"].items():
            check_name(name, where)
            if not isinstance(row["bytes"], int) or name in seen:
                raise ValueError(f"{MANIFEST} of {where} is damaged: the entry of {name}")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{MANIFEST} of {where} is damaged: {error!r}") from error
    return manifest
