"""Makes a plan's images: batches in, batches safely on disk, the whole set at the end.

While one batch is drawn the one before is compressed and written. A run that was killed is taken up again.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic

import torch

from hieramp.distillation.assemble import assemble
from hieramp.distillation.maker import Batch, BatchRequest, Maker
from hieramp.distillation.parts import PartFolder, part_folder, refuse_others, remove
from hieramp.distillation.plan import Item, Plan
from hieramp.errors import UserError
from hieramp.imageset.reader import open_set


@dataclass(frozen=True)
class Progress:
    """How far a set is."""

    done: int  # images that are safe on disk
    total: int
    images_per_second: float  # of this run; 0 before its first batch
    path: Path  # where the set will be, or is when done == total and `finished`
    finished: bool = False

    @property
    def seconds_left(self) -> float | None:
        """By the rate so far; None before the first batch."""
        return (self.total - self.done) / self.images_per_second if self.images_per_second else None


class Queue:
    """What is still to be made, cut into requests. In half precision the cuts are the same in every run."""

    def __init__(self, plan: Plan, folder: PartFolder, batch_size: int) -> None:
        self.plan, self.batch_size = plan, batch_size
        self.fixed = plan.settings.get("batch_size") is not None
        self.batches = self._same_cut(folder) if self.fixed else self._any_cut(folder)
        self.doubtful: list[Item] = []
        self.again: deque[BatchRequest] = deque()  # of workers that died

    def next(self) -> BatchRequest | None:
        """The next request; None where there is none now (more doubtful images may yet come)."""
        if self.again:
            return self.again.popleft()
        if len(self.doubtful) >= self.batch_size:
            return self._exact()
        indices = next(self.batches, None)
        if indices:
            return BatchRequest(tuple(self.plan.item(index) for index in indices))
        return self._exact() if self.doubtful else None

    def _exact(self) -> BatchRequest:
        items, self.doubtful = self.doubtful[: self.batch_size], self.doubtful[self.batch_size :]
        return BatchRequest(tuple(items), exact=True)

    def _any_cut(self, folder: PartFolder) -> Iterator[list[int]]:
        """Batches of nearly one size: the few images that would be left for a last one cost more than their share."""
        count, missing = len(self.plan) - folder.num_done, folder.missing()
        num_batches = max(1, math.ceil(count / self.batch_size))
        size = math.ceil(count / num_batches)
        while indices := list(islice(missing, min(size, self.batch_size))):
            yield indices

    def _same_cut(self, folder: PartFolder) -> Iterator[list[int]]:
        """Whole batches, each what it was in any other run, where an image is missing."""
        for start in range(0, len(self.plan), self.batch_size):
            indices = list(range(start, min(start + self.batch_size, len(self.plan))))
            if any(folder.lacks(index) for index in indices):
                yield indices

    def halve(self, request: BatchRequest) -> None:
        """Take a request back that was too large for the device's memory.

        Raises:
            MemoryError: it was a single image, or the batch size is part of the settings.
        """
        if len(request.items) == 1 or self.fixed:
            way_out = "a smaller --batch-size and another --out" if self.fixed else "a smaller model, or --device cpu"
            raise MemoryError(f"a batch of {len(request.items)} does not fit the device's memory: take {way_out}")
        self.batch_size = max(1, len(request.items) // 2)
        for start in range(0, len(request.items), self.batch_size):
            self.again.append(BatchRequest(request.items[start : start + self.batch_size], request.exact))


def produce(plan: Plan, maker: Maker, batch_size: int) -> Iterator[Progress]:
    """Make a plan's set on this machine; closing the iterator keeps what is done.

    Raises:
        UserError: the place holds other settings.
        OSError: the disk is full, or the place not writable; what is done is kept.
    """
    return produce_with(plan, lambda queue, folder: make_here(queue, folder, maker), batch_size)


def produce_with(
    plan: Plan, work: Callable[[Queue, PartFolder], Iterator[None]], batch_size: int
) -> Iterator[Progress]:
    """The frame around any engine: `work` empties the queue into the folder, yielding whenever a batch is safe."""
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1")
    if already_there(plan):
        remove(plan)
        yield Progress(len(plan), len(plan), 0.0, plan.out, finished=True)
        return
    with explain_os_errors(plan), part_folder(plan) as folder:
        before, started = folder.num_done, monotonic()
        yield Progress(before, len(plan), 0.0, plan.out)
        for _ in work(Queue(plan, folder, batch_size), folder):
            rate = (folder.num_done - before) / max(monotonic() - started, 1e-9)
            yield Progress(folder.num_done, len(plan), rate, plan.out)
        rate = (folder.num_done - before) / max(monotonic() - started, 1e-9)
        assert folder.num_done == len(plan)
        assemble(plan, folder)
    remove(plan)
    yield Progress(len(plan), len(plan), rate, plan.out, finished=True)


def already_there(plan: Plan) -> bool:
    """Whether the finished set is in place.

    Raises:
        UserError: something else is, or a set of other settings.
    """
    if not plan.out.exists():
        return False
    try:
        with open_set(plan.out) as image_set:
            manifest = image_set.manifest
    except ValueError as error:
        raise UserError(f"{plan.out} is in the way: it is no set of ours ({error}); name another --out") from error
    refuse_others(plan, manifest, str(plan.out), "a finished set")
    return True


@contextmanager
def explain_os_errors(plan: Plan) -> Iterator[None]:
    """Add to an OSError what is safe and what to do."""
    try:
        yield
    except OSError as error:
        kept = f"what is finished is kept in {plan.part}; see to it, and run the same line again"
        raise OSError(f"{error.strerror or error} while writing {plan.out}: {kept}") from error


def make_here(queue: Queue, folder: PartFolder, maker: Maker) -> Iterator[None]:
    """Draw on this thread; compress and write on another, one batch behind."""
    with ThreadPoolExecutor(1, "writer") as writer:
        writing: Future[Batch] | None = None
        while True:
            request = queue.next()
            if request is None and writing is None:
                return
            finish = None if request is None else _made_or_halved(queue, request, maker)
            if writing is not None:
                queue.doubtful += writing.result().doubtful
                yield
            writing = None if finish is None else writer.submit(_store, folder, finish)


def _store(folder: PartFolder, finish: Callable[[], Batch]) -> Batch:
    batch = finish()
    if batch.made:
        folder.add(batch.made)
    return batch


def _made_or_halved(queue: Queue, request: BatchRequest, maker: Maker) -> Callable[[], Batch] | None:
    try:
        return maker.make(request)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        queue.halve(request)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA's error has a class of its own; a CPU's says so in words."""
    said = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or said
