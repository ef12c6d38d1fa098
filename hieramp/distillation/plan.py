"""What a set will hold, decided before anything is drawn."""

import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import PIL
import torch

from hieramp.errors import UserError
from hieramp.imageset.layout import FORMAT, FORMATS, Format, class_folders, image_name
from hieramp.version import __version__

log = logging.getLogger(__name__)
MAX_IPC = 1_000_000  # image k of a class has the seed `seed` · MAX_IPC + k, so that no two sets share an image
MAX_CANDIDATES = 64


@dataclass(frozen=True)
class Item:
    """One image to make; an image depends on (label, seed) and the settings alone."""

    index: int  # in the order of the set: class after class
    label: int
    seed: int  # of the first candidate, where there are several; the next have seed + 1, …
    file: str


@dataclass(frozen=True)
class Plan:
    """A whole set: its settings, and by them its images.

    Raises:
        UserError: no class, a class twice, a number of images out of range, an unknown format.
    """

    out: Path
    method: str
    class_names: tuple[str, ...]
    wnids: tuple[str, ...]
    classes: tuple[int, ...]
    ipc: int
    image_size: int
    seed: int
    settings: dict[str, Any]  # whatever else decides about the images, ready for JSON
    model: dict[str, Any] | None = None
    format: Format = "zip"
    candidates: int = 1  # drawn for each image
    weighs: bool = False  # whether images have weights

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= MAX_CANDIDATES:
            raise UserError(f"candidates is {self.candidates}; it must be a whole number from 1 to {MAX_CANDIDATES}")
        if not 1 <= self.ipc <= MAX_IPC:
            raise UserError(f"ipc is {self.ipc}; it must be a whole number from 1 to {MAX_IPC}")
        if self.ipc * self.candidates > MAX_IPC:
            raise UserError(f"ipc times candidates is {self.ipc * self.candidates}; it must be at most {MAX_IPC}")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise UserError(f"classes are {list(self.classes)}; name at least one, and each only once")
        if not 0 <= self.seed < 2**40:
            raise UserError(f"seed is {self.seed}; it must be a whole number from 0 to {2**40 - 1}")
        if not 1 <= self.image_size <= 4096:
            raise UserError(f"size is {self.image_size}; it must be from 1 to 4096 pixels")
        if self.format not in FORMATS:
            raise UserError(f"format is {self.format!r}; it must be one of {', '.join(FORMATS)}")
        if self.format == "zip" and self.out.suffix.lower() != ".zip":
            raise UserError(f"{self.out} must end in .zip; for a folder or shards name another format")

    def __len__(self) -> int:
        return self.ipc * len(self.classes)

    @cached_property
    def folders(self) -> tuple[str, ...]:
        return class_folders(len(self.class_names), self.wnids, self.format, self.classes)

    def item(self, index: int) -> Item:
        label, k = self.classes[index // self.ipc], index % self.ipc
        file = image_name(self.folders[label], k, self.format)
        return Item(index, label, self.seed * MAX_IPC + k * self.candidates, file)

    @property
    def part(self) -> Path:
        """Where the unfinished set lies."""
        return self.out.with_name(self.out.name + ".part")

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides about the images: a set is taken up, or is there already, where this is the same."""
        settings = {"ipc": self.ipc, "classes": list(self.classes), "seed": self.seed} | self.settings
        model = {"model": self.model} if self.model else {}
        return {
            "format": FORMAT,
            "method": self.method,
            **model,
            "settings": settings,
            "image_size": self.image_size,
            "class_names": list(self.class_names),
            "class_folders": list(self.folders),
            "storage": self.format,
        }

    @property
    def manifest_head(self) -> dict[str, Any]:
        """How the manifest begins: the identity, and the versions that the set is made by."""
        return self.identity | {"versions": versions()}


def versions() -> dict[str, str]:
    return {
        "hieramp": __version__,
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "python": platform.python_version(),
    }


def warn_of_versions(before: dict[str, Any], where: Path) -> None:
    """Say on stderr where an unfinished set was begun by other versions: an image may then differ in its last bits."""
    changed = differences(versions(), before.get("versions", versions()))
    if changed:
        log.warning("%s was begun by other versions (%s): its images may differ slightly", where, "; ".join(changed))


def differences(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> list[str]:
    """Where two settings differ, as "name: theirs, now ours"."""
    found = []
    for key in sorted(set(ours) | set(theirs)):
        a, b = ours.get(key), theirs.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key} was {_short(b)}, now {_short(a)}")
    return found


def _short(value: Any) -> str:
    text = "not set" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def sequence_of_labels(classes: Sequence[int] | None, num_classes: int) -> tuple[int, ...]:
    """The labels asked for, in label order; None is all.

    Raises:
        UserError: a label that does not exist.
    """
    labels = tuple(range(num_classes)) if classes is None else tuple(sorted(int(label) for label in classes))
    for label in labels:
        if not 0 <= label < num_classes:
            raise UserError(f"class {label} does not exist: there are 0 to {num_classes - 1}")
    return labels
