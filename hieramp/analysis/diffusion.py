"""How well a diffusion model draws: accuracy and FID over guidance and steps, and how near real images are."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hieramp.analysis.fidelity import accuracy, features, frechet_distance
from hieramp.analysis.measure import as_bytes
from hieramp.analysis.neighbours import nearest
from hieramp.classifier import Classifier
from hieramp.data import DecodedImages
from hieramp.diffusion.model import DiffusionModel
from hieramp.settings import Settings

BATCH = 64  # images drawn at a time
COMPARED = 500  # images whose nearest real image is looked for


def draw_images(model: DiffusionModel, per_class: int, settings: Settings) -> tuple[Tensor, Tensor, float]:
    """uint8 images (N, 3, H, W), `per_class` of every class with the seeds 0, 1, …; their labels; seconds an image."""
    labels = torch.arange(len(model.class_names)).repeat_interleave(per_class)
    seeds = torch.arange(per_class).repeat(len(model.class_names))
    started, images = time.perf_counter(), []
    for rows in torch.arange(len(labels)).split(BATCH):
        images.append(as_bytes(model.generate(labels[rows].tolist(), seeds[rows].tolist(), settings).images))
    return torch.cat(images), labels, (time.perf_counter() - started) / len(labels)


def measure_diffusion(
    model: DiffusionModel,
    classifier: Classifier,
    test: DecodedImages,
    real: DecodedImages,
    per_class: int,
    every: Sequence[Settings],
) -> Iterator[dict[str, Any]]:
    """A row for the real training images, then one for each setting.

    FID is against the test images, in the classifier's features. `nearest` is the median over images of the root mean
    square difference in pixels (of 1) to the nearest real training image: far less than what the test images have
    would mean copies.
    """
    of_test = features(classifier, test.images)
    yield {
        "setting": "real training images",
        "accuracy": accuracy(classifier, real.images, real.labels),
        "fid": frechet_distance(features(classifier, real.images), of_test),
        "nearest": _nearest(test.images, real.images),
        "images": len(real.images),
    }
    for settings in every:
        images, labels, seconds = draw_images(model, per_class, settings)
        yield {
            "setting": setting_name(settings),
            "guidance": settings.guidance,
            "steps": settings.steps,
            "solver": settings.solver,
            "amplified": not settings.is_off,
            "accuracy": accuracy(classifier, images, labels),
            "accuracy_per_class": [
                accuracy(classifier, images[labels == label], labels[labels == label])
                for label in range(len(model.class_names))
            ],
            "fid": frechet_distance(features(classifier, images), of_test),
            "nearest": _nearest(images, real.images),
            "images": len(images),
            "seconds_per_image": seconds,
        }


def _nearest(images: Tensor, real: Tensor) -> float:
    some = images[torch.arange(min(COMPARED, len(images))) * len(images) // min(COMPARED, len(images))]
    return nearest(some, real).distance.median().item()


def setting_name(settings: Settings) -> str:
    """ "guidance 1.5, 25 steps", with the solver where it is not Euler's, and ", amplified"."""
    solver = "" if settings.solver == "euler" else f" of {settings.solver.capitalize()}"
    return f"guidance {settings.guidance:g}, {settings.steps} steps{solver}" + ", amplified" * (not settings.is_off)
