"""What training does to its images, on the device they lie on."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def randomly_flipped(x_BCHW: Tensor) -> Tensor:
    """Half of the images mirrored, left to right."""
    flip_B = torch.rand(len(x_BCHW), device=x_BCHW.device) < 0.5
    return torch.where(flip_B[:, None, None, None], x_BCHW.flip(-1), x_BCHW)


def randomly_shifted(x_BCHW: Tensor, pixels: int) -> Tensor:
    """Each image moved by up to `pixels` in both directions; what comes in at the borders is their reflection."""
    if not pixels:
        return x_BCHW
    batch, _, height, width = x_BCHW.shape
    padded = F.pad(x_BCHW, (pixels,) * 4, mode="reflect")
    device = x_BCHW.device
    top, left = torch.randint(0, 2 * pixels + 1, (2, batch, 1), device=device)
    rows_BH = top + torch.arange(height, device=device)
    columns_BW = left + torch.arange(width, device=device)
    index_B = torch.arange(batch, device=device)[:, None, None]
    return padded[index_B, :, rows_BH[:, :, None], columns_BW[:, None, :]].permute(0, 3, 1, 2)


RATIOS = (3 / 4, 4 / 3)  # width over height of a crop, torchvision's


def side_to_crop_from(size: int, least: float) -> int:
    """The side, in pixels, at which images are kept so that the smallest of crops still has `size` pixels a side."""
    return math.ceil(size / math.sqrt(least))


def resized_crops(images_BCHW: Tensor, size: int, least: float = 1.0) -> Tensor:
    """A random part of each image, resized to `size` pixels: uint8 (B, C, H, W) to (B, C, size, size).

    A part has from `least` to all of the area and a ratio of sides from 3/4 to 4/3, what is too long for the image cut
    off, as RandomResizedCrop has it (Szegedy et al., arXiv 1409.4842, section 6). At 1 it is the whole image and
    nothing is random. Nothing waits for the device.
    """
    if least >= 1:
        if images_BCHW.shape[-2:] == (size, size):
            return images_BCHW
        sides = torch.tensor(images_BCHW.shape[-2:], dtype=torch.float32, device=images_BCHW.device)
        return resized_boxes(images_BCHW, torch.zeros_like(sides).expand(len(images_BCHW), 2), sides[None], size)
    batch, _, height, width = images_BCHW.shape
    u_4B = torch.rand(4, batch, device=images_BCHW.device)
    area_B = (least + (1 - least) * u_4B[0]) * (height * width)
    low, high = (math.log(ratio) for ratio in RATIOS)
    ratio_B = (low + (high - low) * u_4B[1]).exp()
    rows_B = (area_B / ratio_B).sqrt().round().clamp(1, height)
    columns_B = (area_B * ratio_B).sqrt().round().clamp(1, width)
    top_B = (u_4B[2] * (height - rows_B + 1)).floor().minimum(height - rows_B)
    left_B = (u_4B[3] * (width - columns_B + 1)).floor().minimum(width - columns_B)
    starts_B2, lengths_B2 = torch.stack([top_B, left_B], 1), torch.stack([rows_B, columns_B], 1)
    return resized_boxes(images_BCHW, starts_B2, lengths_B2, size)


def resized_boxes(images_BCHW: Tensor, starts_B2: Tensor, lengths_B2: Tensor, size: int) -> Tensor:
    """A box of each image, resized to `size` pixels by two matrix products: bilinear, smoothed where it is reduced.

    `starts_B2` and `lengths_B2` are (row, column), whole pixels. As `resized_crop` of torchvision with antialias, but
    for rounding.
    """
    height, width = images_BCHW.shape[-2:]
    down_B1SH = _weights(starts_B2[:, 0], lengths_B2[:, 0], height, size)[:, None]
    across_B1SW = _weights(starts_B2[:, 1], lengths_B2[:, 1], width, size)[:, None]
    with torch.autocast(images_BCHW.device.type, enabled=False):
        resized = down_B1SH @ images_BCHW.float() @ across_B1SW.mT
    return resized.round().clamp(0, 255).to(torch.uint8)


def _weights(start_B: Tensor, length_B: Tensor, side: int, size: int) -> Tensor:
    """How much each of `side` pixels counts in each of `size`, (B, size, side): a triangle about the place it shows."""
    device = start_B.device
    step_B11 = (length_B / size).view(-1, 1, 1)
    place_BS1 = (torch.arange(size, device=device).view(1, -1, 1) + 0.5) * step_B11
    pixel_B1N = torch.arange(side, device=device).view(1, 1, -1) + 0.5 - start_B.view(-1, 1, 1)
    triangle = (1 - (place_BS1 - pixel_B1N).abs() / step_B11.clamp_min(1)).clamp_min(0)
    inside = triangle * ((pixel_B1N > 0) & (pixel_B1N < length_B.view(-1, 1, 1)))
    return inside / inside.sum(-1, keepdim=True)
