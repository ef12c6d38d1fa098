"""Drawings that others may go on from, so that a change of the finer stages does not draw the coarser ones again."""

import threading
from dataclasses import dataclass
from typing import Protocol

from hieramp.generation.request import Request
from hieramp.generation.step import Step
from hieramp.var.model import VAR, Generation


@dataclass(frozen=True)
class Prefix:
    """A drawing as far as it came. Another one may go on from where the two part, without changing it."""

    request: Request
    steps: tuple[Step, ...]
    state: Generation
    row_of_image: tuple[int, ...]  # in the state

    @property
    def num_bytes(self) -> int:
        """What it keeps in memory, nearly: the cache, logits and noise, pictures."""
        cache, pixels = self.state.cache, 3 * self.steps[0].rows.vqvae.config.image_size ** 2
        results = [step.rows.result for step in self.steps]
        large = sum(2 * r.logits.nbytes + r.f_hat.nbytes + 4 * pixels * len(r.tokens) for r in results)
        return cache.keys_NBHTD.nbytes + cache.values_NBHTD.nbytes + large

    def shared_with(self, request: Request, var: VAR) -> tuple[int, list[int]]:
        """How many scales `request` shares with this drawing, and for each of its images the one to go on from."""
        if (request.sampling, request.return_attention) != (self.request.sampling, self.request.return_attention):
            return 0, []
        for scale in reversed(range(len(self.steps))):
            mine = {key: j for j, key in enumerate(self.request.prefix_keys(scale, var))}
            wanted = request.prefix_keys(scale, var)
            if all(key in mine for key in wanted):
                return scale + 1, [mine[key] for key in wanted]
        return 0, []


class PrefixCache(Protocol):
    """Keeps drawings for others to go on from: `RecentDrawings`."""

    def best(self, request: Request, var: VAR) -> Prefix | None: ...

    def keep(self, prefix: Prefix, var: VAR) -> None: ...


class RecentDrawings:
    """The newest drawings of one model, up to `max_bytes` together; the oldest go first. Safe among threads."""

    def __init__(self, max_bytes: int = 64 * 2**20) -> None:
        self.max_bytes = max_bytes
        self._prefixes: list[Prefix] = []  # newest last
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        return sum(prefix.num_bytes for prefix in self._prefixes)

    def best(self, request: Request, var: VAR) -> Prefix | None:
        """The drawing that shares most scales with the request."""
        with self._lock:
            shared = [(prefix.shared_with(request, var)[0], prefix) for prefix in self._prefixes]
        count, prefix = max(shared, key=lambda entry: entry[0], default=(0, None))
        return prefix if count else None

    def keep(self, prefix: Prefix, var: VAR) -> None:
        """Keep a drawing; those that it goes further than are let go."""
        with self._lock:
            others = [old for old in self._prefixes if prefix.shared_with(old.request, var)[0] < len(old.steps)]
            self._prefixes = [*others, prefix]
            while self._prefixes and self.num_bytes > self.max_bytes:
                self._prefixes.pop(0)
