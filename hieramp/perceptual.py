"""A perceptual loss on the features of any classifier: what LPIPS measures, without its learned weights.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv 1801.03924), Eq. 1 with
w = 1. With the package `lpips` and its weights, "lpips" is their own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.errors import UserError

LEAST_SIDE = 64  # pixels: a network that halves five times would see nothing of smaller images
Distance = Callable[[Tensor, Tensor], Tensor]


class PerceptualDistance(nn.Module):
    """(B, 3, H, W) and (B, 3, H, W) in [-1, 1] to the mean distance of their features, a scalar.

    At every stage of the network, where its resolution halves, the features of a position are scaled to length 1; the
    distance is the squared difference, summed over channels and stages, mean over positions and images.
    """

    def __init__(self, network: nn.Module, name: str = "the network") -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.stages = stages_of(self.network)
        if not self.stages:
            raise UserError(f"{name} has no stages to compare features at: give a network of timm's")

    def features(self, images_BCHW: Tensor) -> list[Tensor]:
        """The maps at the end of every stage, finest first, each (B, C, h, w)."""
        side = images_BCHW.shape[-1]
        x = images_BCHW.add(1).mul(0.5)
        if side < LEAST_SIDE:
            x = F.interpolate(x, scale_factor=-(-LEAST_SIDE // side), mode="bilinear")
        found: dict[str, Tensor] = {}

        def keep(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found[name] = output
            if len(found) == len(self.stages):
                raise _AllSeenError

        hooks = [self.network.get_submodule(name).register_forward_hook(partial(keep, name)) for name in self.stages]
        try:
            self.network(x)
        except _AllSeenError:  # what comes after the last stage is not wanted
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return [found[name] for name in self.stages]

    def forward(self, images_BCHW: Tensor, others_BCHW: Tensor) -> Tensor:
        pairs = zip(self.features(images_BCHW), self.features(others_BCHW), strict=True)
        distances = [(_unit(a) - _unit(b)).square().sum(1).mean() for a, b in pairs]
        return torch.stack(distances).sum()


class _AllSeenError(Exception):
    """All stages were seen."""


def _unit(features_BCHW: Tensor) -> Tensor:
    return F.normalize(features_BCHW.float(), dim=1, eps=1e-6)


def stages_of(network: nn.Module) -> list[str]:
    """Names of the modules whose output is a stage's: timm's `feature_info`, wherever the network stands in another."""
    for prefix, module in network.named_modules():
        info = getattr(module, "feature_info", None)
        entries = getattr(info, "info", info)
        if isinstance(entries, list) and entries and all("module" in entry for entry in entries):
            names = [entry["module"] for entry in entries if entry["module"]]
            return [f"{prefix}.{name}" if prefix else name for name in names if _has(module, name)]
    return []


def _has(module: nn.Module, name: str) -> bool:
    try:
        module.get_submodule(name)
    except AttributeError:
        return False
    return True
