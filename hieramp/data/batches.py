"""Images in memory and in batches: decoded once, or read by worker processes where they are too many."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from hieramp.data.pictures import pixels_of, to_square
from hieramp.data.source import DataSource, read_image
from hieramp.devices import to_device_async
from hieramp.errors import UserError

CACHE_BYTES = 2**32  # decoded sets up to this size are kept in memory
Batch = tuple[Tensor, Tensor]  # images uint8 (B, 3, H, W), labels int64 (B,)


class DecodedImages(Dataset[Batch]):
    """A whole set decoded once into memory, served a batch at a time."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        index = to_device_async(torch.as_tensor(indices), self.images.device)
        return self.images[index], self.labels[index]

    def to(self, device: torch.device) -> "DecodedImages":
        return DecodedImages(self.images.to(device), self.labels.to(device))


def decode(source: DataSource, size: int, limit: int | None = None) -> DecodedImages:
    """Decode a set to uint8 (N, 3, size, size). A broken image is skipped and named on stderr.

    `limit` takes that many images, spread evenly over the whole set (so over its classes too).

    Raises:
        UserError: no image of a class could be read.
    """
    indices: Sequence[int] = range(len(source))
    if limit is not None and limit < len(source):
        indices = [i * len(source) // limit for i in range(limit)]
    images = np.empty((len(indices), size, size, 3), dtype=np.uint8)
    labels: list[int] = []
    broken: dict[int, str] = {}
    progress = tqdm(indices, desc="decoding", unit="img", leave=False, disable=None if len(indices) >= 5000 else True)
    for index in progress:
        try:
            images[len(labels)] = np.asarray(to_square(read_image(source, index), size))
        except ValueError as error:
            print(f"skipped {error}", file=sys.stderr)
            broken[source.targets[index]] = str(error)
            continue
        labels.append(source.targets[index])
    for label in broken.keys() - set(labels):
        if limit is None or not labels:  # of a few, all of a class may be broken though others are not
            raise UserError(
                f"not one of the images of class {source.class_names[label]!r} in {source.name} can be read: "
                f"{broken[label]}"
            )
    pixels = torch.from_numpy(images[: len(labels)]).permute(0, 3, 1, 2).contiguous()
    return DecodedImages(pixels, torch.tensor(labels))


_LAST_DECODED: dict[tuple[str, int], DecodedImages] = {}


def decode_whole(source: DataSource, size: int) -> DecodedImages:
    """`decode` of a whole set, which remembers the last: the parts of `train all` share one decoding."""
    key = (source.signature, size)
    if key not in _LAST_DECODED:
        _LAST_DECODED.clear()
        _LAST_DECODED[key] = decode(source, size)
    return _LAST_DECODED[key]


class EndlessBatches(Sampler[list[int]]):
    """Index batches, a new shuffle every epoch; batch k is a function of (seed, k) alone, so a run can resume."""

    def __init__(self, num_images: int, batch_size: int, seed: int, start: int = 0) -> None:
        self.num_images, self.batch_size, self.seed, self.start = num_images, batch_size, seed, start

    def __len__(self) -> int:
        return sys.maxsize

    def __iter__(self) -> Iterator[list[int]]:
        position = self.start * self.batch_size
        while True:
            epoch, offset = divmod(position, self.num_images)
            order = np.random.default_rng((self.seed, epoch)).permutation(self.num_images)
            following = np.random.default_rng((self.seed, epoch + 1)).permutation(self.num_images)
            while offset + self.batch_size <= self.num_images:
                yield order[offset : offset + self.batch_size].tolist()
                offset += self.batch_size
                position += self.batch_size
            # the batch across the border; a set smaller than a batch repeats
            yield np.resize(np.concatenate([order[offset:], following]), self.batch_size).tolist()
            position += self.batch_size


def endless_loader(
    source: DataSource, size: int, batch_size: int, seed: int, start: int, device: torch.device, whole: bool = False
) -> DataLoader[Batch]:
    """Batches of uint8 images for training on `device`, from batch number `start` on.

    Sets that fit are decoded once, and lie on a GPU where they are small beside its memory; larger ones are read by
    worker processes, with a random crop where not `whole`.
    """
    dataset: Dataset[Any]
    if len(source) * 3 * size * size <= CACHE_BYTES:
        images = decode_whole(source, size)
        dataset = images.to(device) if _is_small_on(device, images.images.nbytes) else images
        sampler = EndlessBatches(len(images), batch_size, seed, start)
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=_as_is)
    sampler = EndlessBatches(len(source), batch_size, seed, start)
    streamed: Dataset[Any] = StreamedImages(source, size, whole)
    return DataLoader(streamed, batch_sampler=sampler, num_workers=torch.get_num_threads(), persistent_workers=True)


class StreamedImages(Dataset[tuple[Tensor, int]]):
    """Images read when asked for, resized to 9/8 of `size` and cropped at random; a broken one gives way to the next.

    `whole` resizes to `size` and takes the centre. The next is of the same class, unless it was the last: files lie in
    class order.
    """

    def __init__(self, source: DataSource, size: int, whole: bool = False) -> None:
        self.source = source
        from torchvision.transforms import v2  # takes seconds to load, and few need it

        random = v2.Compose([v2.Resize(round(size * 1.125)), v2.RandomCrop(size)])
        self.crop = v2.Compose([partial(to_square, size=size) if whole else random, pixels_of])

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        for further in range(len(self)):
            now = (index + further) % len(self)
            try:
                return self.crop(read_image(self.source, now)), self.source.targets[now]
            except ValueError as error:
                print(f"skipped {error}", file=sys.stderr)
        raise UserError(f"not one of the {len(self)} images of {self.source.name} can be read")


def _is_small_on(device: torch.device, num_bytes: int) -> bool:
    return device.type == "cuda" and 8 * num_bytes < torch.cuda.mem_get_info(device)[0]


def _as_is(batch: Any) -> Any:
    return batch


def to_signed(images_BCHW: Tensor) -> Tensor:
    """uint8 images to float in [-1, 1]."""
    return images_BCHW.float().div(127.5).sub(1)
