"""`open_source`: images and labels by one rule set, wherever they come from (docs/data.md)."""

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from hieramp.checkpoints import read_config
from hieramp.class_names import composed, described_classes, ids_of, keys_of_both
from hieramp.data.files import DiskFiles, DiskFolder, Folder, LeftOut, TarFiles, holds_image, read_tar
from hieramp.data.known import KNOWN, difference, located
from hieramp.data.layout import (
    ANNOTATIONS,
    TAKEN_FOR,
    Classes,
    by_annotations,
    find_classes,
    joined,
    kind_within,
    splits_of,
)
from hieramp.data.pictures import read_picture
from hieramp.errors import UserError
from hieramp.imageset.layout import MANIFEST
from hieramp.imageset.reader import ImageSet, open_set

LOCAL_ENDINGS = (".zip", ".tar", ".pt", ".pth")  # of files; no id of the Hub ends so


@dataclass(frozen=True)
class DataSpec:
    """What a command line says about its images: where they are, which split, and which columns of a table."""

    path: str
    split: str | None = None  # None takes the split that the command needs
    image_column: str | None = None
    label_column: str | None = None
    models: tuple[Path, ...] = ()  # model folders whose order of the classes is kept, where they know the same

    def __str__(self) -> str:
        return self.path


class Files(Protocol):
    """Image files, read when asked for."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Of the index-th file, from the root."""

    def where(self, index: int) -> str:
        """The same with the root."""

    def read(self, index: int) -> bytes: ...

    def signature(self) -> str:
        """The same only while nothing was changed."""


@dataclass(frozen=True, eq=False)
class DataSource:
    """An opened image set: its files with a label each, and the names of its classes in label order."""

    files: Files
    targets: tuple[int, ...]
    class_names: tuple[str, ...]
    name: str
    about: str = ""  # one line: how many images of how many classes, from where, what was left out

    def __len__(self) -> int:
        return len(self.files)

    def labels(self) -> list[int]:
        """The label of every image, without opening any."""
        return list(self.targets)

    def file_name(self, index: int) -> str:
        """Path of an image from the root."""
        return self.files.name(index)

    @cached_property
    def signature(self) -> str:
        """SHA-256 of file names, dates and labels: whether two sources are the same without reading the images."""
        return hashlib.sha256(f"{self.files.signature()}{self.targets}".encode()).hexdigest()

    def reordered(self, class_names: Sequence[str]) -> "DataSource":
        """The same images with labels in the order of `class_names`, which must be the same names or ImageNet ids.

        Raises:
            UserError: they are other classes.
        """
        ours, theirs = keys_of_both(self.class_names, class_names)
        if sorted(ours) != sorted(theirs):
            lacking = next((name for name, key in zip(class_names, theirs, strict=True) if key not in ours), None)
            odd = next((name for name, key in zip(self.class_names, ours, strict=True) if key not in theirs), None)
            said = f"{lacking!r} is not among the images" if lacking is not None else f"{odd!r} is not known to it"
            raise UserError(
                f"the classes of {self.name} ({len(ours)}) are not those of the model ({len(theirs)}): {said}"
            )
        if ours == theirs:
            return self
        label_of = {key: label for label, key in enumerate(theirs)}
        new = [label_of[key] for key in ours]
        names = [self.class_names[ours.index(key)] for key in theirs]
        return replace(self, targets=tuple(new[label] for label in self.targets), class_names=tuple(names))

    def among(self, class_names: Sequence[str]) -> "DataSource":
        """The same images with labels in the order of `class_names`, among which are all of ours and maybe more.

        Raises:
            UserError: a class that is not among them.
        """
        ours, theirs = keys_of_both(self.class_names, class_names)
        label_of = {key: label for label, key in enumerate(theirs)}
        odd = next((name for name, key in zip(self.class_names, ours, strict=True) if key not in label_of), None)
        if odd is not None:
            raise UserError(
                f"{self.name} has a class {odd!r}, which the model does not know: give images of its classes"
            )
        new = [label_of[key] for key in ours]
        return replace(self, targets=tuple(new[label] for label in self.targets), class_names=tuple(class_names))


def read_image(source: DataSource, index: int) -> Image.Image:
    """One image, RGB.

    Raises:
        UserError: it cannot be read.
    """
    name = source.file_name(index)
    try:
        data = source.files.read(index)
    except (OSError, ValueError) as error:
        raise UserError(f"{name} cannot be read as an image ({error})") from error
    return read_picture(data, name)


def open_source(data: str | DataSpec, split: str = "train") -> DataSource:
    """Open a folder of class folders, a .tar of one, a distilled set, a Hugging Face data set (id or folder), or one of
    the papers' data sets by its name (`hieramp.data.known`).

    Classes are the folders directly below the split, in the order that Python sorts them; `split` ("train", "val",
    "test") is found by what folders are called, so that one name serves train and test. Prints one line, once a
    process: how many images of how many classes, from where, and what was left out.

    Raises:
        UserError: nothing is there, it holds no images, it has no classes, or not the split.
    """
    spec = data if isinstance(data, DataSpec) else DataSpec(data)
    asked, spec = spec.path, replace(spec, path=located(spec.path))
    source = in_order_of_model(_opened(spec, spec.split or split), *spec.models)
    _tell(source.about)
    if other := difference(asked, source.class_names):
        _tell(f"warning: {other}")
    return source


_TOLD: set[str] = set()


def _tell(line: str) -> None:
    if line not in _TOLD and multiprocessing.parent_process() is None:
        _TOLD.add(line)
        print(line, file=sys.stderr)


def _opened(spec: DataSpec, split: str) -> DataSource:
    name, path = spec.path, Path(spec.path)
    if not name:
        raise UserError("the place of the images is empty: give a folder with one sub-folder per class")
    if name.startswith("hfds/"):
        return _table(replace(spec, path=name.removeprefix("hfds/")), split)
    if path.suffix.lower() == ".zip" or (path / MANIFEST).is_file():
        return _set(name)
    if path.is_dir():
        return _table(spec, split) if _is_table(path) else _folder(name, path, split)
    if path.is_file():
        if path.suffix.lower() != ".tar":
            raise UserError(f"{name} is not a folder or a .tar of images: unpack it and give the folder")
        return _tar(name, path, split)
    if said := what_is_missing(name):
        raise UserError(said)
    return _table(spec, split)


def what_is_missing(name: str) -> str:
    """What to say of a place that is not here and no id of the Hub; "" where it may be one. Nothing is opened."""
    path = Path(name)
    if not name or name.startswith("hfds/") or name.lower() in KNOWN or path.exists():
        return ""
    if path.suffix.lower() in LOCAL_ENDINGS:
        return f"{name} does not exist"
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or ("/" in name and path.parent.is_dir()):
        return f"{name} does not exist: give a folder with one sub-folder per class"
    if "/" not in name:
        return f"{name} does not exist here: a data set of the Hub is given as OWNER/NAME, or as hfds/{name}"
    return ""


def _folder(name: str, path: Path, split: str) -> DataSource:
    left_out = LeftOut()
    root = DiskFolder(path, left_out)
    classes = _classes(root, split, name, left_out, lambda file: (path / file).read_text(encoding="utf-8"))
    files = DiskFiles(path, tuple(file for files in classes.paths.values() for file in files))
    return _source(files, classes, name, left_out)


def _tar(name: str, path: Path, split: str) -> DataSource:
    left_out = LeftOut()
    root, places = read_tar(path, left_out)

    def text(file: str) -> str:
        return TarFiles(path, (file,), (places[file],)).read(0).decode("utf-8", "replace")

    classes = _classes(root, split, name, left_out, text)
    paths = tuple(file for files in classes.paths.values() for file in files)
    return _source(TarFiles(path, paths, tuple(places[file] for file in paths)), classes, name, left_out)


def _classes(root: Folder, split: str, name: str, left_out: LeftOut, text: Any) -> Classes:
    classes = find_classes(root, split, name, left_out)
    if list(classes.paths) != [""]:
        return classes
    labelled = by_annotations(classes.paths[""], text(joined(classes.split, ANNOTATIONS)), name)
    return replace(classes, paths=labelled)


def _source(files: Files, classes: Classes, name: str, left_out: LeftOut) -> DataSource:
    targets = tuple(label for label, paths in enumerate(classes.paths.values()) for _ in paths)
    folders = tuple(classes.paths)
    names = tuple(map(composed, folders))
    names = names if len(set(names)) == len(names) else folders
    where = f"{name} (split {classes.split})" if classes.split else name
    return DataSource(files, targets, names, name, _line(len(targets), names, where, str(left_out)))


def _line(num_images: int, names: Sequence[str], where: str, left_out: str) -> str:
    classes = f"1 class ({names[0]})" if len(names) == 1 else f"{len(names)} classes"
    return f"{num_images} images of {classes} in {where}" + (f"; left out: {left_out}" if left_out else "")


def _is_table(path: Path) -> bool:
    """Whether a folder holds a Hugging Face data set as tables, not images."""
    patterns = ("*.parquet", "*/*.parquet", "*.arrow", "*/*.arrow")
    if any(next(path.glob(pattern), None) for pattern in patterns):
        return True
    # the Hub's own copies lie deeper, as default/train/0000.parquet; folders of images are not walked whole for it
    return not holds_image(DiskFolder(path, LeftOut())) and next(path.rglob("*.parquet"), None) is not None


def _table(spec: DataSpec, split: str) -> DataSource:
    from hieramp.data.hub import open_table

    files, targets, names, taken = open_table(spec.path, split, spec.image_column, spec.label_column)
    about = _line(len(targets), names, f"{spec.path} ({taken})", "")
    return DataSource(files, targets, names, spec.path, about)


@dataclass(frozen=True)
class _SetFiles:
    """The images of a distilled set."""

    path: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index]

    def where(self, index: int) -> str:
        return f"{self.path}/{self.names[index]}"

    def read(self, index: int) -> bytes:
        return _opened_set(self.path, self.signature(), os.getpid()).read(self.names[index])

    def signature(self) -> str:
        manifest = self.path if self.path.is_file() else self.path / MANIFEST
        return repr((self.path, manifest.stat().st_size, manifest.stat().st_mtime_ns))


@lru_cache(maxsize=2)
def _opened_set(path: Path, signature: str, process: int) -> ImageSet:
    """A set that stays open; every process has its own, since they would move one another's place in the file."""
    return open_set(path)


def _set(name: str) -> DataSource:
    with open_set(name) as opened:
        folders = tuple(opened.manifest["class_folders"])
        are_wnids = "wnids" in described_classes(folders)
        names = folders if are_wnids else opened.class_names
        files = _SetFiles(Path(name), opened.file_names)
        about = _line(len(opened), [names[k] for k in sorted(set(opened.labels))], f"{name} (a distilled set)", "")
        return DataSource(files, opened.labels, names, name, about)


def has_test_split(data: str) -> bool:
    """Whether a folder holds test images (or validation images) beside those to train on."""
    path = Path(data)
    splits = splits_of(DiskFolder(path, LeftOut())) if path.is_dir() and not _is_table(path) else {}
    return any(kind_within(name) in TAKEN_FOR["test"] for name in splits)


def in_order_of_model(source: DataSource, *folders: Path | None) -> DataSource:
    """The source with its labels in the order of the first of these model folders that knows the same classes.

    Models keep the order they were trained with in config.json; those of before sorted class_2 before class_10.
    """
    for folder in folders:
        if folder is None or not (folder / "config.json").is_file():
            continue
        known = ids_of(read_config(folder))
        ours, theirs = keys_of_both(source.class_names, known)
        if sorted(ours) == sorted(theirs):
            return source.reordered(known)
    return source
