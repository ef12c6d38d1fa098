"""Hugging Face data sets, by id or from a local folder of tables: columns found by their features."""

from dataclasses import dataclass
from typing import Any

from hieramp.data.files import check_size
from hieramp.data.layout import TAKEN_FOR, kind_of
from hieramp.errors import UserError

LABEL_NAMES = ("label", "labels", "fine_label", "class", "class_label", "target", "cls")
IMAGE_NAMES = ("image", "img", "images", "picture", "png", "jpg", "jpeg", "webp")


@dataclass(frozen=True)
class TableFiles:
    """Images in a column of a table, as they were stored."""

    table: Any  # datasets.Dataset, its image column not decoded
    column: str
    source: str

    def __len__(self) -> int:
        return len(self.table)

    def name(self, index: int) -> str:
        return f"row {index}"

    def where(self, index: int) -> str:
        return f"{self.source}, row {index}"

    def read(self, index: int) -> bytes:
        stored = self.table[index][self.column]
        data = stored if isinstance(stored, bytes) else (stored or {}).get("bytes")
        if data is None and stored and stored.get("path"):
            with open(stored["path"], "rb") as stream:  # noqa: PTH123 (may be a URL-like path of datasets)
                data = stream.read()
        if data is None:
            raise UserError("it is empty")
        check_size(len(data))
        return data

    def signature(self) -> str:
        return f"{self.source} {self.table._fingerprint}"


def open_table(
    path: str, split: str, image_column: str | None, label_column: str | None
) -> tuple[TableFiles, tuple[int, ...], tuple[str, ...], str]:
    """Images, labels and class names of a split, and what was taken, in words.

    Raises:
        UserError: it cannot be had, has no such split, or its columns do not say which are images and labels.
    """
    table, taken = _split_of(_load(path), split, path)
    image = image_column or _image_column(table, path)
    label = label_column or _label_column(table, image, path)
    for column in (image, label):
        if column not in table.column_names:
            raise UserError(f"{path} has no column {column!r}; it has: {_columns(table)}")
    targets, names = _labels(table, label, path)
    table = _undecoded(table, image, path)
    words = f"split {taken}, images in column {image!r}, labels in {label!r}"
    return TableFiles(table, image, path), targets, names, words


def _load(path: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"{path} is no folder of images here; to read it as a Hugging Face data set, run: pip install datasets"
        ) from error
    from pathlib import Path

    try:
        if (Path(path) / "dataset_dict.json").is_file() or (Path(path) / "state.json").is_file():
            return datasets.load_from_disk(path)
        return datasets.load_dataset(path)
    # whatever a data set's files make the library raise is about these files
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:300]
        if Path(path).is_dir():
            raise UserError(
                f"the tables (.parquet, .arrow) in {path} cannot be read: {reason}; if it is a folder of images, move "
                "them away"
            ) from error
        raise UserError(f"{path} is neither a folder here nor a readable Hugging Face data set: {reason}") from error


def _split_of(found: Any, split: str, path: str) -> tuple[Any, str]:
    if not isinstance(found, dict):  # saved by save_to_disk without splits
        return found, "the only one"
    if split in found:
        return found[split], split
    kinds = TAKEN_FOR.get(split) or (kind_of(split),)
    for kind in kinds:
        for name in found:
            if kind is not None and kind_of(name) == kind:
                return found[name], name
    raise UserError(f"{path} has the split(s) {', '.join(found)}, but no {split}: name one with --split")


def _columns(table: Any) -> str:
    told = []
    for name, feature in table.features.items():
        kind = type(feature).__name__
        told.append(f"{name} ({getattr(feature, 'dtype', kind) if kind == 'Value' else kind})")
    return ", ".join(told)


def _image_column(table: Any, path: str) -> str:
    import datasets

    images = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    if not images:  # written without features: bytes, or a pair of bytes and path
        images = [name for name in table.column_names if name in IMAGE_NAMES]
    chosen = images if len(images) == 1 else [name for name in IMAGE_NAMES if name in images]
    if not chosen:
        raise UserError(
            f"{path} does not say which column holds the images: name it with --image-column; it has: {_columns(table)}"
        )
    return chosen[0]


def _label_column(table: Any, image: str, path: str) -> str:
    import datasets

    labels = [name for name, feature in table.features.items() if isinstance(feature, datasets.ClassLabel)]
    if len(labels) == 1:
        return labels[0]
    chosen = [name for name in LABEL_NAMES if name in (labels or table.column_names) and name != image]
    if not chosen:
        raise UserError(
            f"{path} does not say which column holds the labels: name it with --label-column; it has: {_columns(table)}"
        )
    return chosen[0]


def _labels(table: Any, column: str, path: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """A label of every row, and the names of the classes: those of a ClassLabel, the sorted texts of a text column, or
    the numbers of a column of numbers (with names from `class_name` where the table has one)."""
    import datasets

    feature, values = table.features[column], list(table[column])
    if any(value is None for value in values):
        raise UserError(f"{path} has rows without a {column}: take another split, or another --label-column")
    if isinstance(feature, datasets.ClassLabel):
        names = tuple(feature.names)
    elif all(isinstance(value, str) for value in values):
        names = tuple(sorted(set(values)))
        label_of = {name: label for label, name in enumerate(names)}
        return tuple(label_of[value] for value in values), names
    elif all(isinstance(value, int) for value in values):
        names = _numbered(table, values, path)
    else:
        raise UserError(f"column {column!r} of {path} holds neither numbers nor names of classes: name another")
    targets = tuple(int(value) for value in values)
    if targets and not 0 <= min(targets) <= max(targets) < len(names):
        raise UserError(f"{path} has rows with the label {min(targets)}, which is no class: take another --split")
    return targets, names


def _numbered(table: Any, values: list[int], path: str) -> tuple[str, ...]:
    count = max(values, default=0) + 1
    if count > max(100_000, len(values)):
        raise UserError(f"{path} has a label {count - 1}, which is no class number: name another --label-column")
    names = [str(label) for label in range(count)]
    if "class_name" in table.column_names:
        for label, name in zip(values, table["class_name"], strict=True):
            if label >= 0:
                names[label] = str(name)
    return tuple(names)


def _undecoded(table: Any, column: str, path: str) -> Any:
    import datasets

    if isinstance(table.features[column], datasets.Image):
        return table.cast_column(column, datasets.Image(decode=False))
    sample = table[0][column] if len(table) else None
    if not isinstance(sample, bytes) and not (isinstance(sample, dict) and {"bytes", "path"} & sample.keys()):
        raise UserError(f"column {column!r} of {path} holds no images: name another with --image-column")
    return table
