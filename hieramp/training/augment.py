"""What training does to its images, on the device they lie on."""

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
