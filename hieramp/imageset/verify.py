"""Whether a set is what its manifest says."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator

import torch

from hieramp.imageset.layout import MANIFEST, METADATA_COLUMNS, image_name, places
from hieramp.imageset.reader import ImageSet


def problems(image_set: ImageSet) -> Iterator[str]:
    """Everything that is wrong, a sentence each: sizes, hashes, counts, names, labels, what is too much."""
    yield from _files(image_set)
    yield from _labels(image_set)
    yield from _label_files(image_set)
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
    label_files = set(_label_file_names(image_set))
    for name in sorted(set(image_set.sizes) - set(hashes) - label_files - {MANIFEST}):
        yield f"{name} is not listed in {MANIFEST}"
    for index, name in enumerate(image_set.file_names):
        if image_set.sizes.get(name) != image_set.declared[name]:
            continue  # told above
        try:
            image_set.image(index)
        except ValueError as error:
            yield str(error)


def _label_file_names(image_set: ImageSet) -> list[str]:
    """Of a webdataset: the file beside each image that says its class."""
    if image_set.format != "webdataset":
        return []
    return [name.removesuffix(".png") + ".cls" for name in image_set.file_names]


def _label_files(image_set: ImageSet) -> Iterator[str]:
    """Loaders of WebDataset learn from these files alone."""
    for name, label in zip(_label_file_names(image_set), image_set.labels, strict=False):
        if name not in image_set.sizes:
            yield f"{name} is missing, without which the image beside it has no label"
        elif image_set.sizes[name] > 20 or image_set.tree.read(name).strip() != str(label).encode():
            yield f"{name} does not say {label}, which {MANIFEST} does"


def _labels(image_set: ImageSet) -> Iterator[str]:
    folders, before = image_set.manifest["class_folders"], places(image_set.format).images
    used = [folder for folder in folders if folder]
    if used != sorted(used):
        yield "the class folders are not in label order when sorted: loaders that sort them would mix up the classes"
    for name, label in zip(image_set.file_names, image_set.labels, strict=True):
        if name.removeprefix(before).split("/")[0] != folders[label]:
            yield f"{name} has the label {label}, whose folder is {folders[label]}"


def _counts(image_set: ImageSet) -> Iterator[str]:
    classes, ipc = image_set.settings.get("classes", []), image_set.settings.get("ipc")
    counts = Counter(image_set.labels)
    folders = image_set.manifest["class_folders"]
    said = image_set.settings.get("per_class") or [ipc] * len(classes)  # a set made of an uneven one says each
    for label, count in zip(classes, said, strict=False):
        if counts[label] != count:
            yield f"class {label} has {counts[label]} images; the settings say {count}"
    for label in sorted(set(counts) - set(classes)):
        yield f"class {label} has images, but is not among the classes of the settings"
    if ipc is None or ipc * len(classes) != len(image_set):
        return
    expected = [image_name(folders[label], index, image_set.format) for label in classes for index in range(ipc)]
    if list(image_set.file_names) != expected and sorted(image_set.file_names) == sorted(expected):
        yield f"the images of {MANIFEST} are not in class order"


def _metadata(image_set: ImageSet) -> Iterator[str]:
    where = places(image_set.format)
    try:
        rows = list(csv.reader(io.StringIO(image_set.read(where.metadata).decode())))
    except (ValueError, csv.Error) as error:
        yield f"{where.metadata} cannot be read: {error}"
        return
    names = image_set.class_names
    expected = [
        [row["file"].removeprefix(where.images), str(row["label"]), names[row["label"]], str(row["seed"])]
        for row in image_set.manifest["images"]
    ]
    if rows != [list(METADATA_COLUMNS), *expected]:
        yield f"{where.metadata} does not agree with {MANIFEST}"


def _soft_labels(image_set: ImageSet) -> Iterator[str]:
    try:
        logits = image_set.soft_labels()
    except ValueError as error:
        yield str(error)
        return
    shape, name = (len(image_set), len(image_set.class_names)), places(image_set.format).soft_labels
    if logits is not None and (logits.shape != shape or not torch.isfinite(logits).all()):
        yield f"{name} holds {tuple(logits.shape)} values, or some that are no numbers; {shape} are needed"
