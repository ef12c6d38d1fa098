"""The real images of the classes of a set, as latents of the model."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hieramp.checkpoints import fingerprint
from hieramp.data import DataSource, read_image, to_square
from hieramp.data.pictures import pixels_of
from hieramp.devices import to_device_async
from hieramp.diffusion.model import DiffusionModel
from hieramp.distillation.maker import full_float32
from hieramp.distillation.methods.store import Stage, Store, Tensors
from hieramp.errors import UserError
from hieramp.generation.model import Model
from hieramp.seeds import seed_of

CHUNK, ENCODED_AT_ONCE = 256, 16


@dataclass(frozen=True)
class RealImages:
    """The images of a source, whose labels are the model's."""

    source: DataSource
    classes: tuple[int, ...]

    def indices(self, label: int, limit: int = 0, seed: int = 0) -> list[int]:
        """Of the images of a class; so many of them, chosen by a seed, or all where `limit` is 0."""
        indices = np.flatnonzero(np.asarray(self.source.targets) == label)
        if 0 < limit < len(indices):
            indices = np.sort(np.random.default_rng(seed_of(seed, label)).permutation(indices)[:limit])
        return indices.tolist()

    def chunks(self, label: int, limit: int = 0, seed: int = 0) -> dict[str, list[int]]:
        """The same, a few hundred at a time, each with a name."""
        indices = self.indices(label, limit, seed)
        return {f"{label}-{start}": indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)}

    def pixels(self, indices: Sequence[int], size: int) -> Tensor:
        """Images as squares of this side, uint8 (N, 3, size, size)."""
        return torch.stack([pixels_of(to_square(read_image(self.source, i), size)) for i in indices])

    def check_count(self, needed: int, limit: int, what: str) -> None:
        """Raise UserError where a class has fewer images than are needed."""
        for label in self.classes:
            count = len(self.indices(label, limit))
            if count < needed:
                name = self.source.class_names[label]
                looked_at = f" ({limit} are looked at: --images-per-class)" if 0 < limit == count else ""
                raise UserError(
                    f"{what} needs at least as many images of a class as the set has, {needed}, and "
                    f"{self.source.name} has {count} of {name}{looked_at}: lower --ipc"
                )

    def stage(self, store: Store, model: DiffusionModel, limit: int, seed: int) -> Stage:
        """Of the latents."""
        about: dict[str, Any] = {
            "latents": fingerprint(model.latents.state_dict()),
            "images": self.source.signature,
            "device": model.device.type,
            "limit": [limit, seed] if limit else None,
        }
        return store.stage("latents", about)

    def latents(
        self, store: Store, model: DiffusionModel, limit: int = 0, seed: int = 0
    ) -> tuple[Stage, dict[int, Tensor]]:
        """The latents of each class of the set, (N, C, h, w) float32, in the order of the source."""
        stage = self.stage(store, model, limit, seed)
        jobs: dict[str, Any] = {}
        of_class: dict[int, list[str]] = {}
        for label in self.classes:
            chunks = self.chunks(label, limit, seed)
            jobs |= {key: partial(self._encoded, model, some) for key, some in chunks.items()}
            of_class[label] = list(chunks)
        found = stage.get(jobs, model.device, "latents of the real images")
        return stage, {label: torch.cat([found[key]["z"] for key in keys]) for label, keys in of_class.items()}

    @torch.no_grad()
    def _encoded(self, model: DiffusionModel, indices: Sequence[int]) -> Tensors:
        size, latents = model.image_size, []
        for start in range(0, len(indices), ENCODED_AT_ONCE):
            pixels = self.pixels(indices[start : start + ENCODED_AT_ONCE], size)
            with full_float32():
                latents.append(model.latents.encode(to_device_async(pixels, model.device).float() / 255).float().cpu())
        return {"z": torch.cat(latents)}


def of_model(source: DataSource, model: Model | DiffusionModel) -> DataSource:
    """The same images, labelled as the model labels its classes; by name or ImageNet id, whatever their order.

    Raises:
        UserError: they are other classes.
    """
    return source.reordered(model.class_ids)


def fingerprint_of_images(source: DataSource) -> str:
    """What tells one image folder from another without reading it: names and labels."""
    digest = hashlib.sha256()
    for index, label in enumerate(source.labels()):
        digest.update(f"{source.file_name(index)}\n{label}\n".encode())
    return digest.hexdigest()
