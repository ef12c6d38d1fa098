"""What limits a model: how much of real images is lost by their tokens, by drawing, and by how it is drawn.

Real test images, their reconstructions, and images whose first scales are real and whose others are drawn all
pass the same judge, from every scale real down to none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hieramp.amplification.settings import OFF
from hieramp.analysis.autoencoder import encode
from hieramp.analysis.fidelity import accuracy, features, frechet_distance
from hieramp.analysis.measure import BATCH, as_bytes, baselines, draw_set, setting_name
from hieramp.classifier import Classifier
from hieramp.data import DecodedImages
from hieramp.errors import UserError
from hieramp.generation.model import Model
from hieramp.generation.sampling import Sampling


@dataclass(frozen=True)
class Loss:
    """What one of the three steps from real to drawn images costs."""

    part: str  # "autoencoder", "transformer", "sampling"
    accuracy: float  # share of images that are no longer named right; negative where more are
    fid: float  # rise of the FID; negative where it falls


def halves(test: DecodedImages, per_class: int) -> tuple[DecodedImages, DecodedImages]:
    """The first images of every class, class by class, and all others.

    As many of each class: `per_class`, or half of the class that has fewest.

    Raises:
        UserError: a class has fewer than two images.
    """
    labels = range(int(test.labels.max()) + 1)
    rows = [(test.labels == label).nonzero()[:, 0] for label in labels]
    count = min(per_class, *(len(row) // 2 for row in rows))
    if not count:
        raise UserError(f"a class has fewer than 2 of the {len(test)} test images: give more with --test-images")
    chosen = torch.cat([row[:count] for row in rows])
    is_other = torch.ones(len(test), dtype=torch.bool)
    is_other[chosen] = False
    return (
        DecodedImages(test.images[chosen], test.labels[chosen]),
        DecodedImages(test.images[is_other], test.labels[is_other]),
    )


def measure_limits(
    model: Model, classifier: Classifier, real: DecodedImages, others: DecodedImages, sampling: Sampling
) -> Iterator[dict[str, Any]]:
    """Accuracy, and FID against `others`, of real images and of what is left of them.

    First the images themselves ("given" is None), then images with the first S, S-1, …, 0 scales given as the real
    images' tokens and the others drawn: S given is the reconstruction, 0 given is drawn whole. `real` holds as
    many images of each class, class by class, as `halves` makes them; `others` are images that are not among them.
    """
    reference = features(classifier, others.images)
    per_class = len(real) // model.var.config.num_classes

    def judged(given: int | None, images: Tensor) -> dict[str, Any]:
        fid = frechet_distance(features(classifier, images), reference)
        return {"given": given, "accuracy": accuracy(classifier, images, real.labels), "fid": fid}

    yield judged(None, real.images)
    tokens = encode(model.vqvae, real.images)
    for count in reversed(range(len(tokens) + 1)):
        if count == len(tokens):
            images = torch.cat([as_bytes(model.vqvae.to_images(model.vqvae.embed(part))) for part in _split(tokens)])
        else:
            images = draw_set(model, per_class, BATCH, OFF, sampling, prefix_tokens=tokens[:count]).images
        yield judged(count, images)


def _split(tokens: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(idx_NL.split(BATCH) for idx_NL in tokens), strict=True)


def losses(limits: Mapping[str, Any], drawings: Mapping[str, Mapping[str, Any]] | None) -> list[Loss]:
    """What autoencoder, transformer and sampling cost, largest share of names first.

    The autoencoder's is the step from the test images to their reconstructions, and what drawing costs the step
    from there to images drawn whole. Of that the sampling's is what the best of the settings measured wins over
    the one in use (in `drawings`, rows by setting); the transformer's is the rest. With fewer than two
    settings measured, or another one in use, the two stay together as "transformer and sampling".
    Every difference is taken within one table, against the same reference.
    """
    rows = {row["given"]: row for row in limits["rows"]}
    untouched, whole = rows[None], rows[0]
    kept = rows[max(count for count in rows if count is not None)]
    found = [Loss("autoencoder", untouched["accuracy"] - kept["accuracy"], kept["fid"] - untouched["fid"])]
    accuracy, fid = kept["accuracy"] - whole["accuracy"], whole["fid"] - kept["fid"]
    swept = baselines(drawings or {})
    used = swept.get(setting_of(limits))
    if used is None or len(swept) < 2:
        found.append(Loss("transformer and sampling", accuracy, fid))
    else:
        by_name = max(row["accuracy"] for row in swept.values()) - used["accuracy"]
        by_fid = used["fid"] - min(row["fid"] for row in swept.values())
        found += [Loss("transformer", accuracy - by_name, fid - by_fid), Loss("sampling", by_name, by_fid)]
    return sorted(found, key=lambda loss: loss.accuracy, reverse=True)


def setting_of(limits: Mapping[str, Any]) -> str:
    """The name of the setting that limits were measured at."""
    return setting_name(Sampling(**{name: limits[name] for name in asdict(Sampling()) if name in limits}))


def worst_scale(limits: Mapping[str, Any]) -> tuple[int, float]:
    """The scale that costs most names where it is drawn instead of given, and the share it costs."""
    rows = {row["given"]: row["accuracy"] for row in limits["rows"] if row["given"] is not None}
    costs = {scale: rows[scale + 1] - rows[scale] for scale in range(max(rows))}
    scale = max(costs, key=costs.__getitem__)
    return scale, costs[scale]
