"""The three formats of a set as one thing: a tree of named files, read and written.

Written trees have fixed dates, owners and order: the same files make the same bytes.
"""

import io
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, TypeVar

from hieramp.errors import UserError
from hieramp.imageset.layout import SHARD_FILES, Format, check_name, shard_name

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold
MAX_RATIO = 100  # of unpacked to packed bytes; PNGs and tables stay far below, bombs far above
T = TypeVar("T")


class Tree(Protocol):
    """A set's files for reading."""

    def sizes(self) -> dict[str, int]:
        """Names and sizes in bytes of all files."""

    def read(self, name: str) -> bytes: ...

    def close(self) -> None: ...


def open_tree(path: Path) -> Tree:
    """Open a zip, a folder or a folder of shards.

    Raises:
        UserError: nothing is there, it is none of the three, or a name in it is unsafe or occurs twice.
    """
    if path.is_dir():
        shards = sorted(path.glob("*.tar"))
        return _Shards(path, shards) if shards else _Folder(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a set made by python -m hieramp distill")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is truncated or no zip: make it again, or copy it again")
    return _Zip(path)


class _Zip:
    def __init__(self, path: Path) -> None:
        try:
            self.file = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UserError(f"{path} cannot be read as a zip: {error}") from error
        self.path = path
        entries = [entry for entry in self.file.infolist() if not entry.is_dir()]
        self.entries = _unique(path, [(entry.filename, entry) for entry in entries])

    def sizes(self) -> dict[str, int]:
        return {name: entry.file_size for name, entry in self.entries.items()}

    def read(self, name: str) -> bytes:
        entry = self.entries[name]
        if entry.file_size > MAX_RATIO * entry.compress_size + 2**20:
            sizes = f"{entry.compress_size} bytes that would unpack to {entry.file_size}"
            raise UserError(f"{name} in {self.path} has {sizes}; it was not read")
        try:
            return self.file.read(entry)
        except (
            zipfile.BadZipFile,
            zlib.error,
            lzma.LZMAError,
            EOFError,
            OSError,
            ValueError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise UserError(f"{name} in {self.path} is damaged: {error}") from error

    def close(self) -> None:
        self.file.close()


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
        self.entries = _unique(path, [(file.relative_to(path).as_posix(), file) for file in files])

    def sizes(self) -> dict[str, int]:
        return {name: file.stat().st_size for name, file in self.entries.items()}

    def read(self, name: str) -> bytes:
        return self.entries[name].read_bytes()

    def close(self) -> None:
        pass


class _Shards:
    """Tar shards that hold train/, beside the other files."""

    def __init__(self, path: Path, shards: list[Path]) -> None:
        self.path, self.beside, self.stack = path, _Folder(path), ExitStack()
        members: list[tuple[str, tuple[int, tarfile.TarInfo]]] = []
        self.shards: list[tarfile.TarFile] = []
        for number, shard in enumerate(shards):
            try:
                tar = self.stack.enter_context(tarfile.TarFile(shard))
                members += [(m.name, (number, m)) for m in tar.getmembers() if m.isreg() and not m.issparse()]
            except (tarfile.TarError, OSError, EOFError, ValueError) as error:
                self.stack.close()
                raise UserError(f"{shard} is truncated or no tar: {error}") from error
            self.shards.append(tar)
        self.entries = _unique(path, members)

    def sizes(self) -> dict[str, int]:
        loose = {name: size for name, size in self.beside.sizes().items() if not name.endswith(".tar")}
        return loose | {name: member.size for name, (_, member) in self.entries.items()}

    def read(self, name: str) -> bytes:
        if name not in self.entries:
            return self.beside.read(name)
        number, member = self.entries[name]
        stream = self.shards[number].extractfile(member)
        assert stream is not None
        try:
            data = stream.read()
        except (tarfile.TarError, OSError) as error:
            raise UserError(f"{name} in {self.path} is damaged: {error}") from error
        if len(data) != member.size:
            raise UserError(f"{name} in {self.path} is cut short: copy the shard again")
        return data

    def close(self) -> None:
        self.stack.close()


def _unique(path: Path, entries: list[tuple[str, T]]) -> dict[str, T]:
    found: dict[str, T] = {}
    for name, entry in entries:
        check_name(name, str(path))
        if name in found:
            raise UserError(f"{path} holds {name} twice; it was not opened")
        found[name] = entry
    return found


class Sink(Protocol):
    """A set's files for writing, in one pass."""

    def write(self, name: str, data: bytes) -> None: ...

    def close(self) -> None: ...


def create_tree(path: Path, format: Format) -> Sink:
    """Begin a zip, a folder or a folder of shards at `path`; what a broken attempt left there is replaced."""
    if path.is_dir():
        shutil.rmtree(path)
    kinds: dict[str, Callable[[Path], Sink]] = {"zip": _ZipSink, "webdataset": _ShardSink}
    return kinds.get(format, _FolderSink)(path)


class _ZipSink:
    """Stored, not compressed: PNGs are compressed already. zip64 where it has to be."""

    def __init__(self, path: Path) -> None:
        self.file = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True)

    def write(self, name: str, data: bytes) -> None:
        entry = zipfile.ZipInfo(name, EPOCH)
        entry.create_system, entry.external_attr = 3, 0o100644 << 16
        self.file.writestr(entry, data)

    def close(self) -> None:
        self.file.close()


class _FolderSink:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def write(self, name: str, data: bytes) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def close(self) -> None:
        """Wait until all is on the disk: what the set was made of is removed next."""
        for path in self.path.rglob("*"):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


class _ShardSink(_FolderSink):
    """WebDataset: the images in tars, each with its label as a .cls beside it; everything else in the folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.tar: tarfile.TarFile | None = None
        self.num_files = 0

    def write(self, name: str, data: bytes) -> None:
        if not name.endswith((".png", ".cls")):
            super().write(name, data)
            return
        if name.endswith(".png"):
            if self.num_files % SHARD_FILES == 0:
                self._close_shard()
                shard = self.path / shard_name(self.num_files // SHARD_FILES)
                self.tar = tarfile.TarFile(shard, "w", format=tarfile.USTAR_FORMAT)
            self.num_files += 1
        assert self.tar is not None
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        self.tar.addfile(entry, io.BytesIO(data))

    def _close_shard(self) -> None:
        if self.tar is not None:
            self.tar.close()

    def close(self) -> None:
        self._close_shard()
        super().close()
