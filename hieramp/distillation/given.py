"""Any distilled set as pictures with labels: one of ours, an image folder, or the .pt files of other authors' code.

The files of DC, DSA and DM (VICO-UoE/DatasetCondensation) are a dictionary whose "data" is a list of [images, labels],
one for each experiment; those of MTT are two tensors in two files, images_best.pt and labels_best.pt; others save
[images, labels]. They are read as data alone: a file that holds anything else is refused.
"""

import hashlib
import pickle
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hieramp import imagenet
from hieramp.class_names import keys_of, label_of
from hieramp.data import DataSource, DataSpec, open_source, read_image
from hieramp.errors import UserError
from hieramp.figures import to_picture
from hieramp.pickles import UNREADABLE

Stats = tuple[tuple[float, float, float], tuple[float, float, float]]
# Mean and deviation that pixels were normalised with; those of CIFAR are the ones in the code of DC, DM and MTT.
PIXELS: dict[str, Stats] = {
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
    "imagenet": (imagenet.MEAN, imagenet.STD),
}
TENSOR_FILES = (".pt", ".pth")
_IMAGES, _LABELS = ("images", "image", "x", "data"), ("labels", "label", "y", "targets")


@dataclass(frozen=True)
class GivenSet:
    """Pictures in the order of their labels, which are those of a model."""

    name: str
    labels: tuple[int, ...]  # ascending
    read: Callable[[int], Image.Image]  # the index-th, RGB
    sizes: frozenset[tuple[int, int]]  # width and height of its pictures
    sha256: str  # of pictures and labels

    def __len__(self) -> int:
        return len(self.labels)


def open_given(
    place: str | Path | DataSpec,
    class_names: Sequence[str],
    wnids: Sequence[str] = (),
    *,
    classes: Sequence[str | int] | None = None,
    pixels: str | None = None,
    experiment: int = 0,
) -> GivenSet:
    """Open a set whose classes are some of `class_names`, which it is matched with by name.

    A .pt file has no names: its label k is class k, or the k-th of `classes`. `pixels` is what its values were
    normalised with, one of PIXELS; None takes values from 0 to 1 as they are, and others by the size of the pictures.
    `experiment` is which of the sets of a file of DC or DM. What is assumed is printed on stderr.

    Raises:
        UserError: nothing is there, it has no labels, or classes that are not among `class_names`; a file that is
            damaged or holds more than tensors.
    """
    path = Path(place.path if isinstance(place, DataSpec) else place)
    if path.suffix.lower() in TENSOR_FILES:
        return _of_tensors(path, class_names, wnids, classes, pixels, experiment)
    if classes is not None or pixels is not None or experiment:
        raise UserError(f"classes, pixels and experiment are for .pt files; {path} is none: leave them out")
    source = open_source(place if isinstance(place, DataSpec) else str(place))
    return _of_source(source, class_names, wnids)


def _of_source(source: DataSource, class_names: Sequence[str], wnids: Sequence[str]) -> GivenSet:
    label_of_key = {key: label for names in (wnids, class_names) for label, key in enumerate(keys_of(names))}
    keys = keys_of(source.class_names)
    if all(re.fullmatch(r"\d{5}", name) for name in source.class_names) and len(keys) <= len(class_names):
        _say(f"{source.name}: folder {source.class_names[0]} is taken for {class_names[0]}, and so on by number")
        numbers = [int(name) for name in source.class_names]
        label_of_key = {key: number for key, number in zip(keys, numbers) if number < len(class_names)}
    strange = [source.class_names[k] for k in sorted(set(source.targets)) if keys[k] not in label_of_key]
    if strange:
        raise UserError(
            f"the model has no class {strange[0]!r}, which {source.name} has: "
            f"give a model of its classes (this one knows {', '.join(class_names[:3])}, …)"
        )
    labels = [label_of_key[keys[k]] for k in source.targets]
    order = sorted(range(len(labels)), key=labels.__getitem__)
    digest, sizes = hashlib.sha256(), set()
    for index in order:
        data = source.files.read(index)
        digest.update(hashlib.sha256(data).digest() + labels[index].to_bytes(8, "little"))
        try:
            with Image.open(BytesIO(data)) as image:  # the header alone
                sizes.add(image.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            sizes.add(read_image(source, index).size)  # says in a sentence that it cannot be read
    return GivenSet(
        Path(source.name).name,
        tuple(labels[index] for index in order),
        lambda index: read_image(source, order[index]),
        frozenset(sizes),
        digest.hexdigest(),
    )


def _of_tensors(
    path: Path,
    class_names: Sequence[str],
    wnids: Sequence[str],
    classes: Sequence[str | int] | None,
    pixels: str | None,
    experiment: int,
) -> GivenSet:
    images, labels = read_tensors(path, experiment)
    meaning = list(range(len(class_names)))
    if classes is not None:
        meaning = [label_of(name, tuple(class_names), tuple(wnids), "the model") for name in classes]
        if len(set(meaning)) < len(meaning):
            raise UserError(f"classes name one class twice: {list(classes)}; name the class of each label once")
    if int(labels.max()) >= len(meaning):
        raise UserError(
            f"{path} has the label {int(labels.max())}, and there are {len(meaning)} classes: "
            "name the class of each label with classes, or give a model of its classes"
        )
    if classes is None:
        _say(f"{path.name}: label 0 is taken for {class_names[0]}, and so on by number")
    unit = (_denormalised(images, pixels, path.name).clamp(0, 1) * 255).round().byte()
    order = sorted(range(len(labels)), key=lambda i: meaning[int(labels[i])])
    sorted_labels = tuple(meaning[int(labels[i])] for i in order)
    digest = hashlib.sha256(repr((sorted_labels, tuple(unit.shape))).encode())
    digest.update(unit[order].contiguous().numpy().tobytes())
    return GivenSet(
        path.name,
        sorted_labels,
        lambda index: to_picture(unit[order[index]].float() / 255),
        frozenset([(unit.shape[3], unit.shape[2])]),
        digest.hexdigest(),
    )


def read_tensors(path: Path, experiment: int = 0) -> tuple[Tensor, Tensor]:
    """Images (N, 3, H, W) float as the file has them, and labels (N,) int64. Soft labels (N, K) become their largest.

    Raises:
        UserError: no such file, one that holds more than data (nothing of it is then run), one without labels, or
            tensors that are no images with labels.
    """
    images, labels = _pair(_load(path), path, experiment)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise UserError(f"the images of {path} have the shape {tuple(images.shape)}; it should be (N, 3, H, W)")
    if labels.ndim == 2 and labels.shape[1] > 1:
        labels = labels.argmax(1)
    labels = labels.flatten()
    if len(labels) != len(images):
        raise UserError(f"{path} has {len(images)} images and {len(labels)} labels: there must be one for each image")
    images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    if not bool(images.isfinite().all()):
        raise UserError(f"{path} holds pixels that are no numbers (NaN or infinite): make the set again")
    whole = labels.long()
    if not bool((whole == labels).all()) or int(whole.min()) < 0:
        raise UserError(f"the labels of {path} are not whole numbers of at least 0: store the number of each class")
    return images.expand(-1, 3, -1, -1), whole


def _load(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"{path} does not exist: give a distilled set, an image folder, or a .pt file")
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is damaged, or holds objects besides tensors, which could run code; it was not opened: "
            "save it again as torch.save([images, labels], FILE)"
        ) from error
    except UNREADABLE as error:
        raise UserError(f"{path} is truncated or not a file of torch.save") from error


def _numpy_numbers() -> list[Any]:
    """Types of single numbers of numpy, the accuracies that DC and DM store beside the images; they run no code."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in ("float64", "float32", "int64")]
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype, *kinds]


def _pair(held: Any, path: Path, experiment: int) -> tuple[Tensor, Tensor]:
    """Images and labels, wherever in the file they are."""
    if isinstance(held, Tensor):
        return held, _labels_beside(path)
    if isinstance(held, dict):
        images, labels = (next((held[key] for key in keys if key in held), None) for keys in (_IMAGES, _LABELS))
        if isinstance(images, Tensor) and isinstance(labels, Tensor):
            return images, labels
        if isinstance(images, list | tuple):
            return _pair(images, path, experiment)
        if isinstance(images, Tensor):
            raise UserError(_no_labels(path))
    if isinstance(held, list | tuple) and held:
        if all(isinstance(each, list | tuple) for each in held):
            if not 0 <= experiment < len(held):
                raise UserError(f"experiment is {experiment}; {path} holds {len(held)}, numbered from 0")
            return _pair(held[experiment], path, 0)
        if len(held) >= 2 and all(isinstance(each, Tensor) for each in held[:2]):
            return held[0], held[1]
        if len(held) == 1 and isinstance(held[0], Tensor):
            raise UserError(_no_labels(path))
    raise UserError(f"{path} holds no list of images and labels: save it as torch.save([images, labels], FILE)")


def _labels_beside(path: Path) -> Tensor:
    """Of images_best.pt those in labels_best.pt."""
    beside = path.with_name(path.name.replace("images", "labels"))
    if beside == path or not beside.is_file():
        raise UserError(_no_labels(path))
    held = _load(beside)
    if not isinstance(held, Tensor):
        raise UserError(f"{beside} holds a {type(held).__name__}; it should be a tensor of labels")
    return held


def _no_labels(path: Path) -> str:
    labels = path.name.replace("images", "labels") if "images" in path.name else "labels_….pt to images_….pt"
    return f"{path} has images without labels: save [images, labels] in it, or put the labels beside it ({labels})"


def _denormalised(images: Tensor, pixels: str | None, name: str) -> Tensor:
    """Values from 0 to 1 where the set keeps to them."""
    if pixels is None:
        inside = float(images.min()) >= 0 and float(images.max()) <= 1
        pixels = "unit" if inside else "cifar10" if images.shape[-1] == 32 else "imagenet"
        if not inside:
            _say(f"{name}: pixels are taken to be normalised as those of {pixels}; --pixels tells otherwise")
    if pixels not in PIXELS:
        raise UserError(f"pixels is {pixels!r}; it must be one of {', '.join(PIXELS)}")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in PIXELS[pixels])
    return images * std + mean


def _say(text: str) -> None:
    print(text, file=sys.stderr)
