"""Recent drawings, kept so that a change of the finer stages does not draw the coarser ones again."""

import threading

from hieramp.generation.loop import Past, Request
from hieramp.var.model import VAR


class RecentDrawings:
    """The newest drawings of one model, up to `max_bytes` together; the oldest go first. Safe among threads."""

    def __init__(self, max_bytes: int = 64 * 2**20) -> None:
        self.max_bytes = max_bytes
        self._pasts: list[Past] = []  # newest last
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        return sum(past.num_bytes for past in self._pasts)

    def best(self, request: Request, var: VAR) -> Past | None:
        """The drawing that shares most scales with the request."""
        with self._lock:
            shared = [(past.sources(request, var)[0], past) for past in self._pasts]
        count, past = max(shared, key=lambda entry: entry[0], default=(0, None))
        return past if count else None

    def keep(self, past: Past, var: VAR) -> None:
        """Keep a drawing; those that it goes further than are let go."""
        with self._lock:
            others = [old for old in self._pasts if past.sources(old.request, var)[0] < len(old.steps)]
            self._pasts = [*others, past]
            while self._pasts and self.num_bytes > self.max_bytes:
                self._pasts.pop(0)
