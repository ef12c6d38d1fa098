"""Differentiable siamese augmentation (DSA, Zhao and Bilen, arXiv 2102.08259): one change for all images at once.

Of the six families one is drawn at a time; the same numbers are then used for real and synthetic images, and gradients
flow through. Sizes and shares are those of the strategy "color_crop_cutout_flip_scale_rotate" of DC's and DM's code.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

FAMILIES = ("color", "crop", "cutout", "flip", "scale", "rotate")
BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5
SHIFT, CUTOUT, FLIP, SCALE, DEGREES = 0.125, 0.5, 0.5, 1.2, 15.0


class Change(NamedTuple):
    """A family and the numbers from 0 to 1 that say how."""

    family: str
    numbers: tuple[float, float, float]


def draw(rng: np.random.Generator) -> Change:
    a, b, c = rng.random(3)
    return Change(FAMILIES[int(rng.integers(len(FAMILIES)))], (float(a), float(b), float(c)))


def changed(images_BCHW: Tensor, change: Change) -> Tensor:
    """All images changed in the same way; the same shape."""
    u, v, w = change.numbers
    size = images_BCHW.shape[-1]
    if change.family == "color":
        return _colored(images_BCHW, u, v, w)
    if change.family == "crop":
        return _shifted(images_BCHW, int(size * SHIFT + 0.5), u, v)
    if change.family == "cutout":
        return images_BCHW * _mask(images_BCHW, int(size * CUTOUT + 0.5), u, v)
    if change.family == "flip":
        return images_BCHW.flip(-1) if u < FLIP else images_BCHW
    if change.family == "scale":
        across, along = (x * (SCALE - 1 / SCALE) + 1 / SCALE for x in (u, v))
        return _warped(images_BCHW, [[across, 0.0, 0.0], [0.0, along, 0.0]])
    angle = (u - 0.5) * 2 * math.radians(DEGREES)
    sine, cosine = math.sin(angle), math.cos(angle)
    return _warped(images_BCHW, [[cosine, -sine, 0.0], [sine, cosine, 0.0]])


def _colored(x: Tensor, u: float, v: float, w: float) -> Tensor:
    x = x + (u - 0.5) * BRIGHTNESS
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (v * SATURATION) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (w + CONTRAST) + mean


def _shifted(x: Tensor, most: int, u: float, v: float) -> Tensor:
    """Moved by up to `most` pixels either way; what comes in is 0, the mean colour."""
    height, width = x.shape[-2:]
    top, left = int(u * (2 * most + 1)), int(v * (2 * most + 1))
    return F.pad(x, [most] * 4)[..., top : top + height, left : left + width]


def _mask(x: Tensor, side: int, u: float, v: float) -> Tensor:
    """0 in a square of that side, whose middle is anywhere in the image, and 1 around it; (H, W)."""
    height, width = x.shape[-2:]
    mask = torch.ones(height, width, device=x.device)
    top, left = (int(t * (n + 1 - side % 2)) - side // 2 for t, n in ((u, height), (v, width)))
    mask[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = 0
    return mask


def _warped(x: Tensor, matrix: list[list[float]]) -> Tensor:
    theta = torch.tensor(matrix, dtype=x.dtype, device=x.device).expand(len(x), 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)
