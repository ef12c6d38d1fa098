"""What is prepared for a whole set from real images, on disk: stages named by a hash of all that decides about them.

Every entry is written whole or not at all, and one that is there is not made again: a run that was killed goes on where
it was, and further sets of the same model and images share what they can.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor
from tqdm import tqdm

from hieramp.checkpoints import read_safetensors, save_safetensors
from hieramp.distillation.maker import parallel_map
from hieramp.errors import UserError

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Stage:
    """Entries of one kind; `about` is all that decides about them."""

    root: Path
    name: str
    about: Mapping[str, Any]

    @property
    def hash(self) -> str:
        return hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        return self.root / f"{self.name}-{self.hash[:16]}"

    def get(self, jobs: Mapping[str, Callable[[], Tensors]], device: torch.device, what: str) -> dict[str, Tensors]:
        """The entries, those that are missing made by their jobs and kept; on a CPU each on one thread.

        Raises:
            OSError: the disk is full, or the place not writable. What is finished is kept.
        """
        self.folder.mkdir(exist_ok=True)
        found = {key: self._read(key) for key in jobs}
        missing = [key for key, tensors in found.items() if tensors is None]
        at_once = 1 if device.type != "cpu" else 2 * torch.get_num_threads()
        with tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc=what, leave=False, disable=None) as bar:
            for start in range(0, len(missing), at_once):
                keys = missing[start : start + at_once]
                found |= self._made(keys, [jobs[key] for key in keys], device)
                bar.update(len(keys))
        return {key: tensors for key, tensors in found.items() if tensors is not None}

    def get_one(self, key: str, job: Callable[[], Tensors]) -> Tensors:
        """An entry that takes the device or all threads by itself."""
        self.folder.mkdir(exist_ok=True)
        found = self._read(key)
        return self._kept(key, job) if found is None else found

    def _read(self, key: str) -> Tensors | None:
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            return read_safetensors(path)
        except UserError:  # damaged: it is made again
            path.unlink()
            return None

    def _made(self, keys: Sequence[str], jobs: Sequence[Callable[[], Tensors]], device: torch.device) -> dict:
        if device.type != "cpu":
            return {key: self._kept(key, job) for key, job in zip(keys, jobs, strict=True)}
        made = parallel_map([partial(self._kept, key, job) for key, job in zip(keys, jobs, strict=True)])
        return dict(zip(keys, made, strict=True))

    def _kept(self, key: str, job: Callable[[], Tensors]) -> Tensors:
        tensors = {name: value.detach().cpu().contiguous() for name, value in job().items()}
        save_safetensors(self._path(key), tensors)
        return tensors

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


@dataclass(frozen=True)
class Store:
    """A folder of stages."""

    folder: Path

    def stage(self, name: str, about: Mapping[str, Any]) -> Stage:
        return Stage(self.folder, name, about)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Against a second run that prepares here: it waits.

        Raises:
            UserError: the folder above does not exist, or a file is in the way.
        """
        try:
            self.folder.mkdir(exist_ok=True)
        except FileNotFoundError as error:
            raise UserError(f"{self.folder} cannot be made: the folder {self.folder.parent} does not exist") from error
        except FileExistsError as error:
            raise UserError(f"{self.folder} is in the way: it is no folder; name another --prepared") from error
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            tqdm.write(f"another run prepares in {self.folder}: waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()
