"""What happens to a batch before teacher and student see it: patches shuffled, crop, flip, CutMix.

All random numbers come from torch's CPU generator, so that a seed means the same on every device.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from hieramp.devices import to_device_async
from hieramp.evaluation.protocols import Training

if TYPE_CHECKING:
    from torchvision.transforms import v2


def augmented(images_BCHW: Tensor, training: Training) -> Tensor:
    """uint8 images to [0, 1], each cropped and flipped by itself."""
    x = images_BCHW.float() / 255
    if training.shuffle_patches == 2:
        x = _quarters_shuffled(x)
    if training.min_crop < 1:
        boxes = [_box(image, training.min_crop) for image in x]
        x = cropped(x, boxes) if x.is_cuda else torch.stack([_resized(*pair) for pair in zip(x, boxes, strict=True)])
    flip_B = to_device_async(torch.rand(len(x)), x.device) < 0.5
    return torch.where(flip_B[:, None, None, None], x.flip(-1), x)


def mixer(training: Training, num_classes: int) -> "v2.CutMix":
    """CutMix of a batch with its neighbour; of labels it makes the targets mixed by area, (B, K).

    The box is RDED's; every batch is freshly shuffled, so that the neighbour is as random as its permutation.
    """
    from torchvision.transforms import v2  # takes seconds to load

    return v2.CutMix(alpha=training.cutmix, num_classes=num_classes)


Box = tuple[int, int, int, int]  # top, left, height, width


def _box(image_CHW: Tensor, least: float) -> Box:
    """Of a random crop of at least this share of the image, from a side ratio of 3/4 to 4/3."""
    from torchvision.transforms import v2

    found = v2.RandomResizedCrop(image_CHW.shape[-1], scale=(least, 1.0)).make_params([image_CHW])
    return found["top"], found["left"], found["height"], found["width"]


def _resized(image_CHW: Tensor, box: Box) -> Tensor:
    from torchvision.transforms.v2.functional import resized_crop

    return resized_crop(image_CHW, *box, list(image_CHW.shape[-2:]), antialias=True)


def cropped(images_BCHW: Tensor, boxes: Sequence[Box]) -> Tensor:
    """One box of each image, enlarged to its size: torchvision's crops but for rounding, all in a few kernels."""
    height, width = images_BCHW.shape[-2:]
    top_B1, left_B1, rows_B1, columns_B1 = to_device_async(torch.tensor(boxes), images_BCHW.device).T[..., None].float()
    y_BH = _places(top_B1, rows_B1, height)
    x_BW = _places(left_B1, columns_B1, width)
    grid_BHW2 = torch.stack(torch.broadcast_tensors(x_BW[:, None, :], y_BH[:, :, None]), dim=-1)
    return F.grid_sample(images_BCHW, grid_BHW2, mode="bilinear", padding_mode="border", align_corners=False)


def _places(start_B1: Tensor, length_B1: Tensor, size: int) -> Tensor:
    """Where in an axis of `size` pixels those of an enlarged crop come from, from -1 to 1, (B, size).

    No pixel beyond the crop counts: at its ends the outermost is repeated.
    """
    centers_N = torch.arange(size, device=start_B1.device) + 0.5
    inside_BN = (centers_N * (length_B1 / size) - 0.5).clamp_min(0).minimum(length_B1 - 1)
    return (start_B1 + inside_BN + 0.5) * (2 / size) - 1


def _quarters_shuffled(images_BCHW: Tensor) -> Tensor:
    """RDED's patch shuffle for 2 × 2 patches: halves change places, or not, along each axis."""
    shifts_B2 = to_device_async(torch.stack([torch.rand(2) for _ in images_BCHW]), images_BCHW.device) < 0.5
    for axis in (-2, -1):
        is_shifted_B111 = shifts_B2[:, axis, None, None, None]
        rolled_BCHW = images_BCHW.roll(images_BCHW.shape[axis] // 2, axis)
        images_BCHW = torch.where(is_shifted_B111, rolled_BCHW, images_BCHW)
    return images_BCHW
