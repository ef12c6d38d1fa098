"""What makes images: the protocol, and a model that draws them. Real images come from `real`."""

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hieramp.amplification.settings import Amplification
from hieramp.devices import to_device_async
from hieramp.distillation.parts import Made
from hieramp.distillation.plan import Item
from hieramp.figures import png_bytes, to_picture
from hieramp.generation.model import Model
from hieramp.generation.sampling import Sampling

T = TypeVar("T")
# At one shape an image comes out the same whatever its neighbours are; at another, its last bits differ.
DECODED_AT_ONCE = 4


_MAKING = threading.Lock()  # around what is made once for all threads: `cache` lets several first callers each make one


class BatchRequest(NamedTuple):
    """A batch to make; `exact` where rounding could have turned a token of its images."""

    items: tuple[Item, ...]
    exact: bool = False


class Batch(NamedTuple):
    """What came of a request."""

    made: list[Made]
    doubtful: list[Item]  # not made: to be asked for again, exact


class Maker(Protocol):
    """Turns items into finished images; an image depends on its item alone, never on its batch."""

    def make(self, request: BatchRequest) -> Callable[[], Batch]:
        """Do what needs the device; the rest is done when the result is called, on another thread if need be."""


class Drawer:
    """Draws items with a model.

    In float32 the same item gives the same bytes at any batch size and number of threads: where a decision was
    so close that rounding could turn it, the image is drawn again in float64, and images are decoded in batches of
    one shape, each on one thread. In half precision the batches themselves are part of the settings (`distill`).

    On a CPU every thread draws a share of the batch from labels to pixels: that keeps all of them busy where one
    operation shared among them would not. On a GPU a batch is decoded while the next one is drawn.

    With `candidates` each item is drawn from as many seeds, and the picture is kept that the classifier is surest
    shows the item's class.
    """

    def __init__(
        self,
        model: Model,
        amplification: Amplification,
        sampling: Sampling,
        image_size: int,
        classifier: nn.Module | None = None,
        candidates: int = 1,
        soft_labels: bool = True,
    ) -> None:
        """The classifier stores its logits beside the pictures, unless it is only to choose among candidates."""
        self.model, self.amplification, self.sampling = model, amplification, sampling
        self.image_size, self.classifier = image_size, classifier
        self.candidates, self.soft_labels = candidates, soft_labels

    def make(self, request: BatchRequest) -> Callable[[], Batch]:
        if self.candidates > 1:
            return self._chosen(request)
        shares = self._shares(request)

        def finish() -> Batch:
            drawn = [pair for share in shares for pair in share.images()]
            jobs = [partial(self._made, item.index, image) for item, image in drawn if image is not None]
            return Batch(parallel_map(jobs), [item for item, image in drawn if image is None])

        return finish

    def _chosen(self, request: BatchRequest) -> Callable[[], Batch]:
        """Draw the candidates of all items, those in doubt at once again, and choose."""
        every = [replace(item, seed=item.seed + c) for item in request.items for c in range(self.candidates)]
        shares = self._shares(BatchRequest(tuple(every)))
        doubtful = [item for share in shares for item, clear in zip(share.items, share.clear, strict=True) if not clear]
        if doubtful:
            shares += self._shares(BatchRequest(tuple(doubtful), exact=True))

        def finish() -> Batch:
            drawn = [(item, image) for share in shares for item, image in share.images() if image is not None]
            found: dict[int, list[Tensor]] = {item.index: [] for item in request.items}
            for item, image in sorted(drawn, key=lambda pair: pair[0].seed):
                found[item.index].append(image)
            jobs = [partial(self._best, item, found[item.index]) for item in request.items]
            return Batch(parallel_map(jobs), [])

        return finish

    def _best(self, item: Item, images: Sequence[Tensor]) -> Made:
        """Of an item's candidates the one whose picture the classifier is surest of; of equals, the first."""
        assert self.classifier is not None and len(images) == self.candidates
        pictures = [self._picture(image) for image in images]
        logits = [logits_of(self.classifier, picture) for picture in pictures]
        sure = [float(one.log_softmax(-1)[item.label]) for one in logits]
        chosen = sure.index(max(sure))
        stored = as_stored(logits[chosen]) if self.soft_labels else None
        return finished(item.index, pictures[chosen], stored, chosen)

    def _shares(self, request: BatchRequest) -> "list[_Share]":
        model = in_float64(self.model) if request.exact else self.model
        if model.device.type != "cpu":
            with full_float32() if model.var.pos_start.dtype.itemsize >= 4 else nullcontext():
                return [self._draw(model, request)]
        with full_float32():
            num_shares = torch.get_num_threads() if model.var.pos_start.dtype.itemsize >= 4 else 1
            cuts = [request.items[i::num_shares] for i in range(num_shares)]
            return parallel_map(
                [partial(self._draw, model, BatchRequest(items, request.exact)) for items in cuts if items]
            )

    @torch.no_grad()
    def _draw(self, model: Model, request: BatchRequest) -> "_Share":
        """Draw all items, and begin to decode those drawn without doubt."""
        tokens, clear = self._tokens(model, request)
        chosen = [i for i, is_clear in enumerate(clear) if is_clear]
        with on_side_stream(model.device) as wait:
            groups = [chosen[i : i + DECODED_AT_ONCE] for i in range(0, len(chosen), DECODED_AT_ONCE)]
            index = [to_device_async(torch.tensor(rows), model.device) for rows in groups]
            decoded = [to_host(self._decode([level[rows] for level in tokens])) for rows in index]
        return _Share(request.items, clear, tokens, decoded, wait)

    def _tokens(self, model: Model, request: BatchRequest) -> tuple[list[Tensor], list[bool]]:
        """Tokens per scale, (B, n²), and which images were drawn without doubt."""
        labels, seeds = [item.label for item in request.items], [item.seed for item in request.items]
        how = self.sampling.options()
        steps = model.steps(labels, seeds, self.amplification, prefix_tokens=self._prefix(request.items), **how)
        checked = not request.exact and model.var.pos_start.dtype == torch.float32
        tokens, clear_B = [], torch.ones(len(labels), dtype=torch.bool)
        for step in steps:
            tokens.append(step.tokens)
            if checked:
                clear_B &= step.is_unambiguous.cpu()
        return tokens, clear_B.tolist()

    def _prefix(self, items: Sequence[Item]) -> Sequence[Tensor]:
        """Tokens of the first scales, per scale (B, n²), that are taken instead of drawn."""
        return ()

    def _decode(self, tokens: Sequence[Tensor]) -> Tensor:
        """A few images, (B, 3, H, W) in [0, 1]; decoded in a batch of always the same shape."""
        vqvae, count = self.model.vqvae, len(tokens[0])
        filled = [torch.cat([level, level[:1].expand(DECODED_AT_ONCE - count, -1)]) for level in tokens]
        return vqvae.to_images(vqvae.embed(filled))[:count]

    def _made(self, index: int, image_CHW: Tensor) -> Made:
        picture = self._picture(image_CHW)
        return finished(index, picture, None if self.classifier is None else soft_label(self.classifier, picture))

    def _picture(self, image_CHW: Tensor) -> Image.Image:
        picture = to_picture(image_CHW)
        if picture.width == self.image_size:
            return picture
        return picture.resize((self.image_size, self.image_size), Image.Resampling.LANCZOS)


_DOUBLED: "WeakKeyDictionary[Model, Model]" = WeakKeyDictionary()


def in_float64(model: Model) -> Model:
    """A copy of a model that computes in float64: one for all who draw with the model, made anew where it moved.

    Nothing is recorded with it on a GPU: it draws a few images, and recorded boards of it would take gigabytes.
    """
    with _MAKING:
        doubled = _DOUBLED.get(model)
        if doubled is None or doubled.device != model.device:
            doubled = copy.deepcopy(replace(model, captured=None))
            doubled.vqvae.double()
            doubled.var.double()
            _DOUBLED[model] = doubled
        return doubled


class _Share(NamedTuple):
    """Drawn items, whose decoding may still be under way."""

    items: tuple[Item, ...]
    clear: list[bool]
    tokens: list[Tensor]  # kept until they are decoded
    decoded: list[Tensor]  # of the clear ones, a few at a time
    wait: Callable[[], None]

    def images(self) -> list[tuple[Item, Tensor | None]]:
        """Each item with its image, (3, H, W); None where rounding could have turned a token."""
        self.wait()
        images = iter([image for group in self.decoded for image in group])
        return [(item, next(images) if clear else None) for item, clear in zip(self.items, self.clear, strict=True)]


def to_host(images: Tensor) -> Tensor:
    """The images on the CPU, once what was begun on this stream is done: a thread that reads them need not wait for
    whatever else the device has to do."""
    if images.device.type != "cuda":
        return images
    return torch.empty(images.shape, dtype=images.dtype, pin_memory=True).copy_(images, non_blocking=True)


def finished(index: int, picture: Image.Image, logits: bytes | None, chosen: int = 0) -> Made:
    return Made(index, png_bytes(picture), logits, chosen)


def soft_label(classifier: nn.Module, picture: Image.Image) -> bytes:
    """The classifier's logits of one picture, as they are stored."""
    return as_stored(logits_of(classifier, picture))


def as_stored(logits: Tensor) -> bytes:
    """float16 (what FKD stores), little-endian."""
    return logits.numpy().astype("<f2").tobytes()


@torch.no_grad()
def logits_of(classifier: nn.Module, picture: Image.Image) -> Tensor:
    """The classifier's logits of one picture, float32 on the CPU."""
    device = next(classifier.parameters()).device
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.uint8).copy()).permute(2, 0, 1)
    with full_float32():  # a drawing beside it may have it on or off
        logits: Tensor = classifier(pixels[None].to(device).float() / 255)[0]
    return logits.float().cpu()


@contextmanager
def on_side_stream(device: torch.device) -> Iterator[Callable[[], None]]:
    """On a GPU, run what is begun inside on a stream of its own, beside what follows; yields a wait for its end."""
    if device.type != "cuda":
        yield lambda: None
        return
    with _MAKING:
        stream, done = _stream(device), torch.cuda.Event()
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield done.synchronize
        done.record(stream)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 in convolutions: it errs a thousand times more than float32. The setting is the whole process's."""
    with _TF32.lock:
        if not _TF32.users:
            _TF32.before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
        _TF32.users += 1
    try:
        yield
    finally:
        with _TF32.lock:
            _TF32.users -= 1
            if not _TF32.users:
                torch.backends.cudnn.allow_tf32 = _TF32.before


class _TF32:
    """Who does without it now."""

    lock, users, before = threading.Lock(), 0, True


@cache
def _single_threads() -> ThreadPoolExecutor:
    """As many workers as torch has threads, each computing on one: how a sum is split would change its last bits."""
    count = torch.get_num_threads()
    all_begun = threading.Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread's first question takes the setting of all: later it would undo this
        torch.set_num_threads(1)
        all_begun.wait()

    pool = ThreadPoolExecutor(count, "maker", initializer=begin)
    for _ in range(count):
        pool.submit(int)
    all_begun.wait()
    torch.set_num_threads(count)  # a worker's setting would otherwise be that of every thread begun after it
    return pool


def parallel_map(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Results of the jobs, each run on one thread, as many at a time as torch has threads."""
    with _MAKING:
        pool = _single_threads()
    return [future.result() for future in [pool.submit(job) for job in jobs]]
