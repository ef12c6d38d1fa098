"""Sets of images, decoded and held in memory, whose labels are checked by the names of the classes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from hieramp.checkpoints import fingerprint
from hieramp.class_names import keys_of_both
from hieramp.data import DataSpec, decode, described_classes, open_source, read_image, to_square
from hieramp.errors import UserError
from hieramp.imageset.layout import MAX_SIDE
from hieramp.imageset.reader import open_set


@dataclass(frozen=True)
class LabeledImages:
    """A whole set in memory."""

    images: Tensor  # uint8 (N, 3, S, S)
    labels: Tensor  # int64 (N,)
    class_names: tuple[str, ...]  # of all K classes, by label
    name: str
    settings: dict[str, Any]  # how a distilled set was made; {} for a plain folder
    sha256: str  # of pixels, labels and names: the same for a zip and its unpacked folder
    files: tuple[str, ...] = ()  # where each image is from; () where that is not known
    wnids: tuple[str, ...] = ()  # of the classes, where all have an ImageNet id

    @property
    def image_size(self) -> int:
        return self.images.shape[-1]

    @property
    def present(self) -> tuple[int, ...]:
        """Labels that occur."""
        return tuple(self.labels.unique().tolist())

    @property
    def class_ids(self) -> tuple[str, ...]:
        """The ImageNet ids of the classes, or their names where they have none."""
        return self.wnids or self.class_names

    @property
    def ipc(self) -> int:
        """Images per class, on average."""
        return max(1, round(len(self.images) / len(self.present)))

    def to(self, device: torch.device | str) -> "LabeledImages":
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


def load_set(path: str | DataSpec, size: int | None = None, limit: int | None = None) -> LabeledImages:
    """A distilled set (zip, folder, shards), or a plain folder of class folders, as images of `size` pixels.

    `size` None keeps the set's own, or that of a plain folder's first image. `limit` takes so many images of a plain
    folder, spread evenly over it.

    Raises:
        UserError: there is no set at `path`, it holds no images, or `size` is too large.
    """
    if size is not None and size > MAX_SIDE:
        raise UserError(f"size is {size}; it must be from 1 to {MAX_SIDE} pixels")
    if not _is_distilled(Path(str(path))):
        return _hold_source(path, "train", size, None, limit)
    path = str(path)
    with open_set(path) as opened:
        side = size or opened.image_size
        pictures = [np.asarray(to_square(opened.image(i), side)) for i in range(len(opened))]
        if not pictures:
            raise UserError(f"{path} holds no images")
        images = rearrange(torch.from_numpy(np.stack(pictures)), "n h w c -> n c h w").contiguous()
        labels, names = torch.tensor(opened.labels), tuple(opened.class_names)
        wnids = _wnids(opened.manifest["class_folders"])
        held = _held(images, labels, names, str(path), dict(opened.settings), opened.file_names)
        return replace(held, wnids=wnids)


def load_test(path: str | DataSpec, size: int, limit: int | None = None) -> LabeledImages:
    """Test images as the protocol has them: resized to size // 7 · 8, the centre cropped (32 → 32, 224 → 256 / 224)."""
    return _hold_source(path, "test", size, size // 7 * 8, limit)


def _is_distilled(path: Path) -> bool:
    return path.suffix == ".zip" or (path.is_dir() and (path / "dataset.json").is_file())


def _hold_source(
    path: str | DataSpec, split: str, size: int | None, resized: int | None, limit: int | None
) -> LabeledImages:
    source = open_source(path, split)
    size = size or min(read_image(source, 0).size)
    decoded = decode(source, resized or size, limit)
    images = decoded.images
    if resized not in (None, size):
        from torchvision.transforms.v2.functional import center_crop  # takes seconds to load

        images = center_crop(images, [size, size])
    names = tuple(described_classes(source.class_names)["class_names"])
    whole = len(images) == len(source)  # nothing was skipped or left out
    files = tuple(source.files.where(i) for i in range(len(source))) if whole else ()
    held = _held(images, decoded.labels, names, str(path), {}, files)
    return replace(held, wnids=_wnids(source.class_names))


def _wnids(folders: Sequence[str]) -> tuple[str, ...]:
    return tuple(described_classes(folders).get("wnids", ()))


def _held(
    images: Tensor, labels: Tensor, names: tuple[str, ...], path: str, settings: dict[str, Any], files: tuple[str, ...]
) -> LabeledImages:
    text = torch.frombuffer(bytearray("\n".join(names).encode()), dtype=torch.uint8)
    sha256 = fingerprint({"images": images, "labels": labels, "names": text})
    return LabeledImages(images, labels, names, Path(path).name, settings, sha256, files)


def of_its_classes(held: LabeledImages) -> LabeledImages:
    """A set with the classes alone that have images: a model of 1,000 classes may have drawn ten of them."""
    present = held.present
    if len(present) == len(held.class_names):
        return held
    new_K = torch.full((len(held.class_names),), -1)
    new_K[list(present)] = torch.arange(len(present))
    names, wnids = (tuple(each[label] for label in present) if each else () for each in (held.class_names, held.wnids))
    return replace(held, labels=new_K[held.labels], class_names=names, wnids=wnids)


def align_classes(
    held: LabeledImages, class_names: tuple[str, ...], whose: str, wnids: tuple[str, ...] = ()
) -> LabeledImages:
    """The set with its labels in the order of `class_names`, found by their names; only classes with images count.

    `wnids` are the ImageNet ids of these classes, where they have some, and count before names where the set has them.

    Names are compared without letter case and accents' form, and ImageNet ids are their words. Folders that are called
    00000, 00001, … (as RDED writes them) are taken by their number, which is told.

    Raises:
        UserError: a class that has images is not among `class_names`.
    """
    ours, theirs = keys_of_both(held.class_ids, wnids or class_names)
    if ours == theirs:
        return held
    if _is_numbered(held.class_names) and len(ours) == len(theirs):
        print(f"{held.name}: 00000 is taken for {class_names[0]}, and so on by number", file=sys.stderr)
        return replace(held, class_names=class_names, wnids=wnids)
    label_of = {key: label for label, key in enumerate(theirs)}
    strange = [held.class_names[label] for label in held.present if ours[label] not in label_of]
    if strange:
        names = ", ".join(repr(name) for name in strange[:3])
        known = ", ".join(class_names[:3])
        raise UserError(
            f"the classes of {held.name} and {whose} differ: {whose} does not know {names} "
            f"({len(strange)} of {len(held.present)}); it knows {known}, …"
        )
    new_K = torch.tensor([label_of.get(key, -1) for key in ours])
    return replace(held, labels=new_K[held.labels], class_names=class_names, wnids=wnids)


def align_to_model(held: LabeledImages, about: dict[str, Any]) -> LabeledImages:
    """The set with its labels in the order of a classifier, whose model's config is `about`.

    Raises:
        UserError: a class that has images is not among the classifier's.
    """
    names, wnids = (tuple(about.get(each, ())) for each in ("class_names", "wnids"))
    return align_classes(held, names, "the classifier", wnids)


def align_test(test: LabeledImages, held: LabeledImages) -> LabeledImages:
    """Test images of the classes that have images in `held`, with its labels; others are left out, which is told.

    Raises:
        UserError: a class of the set has no test images.
    """
    if _is_numbered(test.class_names) and len(test.class_names) == len(held.class_names):
        test = align_classes(test, held.class_names, held.name, held.wnids)
    ours, theirs = keys_of_both(test.class_ids, held.class_ids)
    wanted = {theirs[label]: label for label in held.present}
    found = {ours[label] for label in test.present}
    lacking = [held.class_names[label] for key, label in wanted.items() if key not in found]
    if lacking:
        names = ", ".join(repr(name) for name in lacking[:3])
        raise UserError(
            f"the classes of {test.name} and the set {held.name} differ: there are no test images of {names} "
            f"({len(lacking)} of {len(wanted)} classes)"
        )
    kept = tuple(label for label in test.present if ours[label] in wanted)
    if len(kept) < len(test.present):
        count = len(test.present) - len(kept)
        print(f"{test.name}: images of {count} classes that the set does not have are left out", file=sys.stderr)
    new_K = torch.tensor([wanted.get(key, -1) for key in ours])
    test = select_classes(test, kept)
    return replace(test, labels=new_K[test.labels], class_names=held.class_names, wnids=held.wnids)


def _is_numbered(names: tuple[str, ...]) -> bool:
    return all(name == f"{label:05d}" for label, name in enumerate(names))


def select_classes(held: LabeledImages, labels: tuple[int, ...]) -> LabeledImages:
    """The images of some classes alone; labels and names stay."""
    keep_N = torch.isin(held.labels, torch.tensor(labels))
    files = tuple(file for file, keep in zip(held.files, keep_N.tolist()) if keep)
    return replace(held, images=held.images[keep_N], labels=held.labels[keep_N], files=files)
