"""Training the classifier: random crops, flips, and plain labels.

It is a teacher too, and one trained on smoothed labels teaches worse (Müller et al., 2019).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from hieramp.classifier import Classifier
from hieramp.training.loop import Objective


class ClassifierObjective(Objective):
    """(images uint8, labels) to the cross-entropy."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.model = classifier

    def forward(self, images_BCHW: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        x = random_crop(images_BCHW.float() / 255, padding=images_BCHW.shape[-1] // 16)
        logits = self.model(x)
        loss = F.cross_entropy(logits, labels_B)
        return {"loss": loss, "accuracy": (logits.argmax(-1) == labels_B).float().mean()}

    def matrices(self) -> set[str]:
        """The convolutions but the first; the last layer sees classes, not features."""
        return {
            name for name, p in self.named_parameters() if p.ndim == 4 and not name.startswith("model.network.conv1.")
        }


def random_crop(images_BCHW: Tensor, padding: int) -> Tensor:
    """Reflect-pad, crop each image at its own place back to its size, flip half of them."""
    batch, _, height, width = images_BCHW.shape
    padded = F.pad(images_BCHW, (padding,) * 4, mode="reflect")
    device = images_BCHW.device
    top, left = torch.randint(0, 2 * padding + 1, (2, batch, 1), device=device)
    rows_BH = top + torch.arange(height, device=device)
    columns_BW = left + torch.arange(width, device=device)
    flip_B1 = torch.rand(batch, 1, device=device) < 0.5
    columns_BW = torch.where(flip_B1, columns_BW.flip(1), columns_BW)
    index_B = torch.arange(batch, device=device)[:, None, None]
    return padded[index_B, :, rows_BH[:, :, None], columns_BW[:, None, :]].permute(0, 3, 1, 2)
