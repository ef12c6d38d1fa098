"""What happens to a batch before teacher and student see it: patches shuffled, crop, flip, CutMix.

All random numbers come from torch's CPU generator, so that a seed means the same on every device.
"""

import torch
from torch import Tensor
from torchvision.transforms import v2

from hieramp.evaluation.protocols import Training


def augmented(images_BCHW: Tensor, training: Training) -> Tensor:
    """uint8 images to [0, 1], each cropped and flipped by itself."""
    x = images_BCHW.float() / 255
    if training.shuffle_patches == 2:
        x = _each(x, _shuffle_quarters)
    if training.min_crop < 1:
        size = x.shape[-1]
        x = _each(x, v2.RandomResizedCrop(size, scale=(training.min_crop, 1.0), antialias=True))
    flip_B = torch.rand(len(x)).to(x.device) < 0.5
    return torch.where(flip_B[:, None, None, None], x.flip(-1), x)


def mixer(training: Training, num_classes: int) -> v2.CutMix:
    """CutMix of a batch with its neighbour; of labels it makes the targets mixed by area, (B, K).

    The box is RDED's; every batch is freshly shuffled, so that the neighbour is as random as its permutation.
    """
    return v2.CutMix(alpha=training.cutmix, num_classes=num_classes)


def _each(images_BCHW: Tensor, change: v2.Transform) -> Tensor:
    return torch.stack([change(image) for image in images_BCHW])


class _ShuffleQuarters(v2.Transform):
    """RDED's patch shuffle for 2 × 2 patches: halves change places, or not, along each axis."""

    def transform(self, inpt: Tensor, params: dict) -> Tensor:
        shifts = (torch.rand(2) < 0.5).tolist()
        height, width = inpt.shape[-2:]
        return inpt.roll((height // 2 * shifts[0], width // 2 * shifts[1]), (-2, -1))


_shuffle_quarters = _ShuffleQuarters()
