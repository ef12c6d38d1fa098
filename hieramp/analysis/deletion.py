"""The deletion test: does a saliency map point at what makes an image its class? (method.md)

The salient positions are replaced by the image's blur, and so are as many random ones: a useful map makes a
classifier's confidence in the class fall clearly faster.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from hieramp.amplification.saliency import num_salient, salient_positions
from hieramp.classifier import Classifier
from hieramp.data import to_signed
from hieramp.generation.model import Model


@dataclass(frozen=True)
class Deletion:
    """Mean fall of the classifier's confidence in the true class at one scale, in [−1, 1]."""

    scale: int
    stage: str
    salient: float
    random: float

    @property
    def gain(self) -> float:
        return self.salient - self.random


def blurred(images_BCHW: Tensor) -> Tensor:
    """The images without detail: a Gaussian of an eighth of their side."""
    size = images_BCHW.shape[-1]
    kernel = size // 4 * 2 + 1
    return gaussian_blur(images_BCHW, [kernel, kernel], [size / 8, size / 8])


def delete(images_BCHW: Tensor, chosen_BL: Tensor) -> Tensor:
    """Replace the chosen positions of an n×n grid by the blur of the image."""
    side = int(chosen_BL.shape[1] ** 0.5)
    grid = chosen_BL.view(-1, 1, side, side).float()
    mask = F.interpolate(grid, size=images_BCHW.shape[-2:], mode="nearest")
    return torch.lerp(images_BCHW, blurred(images_BCHW), mask)


@torch.no_grad()
def teacher_forced_saliency(model: Model, images_BCHW: Tensor, labels_B: Tensor) -> tuple[Tensor, ...]:
    """Saliency of real images (uint8): per scale (B, n²), of the default block, in one pass over their tokens.

    Raises:
        ValueError: the model has no class tokens.
    """
    if not model.has_class_tokens:
        raise ValueError(f"{model.name} has no class tokens: train them with python -m hieramp train class-tokens")
    tokens = model.vqvae.encode(to_signed(images_BCHW.to(model.device)))
    result = model.var(
        labels_B.to(model.device), model.vqvae.teacher_input(tokens), watch=model.var.config.watched_block
    )
    assert result.weights_BHSL is not None
    mean_BSL = result.weights_BHSL.mean(1)
    by_scale = {s: mean_BSL[:, i, model.var.scales.spans[s]] for i, s in enumerate(model.var.config.class_token_scales)}
    return tuple(by_scale[s].cpu() for s in sorted(by_scale))


@torch.no_grad()
def deletion_test(
    model: Model, classifier: Classifier, images_NCHW: Tensor, labels_N: Tensor, rho: float, seed: int
) -> list[Deletion]:
    """Delete the top-ρ positions of every scale (but scale 0) from real images, uint8 (N, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    falls: dict[int, list[Tensor]] = {s: [] for s in range(1, len(model.var.scales))}
    for images, labels in zip(images_NCHW.split(100), labels_N.split(100), strict=True):
        maps = teacher_forced_saliency(model, images, labels)
        pictures = images.float() / 255
        before_B = _confidence(classifier, pictures, labels)
        for scale, fall in falls.items():
            m_BL = maps[scale]
            count_B = torch.full((len(m_BL),), num_salient(rho, m_BL.shape[1]))
            chosen = salient_positions(m_BL, count_B)
            at_random = salient_positions(torch.rand(m_BL.shape, generator=generator), count_B)
            after = [_confidence(classifier, delete(pictures, mask), labels) for mask in (chosen, at_random)]
            fall.append(before_B - torch.stack(after))
    return [
        Deletion(scale, model.var.scales.stage_of(scale) or "", *torch.cat(fall, 1).mean(1).tolist())
        for scale, fall in falls.items()
    ]


def _confidence(classifier: Classifier, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
    probabilities = classifier(images_BCHW.to(classifier.mean.device)).softmax(-1).cpu()
    return probabilities.gather(1, labels_B[:, None])[:, 0]
