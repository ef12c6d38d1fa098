"""Images to train and measure on: a folder, a tar or a Hugging Face data set, read by timm's readers."""

import logging
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from timm.data import ImageDataset, ImageNetInfo
from timm.data.readers import create_reader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2
from tqdm import tqdm

from hieramp.devices import sent

CACHE_BYTES = 2**32  # decoded sets up to this size are kept in memory
Batch = tuple[Tensor, Tensor]  # images uint8 (B, 3, H, W), labels int64 (B,)


@dataclass(frozen=True)
class DataSource:
    """An opened image set: timm's reader, and the names of its classes in label order."""

    reader: Any
    class_names: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.reader)

    def labels(self) -> list[int]:
        """The label of every image, without opening any."""
        if hasattr(self.reader, "targets"):  # tar
            return [int(label) for label in self.reader.targets]
        if hasattr(self.reader, "samples"):  # folder
            return [int(label) for _, label in self.reader.samples]
        return [int(label) for label in self.reader.dataset[self.reader.label_key]]  # Hugging Face


def read_image(source: DataSource, index: int) -> Image.Image:
    """One image, RGB.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        stream, _ = source.reader[index]
        with stream, Image.open(stream) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{source.reader.filename(index)} cannot be read as an image ({error})") from error


def open_source(data: str, split: str = "train") -> DataSource:
    """Open an image folder (class sub-folders), a .tar of one, or a Hugging Face data set id.

    A folder that holds a sub-folder named `split` is read from there, so that one name serves train and test.

    Raises:
        ValueError: nothing is there, it holds no images, or it has no classes.
    """
    path = Path(data)
    try:
        if path.is_dir():
            root = path / split if (path / split).is_dir() else path
            reader = create_reader("", root=str(root))
        elif path.is_file():
            if path.suffix != ".tar":
                raise ValueError(f"{data} is not a folder or a .tar of images: unpack it and give the folder")
            reader = create_reader("", root=str(path))
        elif data.removeprefix("hfds/").count("/") <= 1 and not data.startswith((".", "/", "~")):
            reader = _open_hub(data.removeprefix("hfds/"), split)
        else:
            raise ValueError(f"{data} does not exist: give a folder with one sub-folder per class")
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"{data} holds no images: give a folder with one sub-folder of images per class") from error
    class_to_index = getattr(reader, "class_to_idx", None) or getattr(reader, "class_name_to_idx", None) or {}
    names = tuple(sorted(class_to_index, key=class_to_index.__getitem__))
    if names in ((), ("",)):
        raise ValueError(f"{data} has no class sub-folders: put the images of each class into a folder of its own")
    return DataSource(reader, names, data)


def _open_hub(name: str, split: str) -> Any:
    try:
        return create_reader(f"hfds/{name}", split=split)
    except ImportError as error:
        raise ValueError(
            f"{name} is no folder here; to read it as a Hugging Face data set, run: pip install datasets"
        ) from error
    except (OSError, ValueError, RuntimeError, LookupError) as error:  # what the datasets library raises
        raise ValueError(f"{name} is neither a folder here nor a readable Hugging Face data set: {error}") from error


def described_classes(folders: Sequence[str]) -> dict[str, list[str]]:
    """Names of the classes; folders that are ImageNet ids get their words, and the ids are kept as "wnids"."""
    names = list(folders)
    if not all(re.fullmatch(r"n\d{8}", name) for name in names):
        return {"class_names": names}
    info = ImageNetInfo()
    known = set(info.label_names())
    words = [info.label_name_to_description(name) if name in known else name for name in names]
    return {"class_names": words, "wnids": names}


def to_square(image: Image.Image, size: int) -> Image.Image:
    """RGB, shorter side resized to `size` pixels (Lanczos), centre crop."""
    image = image.convert("RGB")
    if image.size == (size, size):
        return image
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


class DecodedImages(Dataset[Batch]):
    """A whole set decoded once into memory, served a batch at a time."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        index = sent(torch.as_tensor(indices), self.images.device)
        return self.images[index], self.labels[index]

    def to(self, device: torch.device) -> "DecodedImages":
        return DecodedImages(self.images.to(device), self.labels.to(device))


def decode(source: DataSource, size: int, limit: int | None = None) -> DecodedImages:
    """Decode a set to uint8 (N, 3, size, size). A broken image is skipped and named on stderr.

    `limit` takes that many images, spread evenly over the whole set (so over its classes too).

    Raises:
        ValueError: not one image could be read.
    """
    indices: Sequence[int] = range(len(source))
    if limit is not None and limit < len(source):
        indices = [i * len(source) // limit for i in range(limit)]
    images = np.empty((len(indices), size, size, 3), dtype=np.uint8)
    labels: list[int] = []
    all_labels = source.labels()
    progress = tqdm(indices, desc="decoding", unit="img", leave=False, disable=None if len(indices) >= 5000 else True)
    for index in progress:
        try:
            images[len(labels)] = np.asarray(to_square(read_image(source, index), size))
        except ValueError as error:
            print(f"skipped {error}", file=sys.stderr)
            continue
        labels.append(all_labels[index])
    if not labels:
        raise ValueError(f"not one of the {len(indices)} images of {source.name} can be read")
    pixels = torch.from_numpy(images[: len(labels)]).permute(0, 3, 1, 2).contiguous()
    return DecodedImages(pixels, torch.tensor(labels))


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
    source: DataSource, size: int, batch_size: int, seed: int, start: int, device: torch.device
) -> DataLoader[Batch]:
    """Batches of uint8 images for training on `device`, from batch number `start` on.

    Sets that fit are decoded once, and lie on a GPU where they are small beside its memory; larger ones are read by
    worker processes with a random crop.
    """
    dataset: Dataset[Any]
    if len(source) * 3 * size * size <= CACHE_BYTES:
        images = decode(source, size)
        dataset = images.to(device) if _is_small_on(device, images.images.nbytes) else images
        sampler = EndlessBatches(len(images), batch_size, seed, start)
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=_as_is)
    logging.getLogger("timm.data.dataset").setLevel(logging.WARNING)  # timm names each image it skips
    crop = v2.Compose([v2.Resize(round(size * 1.125)), v2.RandomCrop(size), v2.PILToTensor()])
    dataset = ImageDataset(source.name, reader=source.reader, transform=crop)
    sampler = EndlessBatches(len(source), batch_size, seed, start)
    return DataLoader(dataset, batch_sampler=sampler, num_workers=torch.get_num_threads(), persistent_workers=True)


def _is_small_on(device: torch.device, num_bytes: int) -> bool:
    return device.type == "cuda" and 8 * num_bytes < torch.cuda.mem_get_info(device)[0]


def _as_is(batch: Any) -> Any:
    return batch


def to_signed(images_BCHW: Tensor) -> Tensor:
    """uint8 images to float in [-1, 1]."""
    return images_BCHW.float().div(127.5).sub(1)
