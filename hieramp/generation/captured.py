"""The scales of a drawing, recorded once and replayed: on CUDA a scale is then one launch instead of some hundred.

A board is a set of buffers of fixed shape (cache, latent grids, labels, noise keys) and the scales recorded on them
with `draw_scale`, the very function of the plain path. Rows beyond those asked for repeat the first one. What a replay
returns is copied out, so that the next one cannot overwrite it. CUDA graphs: pytorch.org/docs/stable/notes/cuda.html.
"""

import threading
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from hieramp.amplification.settings import Amplification
from hieramp.generation.scale import Drawn, Plan, draw_scale
from hieramp.var.model import VAR, Conditions, Generation
from hieramp.vqvae.model import VQVAE

T = TypeVar("T")
MAX_BOARDS = 3
MAX_RECORDED = 64  # scales of a board
MAX_ROWS = 128  # images; more keep a card busy without


class Recorder(Protocol):
    """Turns a computation on fixed tensors into one that can be run again."""

    def record(self, run: Callable[[], T]) -> Callable[[], T]:
        """The result computes again from what the tensors then hold, and always returns the same tensors.

        `run` may be called more than once here: it must not change what it reads.
        """
        ...

    def finish(self) -> None:
        """Return when nothing recorded is still running, so that it may be let go."""
        ...


class CudaRecorder:
    """Records CUDA graphs that share one memory pool: they must be replayed one after the other."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device()) if device is None else device
        with torch.cuda.device(self.device):
            self.pool = torch.cuda.graph_pool_handle()
            self.aside = torch.cuda.Stream()  # one: every stream has a workspace of 32 MB for its matrix products

    def record(self, run: Callable[[], T]) -> Callable[[], T]:
        with torch.cuda.device(self.device):  # the streams below are those of the current device
            here = torch.cuda.current_stream()
            self.aside.wait_stream(here)
            with torch.cuda.stream(self.aside):  # libraries set themselves up on first use, which a graph cannot hold
                run()
                run()
            here.wait_stream(self.aside)
            graph = torch.cuda.CUDAGraph()
            # other threads may go on using the card meanwhile; without a stream it would be one of the device that
            # recorded first in this process
            with torch.cuda.graph(graph, self.pool, self.aside, capture_error_mode="thread_local"):
                result = run()

        def replay() -> T:
            with torch.cuda.device(self.device):
                graph.replay()
            return result

        return replay

    def finish(self) -> None:
        torch.cuda.synchronize(self.device)


def bucket(num_rows: int) -> int:
    """The row count to record for: exact up to 15, then at most an eighth more."""
    step = max(1, 2 ** (num_rows.bit_length() - 1) // 8)
    return -(-num_rows // step) * step


def copied(tree: Any, rows: Callable[[Tensor], Tensor] = lambda x: x) -> Any:
    """A copy of the tensors of nested tuples, of the rows chosen."""
    if isinstance(tree, Tensor):
        return rows(tree).clone()
    if isinstance(tree, tuple):
        values = (copied(value, rows) for value in tree)
        return type(tree)(*values) if hasattr(tree, "_fields") else tuple(values)
    return tree


def clear(tree: Any) -> None:
    """Zeros in the tensors of nested tuples."""
    if isinstance(tree, Tensor):
        tree.zero_()
    elif isinstance(tree, tuple):
        for value in tree:
            clear(value)


def agree(tree: Any, other: Any) -> bool:
    """Whether the tensors of nested tuples are the same: whole numbers exactly, others to a hundredth."""
    if isinstance(tree, Tensor):
        if not tree.is_floating_point():
            return torch.equal(tree, other)
        return torch.allclose(tree.float(), other.float(), rtol=1e-2, atol=1e-2, equal_nan=True)
    if isinstance(tree, tuple):
        return len(tree) == len(other) and all(map(agree, tree, other))
    return tree == other


@dataclass
class _Recorded:
    """A scale on a board."""

    plan: Plan  # its tensors are what the recording reads
    replay: Callable[[], Drawn]
    amplifications: tuple[Amplification, ...]  # that they hold now

    def set(self, plan: Plan) -> None:
        """Read the strengths of `plan` from now on."""
        if plan.amplifications == self.amplifications:
            return
        for block, strengths in plan.strengths.items():
            self.plan.strengths[block].copy_(strengths)
        self.amplifications = plan.amplifications


class Board:
    """The buffers of up to `num_rows` images in `halves` halves, and what was recorded on them."""

    def __init__(self, vqvae: VQVAE, var: VAR, num_rows: int, halves: int, recorder: Recorder) -> None:
        self.vqvae, self.var, self.num_rows, self.halves, self.recorder = vqvae, var, num_rows, halves, recorder
        device, side = var.pos_start.device, vqvae.config.sides[-1]
        latent = (len(var.scales) + 1, num_rows, vqvae.config.code_dim, side, side)
        self.labels_B = torch.zeros(num_rows * halves, dtype=torch.long, device=device)
        self.keys_U2 = torch.zeros(num_rows, 2, dtype=torch.long, device=device)
        self.f_hat = torch.zeros(latent, dtype=vqvae.quantize.embedding.weight.dtype, device=device)  # by scale
        self.cache = var.cache(num_rows * halves)
        self.used, self.is_plain = 0, False
        self._conditions: Callable[[], Conditions] | None = None
        self._scales: OrderedDict[object, _Recorded] = OrderedDict()  # the latest used last

    def begin(self, labels_U: Tensor, keys_U2: Tensor) -> None:
        """Start drawing these images."""
        self.used = len(labels_U)
        spare = self.num_rows - self.used
        labels = torch.cat([labels_U, labels_U[:1].expand(spare)])
        null = torch.full_like(labels, self.var.null_label)
        self.labels_B.copy_(torch.cat([labels, null]) if self.halves == 2 else labels)
        self.keys_U2.copy_(torch.cat([keys_U2, keys_U2[:1].expand(spare, -1)]))
        if self._conditions is None:
            self._conditions = self._recorded(partial(self.var.conditions, self.labels_B))
        self.conditions = self._conditions()

    def draw(self, plan: Plan) -> Drawn:
        """Draw the next scale; the result is the caller's to keep."""
        amplifications = plan.amplifications + plan.amplifications[:1] * (self.num_rows - self.used)
        plan = replace(plan, amplifications=amplifications)
        key = self._key(plan)
        recorded = self._scales.get(key)
        if recorded is None:
            recorded = self._scales[key] = _Recorded(
                plan, self._recorded(partial(self._draw, plan)), plan.amplifications
            )
            if len(self._scales) > MAX_RECORDED:
                self.recorder.finish()
                self._scales.popitem(last=False)
        else:
            recorded.set(plan)
        self._scales.move_to_end(key)
        return copied(recorded.replay(), self._used_rows)

    def _recorded(self, run: Callable[[], T]) -> Callable[[], T]:
        """`run` as a recording; itself, with a warning, where none can be made or it does something else.

        Nothing more is recorded on the board then: a recording reads tensors where another one leaves them, and what
        is computed plainly leaves them elsewhere.
        """
        if self.is_plain:
            return run
        expected = copied(run())
        try:
            replay = self.recorder.record(run)
            clear(replay())  # so that a replay that computes nothing shows
            if agree(expected, replay()):
                return replay
            why = "a recording gave other results"
        except RuntimeError as error:
            why = str(error).partition("\n")[0]
        self.is_plain = True
        warnings.warn(f"drawing goes on without CUDA graphs, which only takes longer: {why}", stacklevel=2)
        return run

    def _draw(self, plan: Plan) -> Drawn:
        state = Generation(self.cache, self.conditions)
        drawn = draw_scale(self.vqvae, self.var, plan, state, self.f_hat[plan.scale], self.keys_U2)
        self.f_hat[plan.scale + 1].copy_(drawn.f_hat)
        return drawn

    def _used_rows(self, x: Tensor) -> Tensor:
        """The rows asked for, of a tensor of one half or of both."""
        if self.used == self.num_rows:
            return x
        return x.unflatten(0, (-1, self.num_rows))[:, : self.used].flatten(0, 1)

    @staticmethod
    def _key(plan: Plan) -> object:
        """All that a recording holds fast: what `draw_scale` asks of Python, and how the card computes."""
        blocks = []
        for block, rows in plan.settings.items():
            factors = any(s and amp.mode == "attention" for s, amp in zip(rows, plan.amplifications, strict=True))
            where = frozenset(s.where for s in rows if s)
            blocks.append((block, factors, any(s and s.positions for s in rows), where))
        precision = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        return plan.scale, plan.sampling, tuple(blocks), plan.read[0], precision


class Captured:
    """The boards of one model, for one drawing at a time; forgotten when its weights move."""

    def __init__(self, recorder: Callable[[], Recorder] = CudaRecorder, after: int = 1) -> None:
        """`after`: how many drawings of a size go by plainly before it is recorded, which takes longer than drawing."""
        self.make_recorder, self.after = recorder, after
        self._lock = threading.Lock()
        self._recorder: Recorder | None = None
        self._forget(None)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Captured":
        return Captured(self.make_recorder, self.after)

    def _forget(self, weights: object) -> None:
        if self._recorder is not None:
            self._recorder.finish()
        self._weights, self._recorder = weights, None
        self._boards: OrderedDict[tuple[int, int], Board] = OrderedDict()  # the latest used last
        self._asked: Counter[tuple[int, int]] = Counter()

    @contextmanager
    def lent(self, vqvae: VQVAE, var: VAR, num_images: int, halves: int) -> Iterator[Board | None]:
        """A board for so many images; None where there is none to be had, and the drawing has to go by plainly."""
        if num_images > MAX_ROWS or not self._lock.acquire(blocking=False):
            yield None
            return
        try:
            yield self._board(vqvae, var, (bucket(num_images), halves))
        finally:
            self._lock.release()

    def _board(self, vqvae: VQVAE, var: VAR, size: tuple[int, int]) -> Board | None:
        weights = [x.data_ptr() for x in (var.pos_start, var.head.weight, vqvae.quantize.embedding.weight)]
        if weights != self._weights:
            self._forget(weights)
        self._asked[size] += 1
        if size not in self._boards:
            if self._asked[size] <= self.after:
                return None
            self._recorder = self._recorder or self.make_recorder()
            self._boards[size] = Board(vqvae, var, *size, self._recorder)
            if len(self._boards) > MAX_BOARDS:
                self._recorder.finish()
                self._boards.popitem(last=False)
        self._boards.move_to_end(size)
        return self._boards[size]
