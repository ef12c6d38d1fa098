"""How close drawn images are to real ones: Fréchet distance in a classifier's features, and its verdicts."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hieramp.classifier import Classifier


def frechet_distance(features_NF: Tensor, others_MF: Tensor) -> float:
    """|μ₁-μ₂|² + tr(Σ₁ + Σ₂ - 2(Σ₁Σ₂)^½) between two sets of features (Heusel et al., 2017, Eq. 6)."""
    a, b = (x.double().cpu().numpy() for x in (features_NF, others_MF))
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # the eigenvalues of a product of two covariances are real and not negative
    root_trace = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real.clip(0)).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root_trace)


def in_batches(images_NCHW: Tensor, size: int = 250) -> Iterator[Tensor]:
    """Float batches in [0, 1] of uint8 or float images."""
    for batch in images_NCHW.split(size):
        yield batch.float() / 255 if batch.dtype == torch.uint8 else batch


@torch.no_grad()
def features(classifier: Classifier, images_NCHW: Tensor) -> Tensor:
    device = classifier.mean.device
    return torch.cat([classifier.features(batch.to(device)).cpu() for batch in in_batches(images_NCHW)])


@torch.no_grad()
def accuracy(classifier: Classifier, images_NCHW: Tensor, labels_N: Tensor) -> float:
    """Share of the images that the classifier names right."""
    device = classifier.mean.device
    named = torch.cat([classifier(batch.to(device)).argmax(-1).cpu() for batch in in_batches(images_NCHW)])
    return (named == labels_N.cpu()).double().mean().item()
