"""A patch discriminator and its losses, for tokenizers that are to look sharp.

Patches and architecture: Isola et al., pix2pix (arXiv 1611.07004), with spectral norm (Miyato et al., arXiv 1802.05957)
in the place of batch norm; hinge losses: Lim and Ye (arXiv 1705.02894); adaptive weight: Esser et al., VQGAN (arXiv
2012.09841, Eq. 7); real and reconstructed images of small sets under the same random change: Zhao et al., DiffAugment
(arXiv 2006.10738).
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

CHANNELS = 64
MOST_WEIGHT = 1e4


class PatchDiscriminator(nn.Module):
    """(B, 3, H, W) in [-1, 1] to a verdict for every patch, (B, 1, h, w): above 0 is real.

    Each halving doubles the channels; as many as leave the image at least eight patches a side, at most three.
    """

    def __init__(self, image_size: int, channels: int = CHANNELS) -> None:
        super().__init__()
        halvings = max(1, min(3, image_size.bit_length() - 4))
        layers: list[nn.Module] = []
        width = 3
        for number in range(halvings):
            wider = channels * 2**number
            layers += [spectral_norm(nn.Conv2d(width, wider, 4, 2, 1)), nn.LeakyReLU(0.2)]
            width = wider
        layers += [spectral_norm(nn.Conv2d(width, 2 * width, 3, 1, 1)), nn.LeakyReLU(0.2)]
        layers += [spectral_norm(nn.Conv2d(2 * width, 1, 3, 1, 1))]
        self.layers = nn.Sequential(*layers)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.layers(images_BCHW)


def discriminator_loss(real_BHW: Tensor, made_BHW: Tensor) -> Tensor:
    """Hinge: mean max(0, 1 - D(real)) + mean max(0, 1 + D(made)), halved."""
    return 0.5 * (F.relu(1 - real_BHW).mean() + F.relu(1 + made_BHW).mean())


def generator_loss(made_BHW: Tensor) -> Tensor:
    return -made_BHW.mean()


def without_learning(discriminator: nn.Module, images_BCHW: Tensor) -> Tensor:
    """What the discriminator says, with gradients for the images only."""
    fixed = {name: p.detach() for name, p in discriminator.named_parameters()}
    return functional_call(discriminator, fixed, (images_BCHW,))


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: nn.Parameter) -> Tensor:
    """|∇ reconstruction| / (|∇ adversarial| + 1e-4), gradients of the decoder's last layer; in [0, 1e4], detached."""
    wanted, pushed = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].float().norm()
        for loss in (reconstruction, adversarial)
    )
    return (wanted / (pushed + 1e-4)).clamp(0, MOST_WEIGHT).detach()


def changed_alike(*images: Tensor) -> tuple[Tensor, ...]:
    """Batches (B, 3, H, W) under one random change a row: brightness, saturation, contrast, shift, a square cut out.

    Differentiable, and the same for row i of all batches.
    """
    batch, _, height, width = images[0].shape
    device = images[0].device
    brightness, saturation, contrast = torch.rand(3, batch, 1, 1, 1, device=device)
    top, left = ((torch.rand(batch, device=device) * 2 - 1) * side / 8 for side in (height, width))
    shift = torch.zeros(batch, 2, 3, device=device)
    shift[:, 0, 0] = shift[:, 1, 1] = 1
    shift[:, 0, 2], shift[:, 1, 2] = 2 * left.round() / width, 2 * top.round() / height
    grid = F.affine_grid(shift, [batch, 3, height, width], align_corners=False)
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    y, x = (torch.rand(2, batch, 1, 1, device=device) * torch.tensor(height, device=device)).unbind(0)
    inside = ((rows[:, None] - y).abs() < height / 4) & ((columns[None] - x).abs() < width / 4)
    kept_B1HW = (~inside)[:, None].float()

    def change(image_BCHW: Tensor) -> Tensor:
        image = image_BCHW.float() + (brightness - 0.5)
        grey = image.mean(1, keepdim=True)
        image = grey + (image - grey) * 2 * saturation
        middle = image.mean((1, 2, 3), keepdim=True)
        image = middle + (image - middle) * (0.5 + contrast)
        return F.grid_sample(image, grid, mode="nearest", align_corners=False) * kept_B1HW

    return tuple(change(image) for image in images)
