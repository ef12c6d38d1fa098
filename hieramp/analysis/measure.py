"""All figures of a model card, measured in one go on a test set."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hieramp.amplification.settings import OFF, SCHEDULES, Amplification
from hieramp.analysis.autoencoder import psnr_per_scale, reconstruct, token_figures
from hieramp.analysis.fidelity import accuracy, features, frechet_distance, in_batches
from hieramp.classifier import Classifier
from hieramp.data import DecodedImages
from hieramp.generation.model import Model
from hieramp.generation.sampling import Sampling
from hieramp.perceptual import PerceptualDistance

BATCH = 50  # images drawn at a time
AMPLIFIED = ", amplified"  # how the name of a setting ends where it is


@dataclass(frozen=True)
class SampleSet:
    """A set of drawn images with what was asked for."""

    images: Tensor  # uint8 (N, 3, H, W)
    labels: Tensor
    seconds: float


def draw_set(
    model: Model,
    per_class: int,
    batch: int,
    amplification: Amplification,
    sampling: Sampling,
    first_seed: int = 0,
    prefix_tokens: Sequence[Tensor] = (),
) -> SampleSet:
    """`per_class` images of every class, seeds `first_seed`, ….

    `prefix_tokens` are those of the first scales of all these images, per scale (N, n²).
    """
    labels = torch.arange(model.var.config.num_classes).repeat_interleave(per_class)
    seeds = (first_seed + torch.arange(per_class)).repeat(model.var.config.num_classes)
    started, images = time.perf_counter(), []
    for rows in torch.arange(len(labels)).split(batch):
        some = [idx_NL[rows.to(idx_NL.device)] for idx_NL in prefix_tokens]
        drawing = model.generate(
            labels[rows].tolist(), seeds[rows].tolist(), amplification, prefix_tokens=some, **sampling.options()
        )
        images.append(as_bytes(drawing.images))
    return SampleSet(torch.cat(images), labels, time.perf_counter() - started)


def as_bytes(images_NCHW: Tensor) -> Tensor:
    """Images in [0, 1] as uint8 on the CPU, as they would be saved."""
    return images_NCHW.mul(255).round().byte().cpu()


def measure_autoencoder(model: Model, classifier: Classifier, test: DecodedImages) -> dict[str, Any]:
    """What the tokens keep of images: pixels (PSNR), their look to the classifier's eye (perceptual distance), and
    whether reconstructions as a whole are like images (FID of reconstructions against the images themselves)."""
    pictures, usage = reconstruct(model.vqvae, test.images)
    per_scale = psnr_per_scale(model.vqvae, test.images)
    return {
        "psnr_db": per_scale[-1],
        "psnr_db_per_scale": per_scale,
        "reconstruction_fid": frechet_distance(features(classifier, pictures), features(classifier, test.images)),
        "perceptual_distance": perceptual_distance(classifier, pictures, test.images),
        "code_usage": usage[-1].item(),
        "code_usage_per_scale": usage[:-1].tolist(),
        "images": len(test.images),
    }


@torch.no_grad()
def perceptual_distance(classifier: Classifier, images_NCHW: Tensor, others_NCHW: Tensor) -> float:
    """The mean distance of images, in [0, 1] or uint8, in a classifier's features (hieramp/perceptual.py)."""
    distance = PerceptualDistance(classifier, "the classifier")
    device, total = classifier.mean.device, 0.0
    for some, others in zip(in_batches(images_NCHW), in_batches(others_NCHW), strict=True):
        total += len(some) * float(distance(some.to(device) * 2 - 1, others.to(device) * 2 - 1))
    return total / len(images_NCHW)


def measure_transformer(model: Model, test: DecodedImages) -> list[dict[str, Any]]:
    return [asdict(figures) for figures in token_figures(model, test.images, test.labels)]


def measure_drawings(
    model: Model,
    classifier: Classifier,
    test: DecodedImages,
    real: DecodedImages,
    per_class: int,
    samplings: Sequence[Sampling],
    amplified_at: Sampling,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Classifier accuracy and FID of drawn images, per sampling (baseline) and amplified at one of them."""
    test_features = features(classifier, test.images)
    yield "classifier_on_test", {"accuracy": accuracy(classifier, test.images, test.labels)}
    yield (
        "real",
        {"fid": frechet_distance(features(classifier, real.images), test_features), "images": len(real.images)},
    )
    plans = [(setting_name(sampling), OFF, sampling) for sampling in samplings]
    plans.append((setting_name(amplified_at) + AMPLIFIED, SCHEDULES["all"], amplified_at))
    for name, amplification, sampling in plans:
        drawn = draw_set(model, per_class, BATCH, amplification, sampling)
        yield (
            name,
            {
                "accuracy": accuracy(classifier, drawn.images, drawn.labels),
                "accuracy_per_class": per_class_accuracy(classifier, drawn),
                "fid": frechet_distance(features(classifier, drawn.images), test_features),
                "images": len(drawn.images),
                "seconds_per_image": drawn.seconds / len(drawn.images),
            },
        )


def setting_name(sampling: Sampling) -> str:
    """ "guidance 6", and its power, top-p and temperature where they are not the default."""
    narrowed = "" if sampling.top_p == Sampling.top_p else f", top-p {sampling.top_p:g}"
    cooled = f", temperature {sampling.temperature_label}" if sampling.temperature_label else ""
    return f"guidance {sampling.guidance_label}{narrowed}{cooled}"


def baselines(drawings: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The rows of drawings without amplification, by the name of their setting."""
    return {n: row for n, row in drawings.items() if n.startswith("guidance ") and not n.endswith(AMPLIFIED)}


def most_accurate(drawings: Mapping[str, Mapping[str, Any]]) -> str:
    """The setting without amplification at which the classifier names most images right."""
    swept = baselines(drawings)
    return max(swept, key=lambda name: swept[name]["accuracy"])


def per_class_accuracy(classifier: Classifier, drawn: SampleSet) -> list[float]:
    rows = [drawn.labels == label for label in range(int(drawn.labels.max()) + 1)]
    return [accuracy(classifier, drawn.images[row], drawn.labels[row]) for row in rows]
