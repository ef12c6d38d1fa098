"""FID in Inception's features, as published figures have it; needs torchmetrics and weights from the internet."""

from collections.abc import Iterator

import torch
from torch import Tensor

from hieramp.errors import UserError

BATCH = 50


def inception_fid(images_NCHW: Tensor, real_NCHW: Tensor, device: torch.device) -> float:
    """Fréchet distance between two sets of uint8 images in the 2048 features of InceptionV3.

    Raises:
        UserError: torchmetrics or torch-fidelity is not installed, or the weights cannot be had.
    """
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance

        metric = FrechetInceptionDistance(feature=2048).to(device)
    except ImportError as error:  # torchmetrics says ModuleNotFoundError where torch-fidelity is missing
        raise UserError("Inception FID needs: pip install torchmetrics torch-fidelity") from error
    except (OSError, RuntimeError) as error:
        raise UserError(f"Inception FID is left out: its weights cannot be fetched here ({error})") from error
    for batch in _split(real_NCHW):
        metric.update(batch.to(device), real=True)
    for batch in _split(images_NCHW):
        metric.update(batch.to(device), real=False)
    return float(metric.compute())


def _split(images_NCHW: Tensor) -> Iterator[Tensor]:
    yield from images_NCHW.split(BATCH)
