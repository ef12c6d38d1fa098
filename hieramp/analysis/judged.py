"""What a classifier makes of a set of images, and how the set stands to real ones."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hieramp.analysis.fidelity import frechet_distance, in_batches
from hieramp.analysis.neighbours import Nearest, nearest
from hieramp.classifier import Classifier

CLOSE = 0.01  # an image is suspiciously close where only this share of held-out real images is closer
MIN_FOR_FID = 2  # images of which a covariance can be taken


@dataclass(frozen=True)
class Judged:
    """A set as the classifier sees it."""

    images_NCHW: Tensor  # uint8
    labels_N: Tensor
    features_NF: Tensor
    confidence_N: Tensor  # in the image's own class
    named_N: Tensor  # label

    @property
    def accuracy(self) -> float:
        """Share of the images that are given the class asked for."""
        return (self.named_N == self.labels_N).double().mean().item()

    def first(self, count: int) -> "Judged":
        """So many images, spread evenly over the set."""
        index = torch.arange(count) * len(self.labels_N) // count
        parts = (self.images_NCHW, self.labels_N, self.features_NF, self.confidence_N, self.named_N)
        return Judged(*(part[index] for part in parts))


@torch.no_grad()
def judge(classifier: Classifier, images_NCHW: Tensor, labels_N: Tensor) -> Judged:
    """Features, confidence and verdicts for uint8 images, in one pass."""
    device = classifier.mean.device
    features, logits = [], []
    for batch in in_batches(images_NCHW):
        features.append(classifier.features(batch.to(device)))
        logits.append(classifier.network.fc(features[-1]).cpu())
    probability_NK = torch.cat(logits).softmax(1)
    confidence_N = probability_NK.gather(1, labels_N[:, None])[:, 0]
    return Judged(images_NCHW, labels_N, torch.cat(features).cpu(), confidence_N, probability_NK.argmax(1))


@dataclass(frozen=True)
class Closeness:
    """Nearest real images of a set's, and how near held-out real images have theirs."""

    nearest: Nearest
    held_out_N: Tensor | None  # distances of held-out real images

    @property
    def median(self) -> float:
        return self.nearest.distance.median().item()

    @property
    def held_out_median(self) -> float | None:
        return None if self.held_out_N is None else self.held_out_N.median().item()

    @property
    def share_close(self) -> float | None:
        """Share of the images nearer to a real one than all but 1 % of the held-out images are."""
        if self.held_out_N is None:
            return None
        return (self.nearest.distance < self.held_out_N.quantile(CLOSE)).double().mean().item()


def closeness(ours: Judged, real: Judged, held_out: Judged | None) -> dict[str, Closeness]:
    """In the classifier's features and in pixels."""
    found = {}
    for space, name in {"features": "features_NF", "pixels": "images_NCHW"}.items():
        points = getattr(real, name)
        others = None if held_out is None else nearest(getattr(held_out, name), points).distance
        found[space] = Closeness(nearest(getattr(ours, name), points), others)
    return found


def fid(ours: Judged, real: Judged) -> float | None:
    """Fréchet distance in the classifier's features; None for a single image."""
    if min(len(ours.labels_N), len(real.labels_N)) < MIN_FOR_FID:
        return None
    return frechet_distance(ours.features_NF, real.features_NF)
