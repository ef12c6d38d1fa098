"""Folders of image files, on disk and in a tar, as one thing: what `hieramp.data.layout` applies its rules to."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from hieramp.data.pictures import MAX_FILE_BYTES, is_picture
from hieramp.errors import UserError

HIDDEN = ("__MACOSX", "@eaDir")  # what macOS and Synology put beside the images


NO_IMAGE = "no images by their names"


class LeftOut:
    """What was not taken, by the reason; the first few are named."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        self.names.setdefault(reason, []).append(name)

    def __str__(self) -> str:
        """ "hidden: 2 (.ipynb_checkpoints, ._x.jpg); no images by their names: 1 (notes.txt)"."""
        return "; ".join(f"{reason}: {len(names)} ({_few(names)})" for reason, names in self.names.items())


def _few(names: list[str], most: int = 2) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


class Folder(Protocol):
    """A folder of a disk or a tar. Hidden files and folders are left out of it."""

    path: str  # from the root, "" for the root itself; parts are joined by "/"

    @property
    def identity(self) -> object:
        """The same for one folder under two names (links)."""

    @property
    def folders(self) -> dict[str, "Folder"]:
        """By name, as Python sorts."""

    @property
    def files(self) -> list[str]:
        """Names, as Python sorts."""


def joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name in HIDDEN


class DiskFolder:
    """A folder on a disk. Links are followed, what is neither file nor folder (a pipe, a dead link) is left out."""

    def __init__(self, root: Path, left_out: LeftOut, path: str = "") -> None:
        self.root, self.left_out, self.path = root, left_out, path

    @cached_property
    def identity(self) -> object:
        status = (self.root / self.path).stat()
        return status.st_dev, status.st_ino

    @cached_property
    def _entries(self) -> tuple[list[str], list[str]]:
        folders, files = [], []
        with os.scandir(self.root / self.path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if is_hidden(entry.name):
                    self.left_out.add("hidden", joined(self.path, entry.name))
                elif entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file():
                    files.append(entry.name)
                else:
                    self.left_out.add("neither files nor folders", joined(self.path, entry.name))
        return folders, files

    @cached_property
    def folders(self) -> dict[str, Folder]:
        return {name: DiskFolder(self.root, self.left_out, joined(self.path, name)) for name in self._entries[0]}

    @property
    def files(self) -> list[str]:
        return self._entries[1]


@dataclass
class TarFolder:
    """A folder inside a tar."""

    path: str = ""
    folders: dict[str, Folder] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    @property
    def identity(self) -> object:
        return self.path

    def sort(self) -> None:
        self.folders = dict(sorted(self.folders.items()))
        self.files.sort()
        for folder in self.folders.values():
            assert isinstance(folder, TarFolder)
            folder.sort()


def images_below(folder: Folder, left_out: LeftOut, seen: set[object]) -> Iterator[str]:
    """Paths of the images below a folder, at any depth; a folder that links lead to again is taken once."""
    if folder.identity in seen:
        left_out.add("linked twice or in a circle", folder.path)
        return
    seen.add(folder.identity)
    for name in folder.files:
        if is_picture(name):
            yield joined(folder.path, name)
        else:
            left_out.add(NO_IMAGE, joined(folder.path, name))
    for inner in folder.folders.values():
        yield from images_below(inner, left_out, seen)


def holds_image(folder: Folder, seen: set[object] | None = None) -> bool:
    """Whether there is one image below; looks no further than the first."""
    seen = set() if seen is None else seen
    if folder.identity in seen:
        return False
    seen.add(folder.identity)
    return any(map(is_picture, folder.files)) or any(holds_image(inner, seen) for inner in folder.folders.values())


@dataclass(frozen=True)
class DiskFiles:
    """Image files on a disk, read when asked for."""

    root: Path
    paths: tuple[str, ...]  # from the root

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def where(self, index: int) -> str:
        return str(self.root / self.paths[index])

    def read(self, index: int) -> bytes:
        """
        Raises:
            OSError: the file cannot be read.
            UserError: it is far too large for a picture.
        """
        path = self.root / self.paths[index]
        check_size(path.stat().st_size)
        return path.read_bytes()

    def signature(self) -> str:
        """Changes where a file is changed."""
        stats = [(self.root / path).stat() for path in self.paths]
        return repr([(path, stat.st_size, stat.st_mtime_ns) for path, stat in zip(self.paths, stats, strict=True)])


def check_size(num_bytes: int) -> None:
    """Raise UserError where a file is too large to be a picture."""
    if num_bytes > MAX_FILE_BYTES:
        raise UserError(f"it has {num_bytes} bytes, more than any picture: at most {MAX_FILE_BYTES} are read")


@dataclass(frozen=True)
class TarFiles:
    """Image files inside an uncompressed tar, read from their place in it; any process may read."""

    tar: Path
    paths: tuple[str, ...]
    places: tuple[tuple[int, int], ...]  # first byte and number of bytes of each

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        return self.paths[index]

    def where(self, index: int) -> str:
        return f"{self.tar}/{self.paths[index]}"

    def read(self, index: int) -> bytes:
        start, size = self.places[index]
        check_size(size)
        with self.tar.open("rb") as stream:
            stream.seek(start)
            return stream.read(size)

    def signature(self) -> str:
        status = self.tar.stat()
        return repr((self.tar, status.st_size, status.st_mtime_ns, self.paths))


def read_tar(path: Path, left_out: LeftOut) -> tuple[TarFolder, dict[str, tuple[int, int]]]:
    """The folders of a tar, and where each of its files lies. A tar inside (ImageNet's) counts as a folder.

    Raises:
        UserError: it is truncated, compressed, or no tar.
    """
    try:
        with tarfile.TarFile(path) as tar:
            places = _members(tar, "", left_out)
    except (tarfile.TarError, EOFError, ValueError) as error:
        compressed = path.open("rb").read(2) in (b"\x1f\x8b", b"BZ", b"\xfd7")
        reason = "is compressed: unpack it, and give the folder" if compressed else f"is truncated or no tar ({error})"
        raise UserError(f"{path} {reason}") from error
    if len(tops := {name.split("/")[0] for name in places}) == 1 and tops == {path.stem}:
        # `tar cf images.tar images` puts the folder's own name before each path
        places = {name.split("/", 1)[1]: place for name, place in places.items() if "/" in name}
    return _as_folders(places), places


def _members(tar: tarfile.TarFile, prefix: str, left_out: LeftOut) -> dict[str, tuple[int, int]]:
    places: dict[str, tuple[int, int]] = {}
    named = {member.name: member for member in tar.getmembers()}
    for member in tar.getmembers():
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        name = "/".join([prefix, *parts] if prefix else parts)
        if member.isdir():
            continue
        if any(map(is_hidden, parts)):
            left_out.add("hidden", name)
        elif member.islnk() and member.linkname in named:
            target = named[member.linkname]
            places[name] = (target.offset_data, target.size)
        elif not member.isreg() or member.issparse():
            left_out.add("no plain files", name)
        elif name.lower().endswith(".tar"):
            stream = tar.extractfile(member)
            assert stream is not None
            with tarfile.TarFile(fileobj=stream) as inner:
                found = _members(inner, name[:-4], left_out)
            places |= {path: (member.offset_data + start, size) for path, (start, size) in found.items()}
        else:
            places[name] = (member.offset_data, member.size)
    return places


def _as_folders(places: dict[str, tuple[int, int]]) -> TarFolder:
    root = TarFolder()
    for name in places:
        *parents, file = name.split("/")
        folder = root
        for part in parents:
            inner = folder.folders.setdefault(part, TarFolder(joined(folder.path, part)))
            assert isinstance(inner, TarFolder)
            folder = inner
        folder.files.append(file)
    root.sort()
    return root
