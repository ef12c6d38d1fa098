"""The unfinished set on disk: a folder of batches, each written whole or not at all, that any later run takes up.

A batch is a small zip (which brings a checksum a file) of <index>.png and, with soft labels, <index>.logits; where an
image was chosen among several, <index>.chosen says which.
"""

import json
import shutil
import uuid
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from hieramp.distillation.plan import Plan, differences, warn_of_versions
from hieramp.errors import UserError
from hieramp.files import atomic, part_of, write_text

OPEN_BATCHES = 16


@dataclass(frozen=True)
class Made:
    """One finished image."""

    index: int
    png: bytes
    logits: bytes | None  # float16, little-endian, one per class
    chosen: int = 0  # which of the candidates


class PartFolder:
    """Batches of a plan that are safe on disk."""

    def __init__(self, plan: Plan) -> None:
        self.path, self.num_images = plan.part, len(plan)
        self.batch_of_index = np.full(self.num_images, -1, dtype=np.int32)
        self.batches: list[Path] = []
        self.opened: OrderedDict[int, zipfile.ZipFile] = OrderedDict()
        self.with_logits, self.with_choice = bool(plan.settings.get("soft_labels")), plan.candidates > 1
        for path in sorted(self.path.glob("*.batch")):
            self._take_up(path)

    @property
    def num_done(self) -> int:
        return int((self.batch_of_index >= 0).sum())

    def lacks(self, index: int) -> bool:
        return bool(self.batch_of_index[index] < 0)

    def missing(self) -> Iterator[int]:
        return (index for index in range(self.num_images) if self.lacks(index))

    def _take_up(self, path: Path) -> None:
        """Count a batch in, or remove it if it is damaged: its images are then made again."""
        try:
            with zipfile.ZipFile(path) as file:
                indices = [int(name.removesuffix(".png")) for name in file.namelist() if name.endswith(".png")]
                complete = len(file.namelist()) == (1 + self.with_logits + self.with_choice) * len(indices)
                whole = file.testzip() is None and complete and all(is_png(file.read(f"{i}.png")) for i in indices)
            if whole and all(0 <= index < self.num_images for index in indices):
                self._register(path, indices)
                return
        except (zipfile.BadZipFile, OSError, ValueError, EOFError):
            pass
        path.unlink(missing_ok=True)

    def _register(self, path: Path, indices: Iterable[int]) -> None:
        self.batch_of_index[list(indices)] = len(self.batches)
        self.batches.append(path)

    def add(self, made: list[Made]) -> None:
        """Put a batch on the disk: written beside, flushed, renamed."""
        path = self.path / f"{made[0].index:09d}-{uuid.uuid4().hex[:8]}.batch"
        with atomic(path) as part, zipfile.ZipFile(part, "w") as file:
            for image in made:
                file.writestr(f"{image.index}.png", image.png)
                if image.logits is not None:
                    file.writestr(f"{image.index}.logits", image.logits)
                if self.with_choice:
                    file.writestr(f"{image.index}.chosen", str(image.chosen))
        self._register(path, [image.index for image in made])

    def read(self, index: int) -> Made:
        """An image made before.

        Raises:
            UserError: the batch was damaged since.
        """
        number = int(self.batch_of_index[index])
        try:
            file = self._open(number)
            logits = file.read(f"{index}.logits") if self.with_logits else None
            chosen = int(file.read(f"{index}.chosen")) if self.with_choice else 0
            return Made(index, file.read(f"{index}.png"), logits, chosen)
        except (zipfile.BadZipFile, OSError, KeyError, EOFError) as error:
            raise UserError(
                f"{self.batches[number]} was damaged meanwhile ({error}): remove it and run the same line again"
            ) from error

    def _open(self, number: int) -> zipfile.ZipFile:
        if number not in self.opened:
            self.opened[number] = zipfile.ZipFile(self.batches[number])
            if len(self.opened) > OPEN_BATCHES:
                self.opened.popitem(last=False)[1].close()
        self.opened.move_to_end(number)
        return self.opened[number]

    def close(self) -> None:
        while self.opened:
            self.opened.popitem()[1].close()


def num_kept(out: Path) -> int:
    """How many images of the unfinished set of `out` are on the disk, by the lists of its batches."""
    found: set[str] = set()
    for path in part_of(out).glob("*.batch"):
        with suppress(zipfile.BadZipFile, OSError, ValueError), zipfile.ZipFile(path) as file:
            found |= {name for name in file.namelist() if name.endswith(".png")}
    return len(found)


def is_being_written(out: Path) -> bool:
    """Whether a process, this one or another, is at work on the unfinished set of `out`."""
    path = part_of(out) / "lock"
    if not path.is_file():
        return False
    lock = FileLock(path)
    try:
        with lock.acquire(timeout=0):
            return False
    except (Timeout, OSError):
        return True


def is_png(data: bytes) -> bool:
    """Whether a picture is whole, by its checksums."""
    try:
        with Image.open(BytesIO(data), formats=["PNG"]) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


@contextmanager
def part_folder(plan: Plan) -> Iterator[PartFolder]:
    """The part folder of a plan, made or taken up, and held against a second run.

    Raises:
        UserError: it belongs to other settings, or another run is writing it.
        OSError: the place cannot be written.
    """
    if plan.part.is_symlink():
        raise UserError(f"{plan.part} is in the way: it is a link, and no unfinished set is one; move it")
    try:
        plan.part.mkdir(exist_ok=True)
    except FileNotFoundError as error:
        raise UserError(f"{plan.out} cannot be made: the folder {plan.out.parent} does not exist") from error
    except FileExistsError as error:
        raise UserError(f"{plan.part} is in the way: it is no folder of an unfinished set; move it") from error
    foreign = _foreign(plan)
    if foreign:
        raise UserError(f"{plan.part} is in the way: it holds {foreign[0]}, which no unfinished set has; move it")
    lock = FileLock(plan.part / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"another run is writing {plan.out} just now: wait for it, or name another place") from error
    try:
        _same_settings(plan)
        for left in plan.part.glob("*.part"):
            left.unlink()
        folder = PartFolder(plan)
        try:
            yield folder
        finally:
            folder.close()
    finally:
        lock.release()


def _same_settings(plan: Plan) -> None:
    path = plan.part / "settings.json"
    if not path.is_file():
        write_text(path, json.dumps(plan.manifest_head))
        return
    try:
        before = json.loads(path.read_text())
        if not isinstance(before, dict):
            raise UserError("it holds no settings")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: remove {plan.part} to begin anew") from error
    refuse_others(plan, before, str(plan.part), "an unfinished set")
    warn_of_versions(before, plan.part)


def refuse_others(plan: Plan, before: dict, where: str, what: str) -> None:
    """Raise UserError, naming the differences, where `before` are other settings than the plan's."""
    ours = json.loads(json.dumps(plan.identity))
    differing = differences(ours, {key: value for key, value in before.items() if key in ours or key == "model"})
    if differing:
        few = "; ".join(differing[:4]) + ("; …" if len(differing) > 4 else "")
        raise UserError(f"{where} holds {what} of other settings ({few}): name another --out, or remove it")


def remove(plan: Plan) -> None:
    """Remove the folder of the unfinished set; a folder of that name that holds anything else is not ours."""
    if plan.part.is_dir() and not _foreign(plan):
        shutil.rmtree(plan.part, ignore_errors=True)


OURS = ("settings.json", "lock", "set", "set.zip", "*.batch", "*.part", "matching.safetensors")


def _foreign(plan: Plan) -> list[str]:
    """What is in the folder that no run of ours puts there."""
    return sorted(path.name for path in plan.part.iterdir() if not any(path.match(pattern) for pattern in OURS))
