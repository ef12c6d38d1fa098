"""Who may compute when: the newest request of a visitor, and drawings before background work."""

import itertools
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")


class DeviceQueue:
    """Who asked last: an older drawing of the same visitor ends at its next scale.

    Done here and not by Gradio's `cancels`, with which an event cannot cancel its own earlier run.
    """

    def __init__(self) -> None:
        self._newest: dict[str, int] = {}
        self._tickets = itertools.count(1)  # none is given twice, also not to who was forgotten

    def take(self, visitor: str) -> int:
        """A ticket that makes all earlier ones of this visitor stale."""
        self._newest[visitor] = ticket = next(self._tickets)
        return ticket

    def is_stale(self, visitor: str, ticket: int) -> bool:
        return self._newest.get(visitor, ticket) != ticket

    def forget(self, visitor: str) -> None:
        """Their tickets, and those of what else they asked for ("visitor/study")."""
        for name in list(self._newest):
            if name == visitor or name.startswith(f"{visitor}/"):
                self._newest.pop(name, None)


class Device:
    """The one processor that draws. A job takes it between drawings, and waits at most `patience` seconds for a gap."""

    def __init__(self, patience: float = 2.0) -> None:
        self.patience = patience
        self._condition = threading.Condition()
        self._num_drawings = 0  # at work or in line
        self._is_busy = False

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """For one drawing in one piece."""
        with self._announced(), self._held():
            yield

    @contextmanager
    def job(self) -> Iterator[None]:
        """For one batch of background work."""
        with self._condition:
            self._condition.wait_for(lambda: not self._num_drawings, timeout=self.patience)
        with self._held():
            yield

    def taken_for(self, items: Iterator[T]) -> Generator[T, None, None]:
        """The same items, as one drawing; the device is held while each is computed, and free while it is looked at."""
        with self._announced():
            yield from self._one_by_one(items, self._held)

    def in_gaps(self, items: Iterator[T]) -> Generator[T, None, None]:
        """The same items, each computed as background work."""
        yield from self._one_by_one(items, self.job)

    @staticmethod
    def _one_by_one(items: Iterator[T], held: Callable[[], AbstractContextManager[None]]) -> Generator[T, None, None]:
        try:
            while True:
                with held():
                    item = next(items, None)
                if item is None:
                    return
                yield item
        finally:
            if isinstance(items, Generator):
                items.close()

    @contextmanager
    def _announced(self) -> Iterator[None]:
        with self._condition:
            self._num_drawings += 1
        try:
            yield
        finally:
            with self._condition:
                self._num_drawings -= 1
                self._condition.notify_all()

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._is_busy)
            self._is_busy = True
        try:
            yield
        finally:
            with self._condition:
                self._is_busy = False
                self._condition.notify_all()
