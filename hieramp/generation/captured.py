"""CUDA graphs as a wrapper of `draw_scale`: a scale is then one launch instead of some hundred.

A set of buffers of fixed shape (cache, latent grids, labels, noise keys) holds what the graphs read; rows beyond those
asked for repeat the first one. What a graph returns is copied out, so that the next replay cannot overwrite it.
CUDA graphs: pytorch.org/docs/stable/notes/cuda.html.
"""

import threading
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from hieramp.amplification.settings import Amplification
from hieramp.generation.rows import SharedRows
from hieramp.generation.scale import ScaleResult, ScaleSettings
from hieramp.var.model import VAR, Conditions, Generation
from hieramp.vqvae.model import VQVAE

T = TypeVar("T")
MAX_BUFFERS = 3
MAX_GRAPHS = 64  # scales recorded on one set of buffers
DrawScale = Callable[..., ScaleResult]  # `hieramp.generation.loop.draw_scale`
MAX_ROWS = 128  # images; more keep a GPU busy without graphs


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
            self.side_stream = torch.cuda.Stream()  # one: every stream has a workspace of 32 MB for its matrix products

    def record(self, run: Callable[[], T]) -> Callable[[], T]:
        with torch.cuda.device(self.device):  # the streams below are those of the current device
            current = torch.cuda.current_stream()
            self.side_stream.wait_stream(current)
            with torch.cuda.stream(
                self.side_stream
            ):  # libraries set themselves up on first use, which a graph cannot hold
                run()
                run()
            current.wait_stream(self.side_stream)
            graph = torch.cuda.CUDAGraph()
            # other threads may go on using the GPU meanwhile; without a stream it would be one of the device that
            # recorded first in this process
            with torch.cuda.graph(graph, self.pool, self.side_stream, capture_error_mode="thread_local"):
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


def poison(tree: Any) -> None:
    """NaN, or -1 among whole numbers, in the tensors of nested tuples."""
    if isinstance(tree, Tensor):
        tree.fill_(torch.nan if tree.is_floating_point() else -1)
    elif isinstance(tree, tuple):
        for value in tree:
            poison(value)


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
class _Graph:
    """A scale that was recorded."""

    settings: ScaleSettings  # its tensors are what the graph reads
    replay: Callable[[], ScaleResult]
    amplifications: tuple[Amplification, ...]  # that they hold now

    def load(self, settings: ScaleSettings) -> None:
        """Read the strengths of these settings from now on."""
        if settings.amplifications == self.amplifications:
            return
        for block, amplified in settings.amplified.items():
            self.settings.amplified[block].copy_(amplified)
        self.amplifications = settings.amplifications


@dataclass
class _Input:
    """A buffer that a recording reads, and another content that it must then give other results for."""

    buffer: Tensor
    other: Callable[[Tensor], Tensor]


class GraphBuffers:
    """The buffers of up to `num_rows` images, and the graphs of the scales that were recorded on them."""

    def __init__(
        self, draw_scale: DrawScale, vqvae: VQVAE, var: VAR, num_rows: int, use_cfg: bool, recorder: Recorder
    ) -> None:
        self._draw_scale, self.vqvae, self.var, self.recorder = draw_scale, vqvae, var, recorder
        self.num_rows, self.use_cfg = num_rows, use_cfg
        device, side = var.pos_start.device, vqvae.config.sides[-1]
        latent = (len(var.scales) + 1, num_rows, vqvae.config.code_dim, side, side)
        self.labels_B = torch.zeros(num_rows * (1 + use_cfg), dtype=torch.long, device=device)
        self.keys_U2 = torch.zeros(num_rows, 2, dtype=torch.long, device=device)
        self.f_hat = torch.zeros(latent, dtype=vqvae.quantize.embedding.weight.dtype, device=device)  # by scale
        self.cache = var.cache(num_rows * (1 + use_cfg))
        self.num_used, self.is_eager = 0, False
        self._conditions: Callable[[], Conditions] | None = None
        self._graphs: OrderedDict[object, _Graph] = OrderedDict()  # the latest used last

    def reset(self, labels_U: Tensor, keys_U2: Tensor) -> None:
        """Start drawing these images."""
        self.num_used = len(labels_U)
        spare = self.num_rows - self.num_used
        labels = torch.cat([labels_U, labels_U[:1].expand(spare)])
        null = torch.full_like(labels, self.var.null_label)
        self.labels_B.copy_(torch.cat([labels, null]) if self.use_cfg else labels)
        self.keys_U2.copy_(torch.cat([keys_U2, keys_U2[:1].expand(spare, -1)]))
        if self._conditions is None:
            other = _Input(self.labels_B, lambda labels: (labels + 1) % (self.var.null_label + 1))
            self._conditions = self._recorded(partial(self.var.conditions, self.labels_B), [other])
        self.conditions = self._conditions()

    def draw_scale(self, settings: ScaleSettings) -> ScaleResult:
        """Draw the next scale; the result is the caller's to keep."""
        amplifications = settings.amplifications + settings.amplifications[:1] * (self.num_rows - self.num_used)
        settings = replace(settings, amplifications=amplifications)
        key = self._key(settings)
        graph = self._graphs.get(key)
        if graph is None:
            inputs = [_Input(self.keys_U2, lambda keys: keys ^ 1), _Input(self.f_hat[settings.scale], torch.neg)]
            replay = self._recorded(partial(self._run, settings), inputs)
            graph = self._graphs[key] = _Graph(settings, replay, amplifications)
            if len(self._graphs) > MAX_GRAPHS:
                self.recorder.finish()
                self._graphs.popitem(last=False)
        else:
            graph.load(settings)
        self._graphs.move_to_end(key)
        return copied(graph.replay(), self._used_rows)

    def _run(self, settings: ScaleSettings) -> ScaleResult:
        state, scale = Generation(self.cache, self.conditions), settings.scale
        result = self._draw_scale(self.vqvae, self.var, settings, state, self.f_hat[scale], self.keys_U2)
        self.f_hat[scale + 1].copy_(result.f_hat)
        return result

    def _recorded(self, run: Callable[[], T], inputs: Sequence[_Input]) -> Callable[[], T]:
        """`run` as a recording; itself, with a warning, where none can be made or it computes something else.

        The recording must prove itself: what it returned is poisoned, and it is replayed with other inputs than it was
        recorded with. So one that computes nothing, or returns what the recording left, is found out.
        Nothing more is recorded on these buffers then: a recording reads tensors where another one leaves them, and
        what is computed eagerly leaves them elsewhere.
        """
        if self.is_eager:
            return run
        with _other_inputs(inputs):
            expected = copied(run())
        try:
            replay = self.recorder.record(run)
            poison(replay())
            with _other_inputs(inputs):
                if agree(expected, replay()):
                    return replay
            why = "a recording gave other results"
        except RuntimeError as error:
            why = str(error).partition("\n")[0]
        self.is_eager = True
        warnings.warn(f"drawing goes on without CUDA graphs, which only takes longer: {why}", stacklevel=2)
        return run

    def _used_rows(self, x: Tensor) -> Tensor:
        """The rows asked for, of a tensor of one half or of both."""
        if self.num_used == self.num_rows:
            return x
        return x.unflatten(0, (-1, self.num_rows))[:, : self.num_used].flatten(0, 1)

    @staticmethod
    def _key(settings: ScaleSettings) -> object:
        """All that a graph holds fast: what `draw_scale` asks of Python, and how the GPU computes."""
        blocks = []
        for block, rows in settings.strengths.items():
            has_factors = any(
                s and amp.mode == "attention" for s, amp in zip(rows, settings.amplifications, strict=True)
            )
            where = frozenset(s.where for s in rows if s)
            blocks.append((block, has_factors, any(s and s.positions for s in rows), where))
        precision = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        return settings.scale, settings.sampling, tuple(blocks), settings.saliency_blocks[0], precision


@contextmanager
def _other_inputs(inputs: Sequence[_Input]) -> Iterator[None]:
    """Other contents in the buffers, for a while."""
    before = [x.buffer.clone() for x in inputs]
    for x in inputs:
        x.buffer.copy_(x.other(x.buffer))
    try:
        yield
    finally:
        for x, old in zip(inputs, before, strict=True):
            x.buffer.copy_(old)


class CudaGraphCache:
    """The graphs of one model, for one drawing at a time; forgotten when its weights move."""

    def __init__(self, recorder: Callable[[], Recorder] = CudaRecorder, after: int = 1) -> None:
        """`after`: how many drawings of a size are made eagerly before it is recorded, which takes longer than that."""
        self.make_recorder, self.after = recorder, after
        self._lock = threading.Lock()
        self._recorder: Recorder | None = None
        self._forget(None)

    def __deepcopy__(self, memo: dict[int, Any]) -> "CudaGraphCache":
        return CudaGraphCache(self.make_recorder, self.after)

    def _forget(self, weights: object) -> None:
        if self._recorder is not None:
            self._recorder.finish()
        self._weights, self._recorder = weights, None
        self._buffers: OrderedDict[tuple[int, bool], GraphBuffers] = OrderedDict()  # the latest used last
        self._num_asked: Counter[tuple[int, bool]] = Counter()

    @contextmanager
    def acquire(
        self, draw_scale: DrawScale, vqvae: VQVAE, var: VAR, num_images: int, use_cfg: bool
    ) -> Iterator[GraphBuffers | None]:
        """Buffers for so many images; None where there are none to be had, and the drawing has to be made eagerly."""
        if num_images > MAX_ROWS or not self._lock.acquire(blocking=False):
            yield None
            return
        try:
            yield self._buffers_for(draw_scale, vqvae, var, (bucket(num_images), use_cfg))
        finally:
            self._lock.release()

    def _buffers_for(
        self, draw_scale: DrawScale, vqvae: VQVAE, var: VAR, size: tuple[int, bool]
    ) -> GraphBuffers | None:
        weights = [x.data_ptr() for x in (var.pos_start, var.head.weight, vqvae.quantize.embedding.weight)]
        if weights != self._weights:
            self._forget(weights)
        self._num_asked[size] += 1
        if size not in self._buffers:
            if self._num_asked[size] <= self.after:
                return None
            self._recorder = self._recorder or self.make_recorder()
            self._buffers[size] = GraphBuffers(draw_scale, vqvae, var, *size, self._recorder)
            if len(self._buffers) > MAX_BUFFERS:
                self._recorder.finish()
                self._buffers.popitem(last=False)
        self._buffers.move_to_end(size)
        return self._buffers[size]


@contextmanager
def acquire_graphs(
    cache: CudaGraphCache | None, rows: SharedRows, draw_scale: DrawScale
) -> Iterator[GraphBuffers | None]:
    """Graphs for a drawing that begins with these rows; None where it has to be made eagerly.

    That is where images share rows until they part, where details are asked for or tokens given, where images are read
    at different blocks, and where another drawing has not ended yet.
    """
    request, var = rows.request, rows.var
    blocks = {amp.read_block(var.config.depth) for amp in request.amplifications}
    alike = len(set(zip(request.labels, request.seeds, strict=True))) < len(request.labels)
    if cache is None or request.return_attention or request.prefix_tokens or alike or len(blocks) > 1:
        yield None
        return
    with cache.acquire(draw_scale, rows.vqvae, var, len(request.labels), rows.use_cfg) as buffers:
        if buffers is not None:
            buffers.reset(rows.labels(), rows.keys_U2)
        yield buffers
