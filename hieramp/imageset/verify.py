"""Whether a set is what its manifest says."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator

import torch

from hieramp.imageset.layout import MANIFEST, METADATA, METADATA_COLUMNS, SOFT_LABELS, image_name
from hieramp.imageset.reader import ImageSet


def problems(image_set: ImageSet) -> Iterator[str]:
    """Everything that is wrong, a sentence each: sizes, hashes, counts, names, label order, what is too much."""
    yield from _files(image_set)
    yield from _labels(image_set)
    yield from _counts(image_set)
    yield from _metadata(image_set)
    yield from _soft_labels(image_set)


def _files(image_set: ImageSet) -> Iterator[str]:
    hashes = {row["file"]: row["sha256"] for row in image_set.manifest["images"]}
    hashes |= {name: row["sha256"] for name, row in image_set.manifest["files"].items()}
    for name, expected in hashes.items():
        try:
            if hashlib.sha256(image_set.read(name)).hexdigest() != expected:
                yield f"{name} is not the file whose SHA-256 is in {MANIFEST}"
        except ValueError as error:
            yield str(error)
    for name in sorted(set(image_set.sizes) - set(hashes) - {MANIFEST}):
        if not name.endswith(".cls"):
            yield f"{name} is not listed in {MANIFEST}"
    for index, name in enumerate(image_set.file_names):
        yield from _size(image_set, index, name)


def _size(image_set: ImageSet, index: int, name: str) -> Iterator[str]:
    try:
        size = image_set.image(index).size
    except ValueError:
        if image_set.sizes.get(name) == image_set.declared[name]:
            yield f"{name} is not a readable PNG"
        return
    if size != (image_set.image_size, image_set.image_size):
        yield f"{name} is {size[0]}×{size[1]} pixels; {MANIFEST} says {image_set.image_size}"


def _labels(image_set: ImageSet) -> Iterator[str]:
    folders = image_set.manifest["class_folders"]
    if list(folders) != sorted(folders):
        yield "the class folders are not in label order when sorted: loaders that sort them would mix up the classes"
    for name, label in zip(image_set.file_names, image_set.labels, strict=True):
        if name.split("/")[1] != folders[label]:
            yield f"{name} has the label {label}, whose folder is {folders[label]}"


def _counts(image_set: ImageSet) -> Iterator[str]:
    classes, ipc = image_set.settings.get("classes", []), image_set.settings.get("ipc")
    counts = Counter(image_set.labels)
    folders = image_set.manifest["class_folders"]
    for label in classes:
        if counts[label] != ipc:
            yield f"class {label} has {counts[label]} images; the settings say {ipc}"
    for label in sorted(set(counts) - set(classes)):
        yield f"class {label} has images, but is not among the classes of the settings"
    expected = [image_name(folders[label], index) for label in classes for index in range(ipc or 0)]
    if list(image_set.file_names) != expected and sorted(image_set.file_names) == sorted(expected):
        yield f"the images of {MANIFEST} are not in class order"


def _metadata(image_set: ImageSet) -> Iterator[str]:
    try:
        rows = list(csv.reader(io.StringIO(image_set.read(METADATA).decode())))
    except (ValueError, csv.Error) as error:
        yield f"{METADATA} cannot be read: {error}"
        return
    names = image_set.class_names
    expected = [
        [row["file"].removeprefix("train/"), str(row["label"]), names[row["label"]], str(row["seed"])]
        for row in image_set.manifest["images"]
    ]
    if rows != [list(METADATA_COLUMNS), *expected]:
        yield f"{METADATA} does not agree with {MANIFEST}"


def _soft_labels(image_set: ImageSet) -> Iterator[str]:
    try:
        logits = image_set.soft_labels()
    except ValueError as error:
        yield str(error)
        return
    shape = (len(image_set), len(image_set.class_names))
    if logits is not None and (logits.shape != shape or not torch.isfinite(logits).all()):
        yield f"{SOFT_LABELS} holds {tuple(logits.shape)} values, or some that are no numbers; {shape} are needed"
