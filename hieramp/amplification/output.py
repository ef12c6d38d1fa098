"""HierAmp on a diffusion transformer: the attention's output A becomes A ⊙ (1 + α·M) (supplement of arXiv 2603.06932).

M marks the tokens that the class moves most: the difference of the two halves of guidance, averaged over the steps, as
DiffEdit (arXiv 2210.11427) makes its masks. A step is amplified by the map of the steps before it, so the first one
never is. Free of models. B rows, T tokens, C channels.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hieramp.amplification.saliency import BatchAmplification
from hieramp.amplification.settings import ScaleStrength

KEPT = 0.7  # of the running map, at every step
WINDOW = 3  # positions a side over which the map is averaged before positions are ranked


def guidance_difference(conditional_BCHW: Tensor, unconditional_BCHW: Tensor) -> Tensor:
    """How far the class moves the prediction at each position: d(p) = ‖v_y(p) - v_∅(p)‖₂, (B, h, w)."""
    return (conditional_BCHW - unconditional_BCHW).square().sum(1).sqrt()


class RunningMap:
    """D_k = 0.7·D_{k-1} + 0.3·d_k / mean(d_k), which starts as d_0 / mean(d_0); (B, h, w)."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def add(self, difference_BHW: Tensor) -> None:
        now = difference_BHW / difference_BHW.mean((1, 2), keepdim=True).clamp_min(1e-12)
        self.value = now if self.value is None else KEPT * self.value + (1 - KEPT) * now

    def ranks(self) -> Tensor | None:
        """What positions are ranked by: the mean over 3×3 of those that are there, (B, h·w)."""
        if self.value is None:
            return None
        around = F.avg_pool2d(self.value[:, None], WINDOW, 1, WINDOW // 2, count_include_pad=False)
        return around.flatten(1)

    def saliency(self) -> Tensor | None:
        """(B, h, w), each map summing to 1; uniform where the class moves nothing."""
        if self.value is None:
            return None
        raised = self.value + 1e-12
        return raised / raised.sum((1, 2), keepdim=True)


class OutputChange:
    """1 + α·a for each row at one step, where a marks the share ρ of the positions that its setting means."""

    def __init__(
        self, settings: Mapping[int, Sequence[ScaleStrength | None]], num_tokens: int, device: torch.device
    ) -> None:
        """`settings`: for each block that is amplified, what every row does there; None where it does nothing."""
        self.by_block = {
            block: BatchAmplification(
                rows, ["logit"] * len(rows), num_tokens, device
            )  # strengths that add, 0 being none
            for block, rows in settings.items()
        }

    @property
    def is_random(self) -> bool:
        return any(rows.is_random_B1 is not None for rows in self.by_block.values())

    def factors(self, ranks_BT: Tensor, random: Callable[[], Tensor]) -> dict[int, Tensor]:
        """By block, (B, T)."""
        random_BT = random() if self.is_random else None
        return {block: 1 + rows.key_bias(ranks_BT, random_BT).bias_BK for block, rows in self.by_block.items()}
