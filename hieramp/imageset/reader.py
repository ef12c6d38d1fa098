"""Reading a set back: images, labels, settings. Knows nothing of the generator."""

import json
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from hieramp.errors import UserError
from hieramp.imageset.layout import MANIFEST, WEIGHT, check_manifest, places
from hieramp.imageset.storage import Tree, open_tree

MAX_MANIFEST_BYTES = 2**28  # of a million images


class ImageSet:
    """An opened set. Images are read when asked for; close it, or use it in a `with`."""

    def __init__(self, path: Path, tree: Tree, manifest: dict[str, Any]) -> None:
        self.path, self.tree, self.manifest = path, tree, manifest
        self.declared = {row["file"]: row["bytes"] for row in manifest["images"]}
        self.declared |= {name: row["bytes"] for name, row in manifest["files"].items()}
        self.sizes = tree.sizes()

    def __len__(self) -> int:
        return len(self.manifest["images"])

    def __enter__(self) -> "ImageSet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.tree.close()

    @property
    def settings(self) -> dict[str, Any]:
        return self.manifest["settings"]

    @property
    def class_names(self) -> tuple[str, ...]:
        """All classes of the model, by label."""
        return tuple(self.manifest["class_names"])

    @property
    def image_size(self) -> int:
        """Side of an image in pixels."""
        return int(self.manifest["image_size"])

    @property
    def format(self) -> str:
        """zip, folder, webdataset or rded."""
        return str(self.manifest.get("storage", "zip"))

    @property
    def file_names(self) -> tuple[str, ...]:
        return tuple(row["file"] for row in self.manifest["images"])

    @property
    def labels(self) -> tuple[int, ...]:
        return tuple(row["label"] for row in self.manifest["images"])

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(row["seed"] for row in self.manifest["images"])

    @property
    def weights(self) -> tuple[float, ...] | None:
        """Of each image the share of its class that it stands for, where the method says; 1 in all of a class."""
        rows = self.manifest["images"]
        return tuple(float(row[WEIGHT]) for row in rows) if rows and WEIGHT in rows[0] else None

    def read(self, name: str) -> bytes:
        """A file of the set that the manifest declares.

        Raises:
            UserError: it is not declared, missing, damaged, or larger than declared.
        """
        if name not in self.declared:
            raise UserError(f"{MANIFEST} of {self.path} does not list {name}")
        if name not in self.sizes:
            raise UserError(f"{self.path} lacks {name}, which its {MANIFEST} lists")
        if self.sizes[name] != self.declared[name]:
            sizes = f"{self.sizes[name]} bytes, {self.declared[name]} declared"
            raise UserError(f"{name} in {self.path} has another size than its {MANIFEST} says: {sizes}")
        return self.tree.read(name)

    def image(self, index: int) -> Image.Image:
        """The index-th image, RGB.

        Raises:
            UserError: it cannot be read, or has another size than the manifest says.
        """
        name = self.manifest["images"][index]["file"]
        try:
            with Image.open(BytesIO(self.read(name)), formats=["PNG"]) as image:
                if image.size != (self.image_size, self.image_size):  # told before anything large is unpacked
                    width, height = image.size
                    raise UserError(f"{name} is {width}×{height} pixels; {MANIFEST} says {self.image_size}")
                return image.convert("RGB")
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, OverflowError) as error:
            raise UserError(f"{name} in {self.path} is not a readable PNG: {error}") from error

    def soft_labels(self) -> Tensor | None:
        """The classifier's logits, (N, K) float32, where the set has them."""
        name = places(self.format).soft_labels
        if name not in self.manifest["files"]:
            return None
        needed = 2 * len(self) * len(self.class_names) + 8 * len(self) + 2**24  # float16, labels and their names
        if self.declared[name] > needed:
            raise UserError(f"{name} in {self.path} has {self.declared[name]} bytes, at most {needed} are right")
        try:
            return load(self.read(name))["logits"].float()
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{name} in {self.path} is damaged: {error}") from error


def open_set(path: str | Path) -> ImageSet:
    """Open a set: a zip, the same unzipped, or a folder of WebDataset shards.

    Raises:
        UserError: it is none, or holds absolute or parent paths, a name twice, or more data than declared.
    """
    path = Path(path)
    tree = open_tree(path)
    try:
        size = tree.sizes().get(MANIFEST)
        if size is None:
            raise UserError(f"{path} has no {MANIFEST}: it was not made by python -m hieramp distill")
        if size > MAX_MANIFEST_BYTES:
            raise UserError(f"{MANIFEST} of {path} has {size} bytes, which cannot be right; it was not read")
        try:
            manifest = json.loads(tree.read(MANIFEST))
        except RecursionError as error:
            raise UserError(f"{MANIFEST} of {path} is damaged: it is nested too deeply") from error
        except ValueError as error:
            raise UserError(f"{MANIFEST} of {path} is damaged: {error}") from error
        return ImageSet(path, tree, check_manifest(manifest, str(path)))
    except ValueError:
        tree.close()
        raise
