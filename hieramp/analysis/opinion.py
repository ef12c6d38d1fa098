"""A second opinion on a picture: what a classifier takes it for, and which positions that hangs on.

Letters: B pictures, K classes, L = n² positions of an n × n grid.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from hieramp.analysis.faithfulness import Judge, blurred, delete, log_chances
from hieramp.errors import UserError

AT_ONCE = 64  # positions that are blurred and judged together


@torch.no_grad()
def verdicts(judge: Judge, images_BCHW: Tensor) -> Tensor:
    """The probability that a judge gives every class, (B, K) on the CPU; pictures in [0, 1], on the judge's device."""
    return judge(images_BCHW).float().softmax(-1).cpu()


def occlusion(judge: Judge, images_BCHW: Tensor, labels_B: Tensor, side: int) -> Tensor:
    """What each position is worth to a judge, (B, L) in nats: the fall of log p of a class when it alone is blurred.

    Below 0 where the class becomes likelier without it. Zeiler and Fergus (arXiv 1311.2901) put a grey square there;
    the blur is that of `hieramp.analysis.faithfulness`. Pictures in [0, 1], labels on the CPU.

    Raises:
        UserError: as many labels as pictures are not given.
    """
    return torch.cat(list(occlusion_parts(judge, images_BCHW, labels_B, side))).view(len(images_BCHW), side * side)


def occlusion_parts(judge: Judge, images_BCHW: Tensor, labels_B: Tensor, side: int) -> Iterator[Tensor]:
    """The same picture after picture, so many positions at a time as are judged together: (at most AT_ONCE,) each.

    Raises:
        UserError: as many labels as pictures are not given.
    """
    if len(images_BCHW) != len(labels_B):
        raise UserError(f"{len(labels_B)} labels for {len(images_BCHW)} pictures: give one for each")
    nothing = blurred(images_BCHW)
    whole_B = log_chances(judge, images_BCHW, labels_B)
    one_each_LL = torch.eye(side * side, dtype=torch.bool, device=images_BCHW.device)
    for image, blur, label, whole in zip(images_BCHW, nothing, labels_B, whole_B, strict=True):
        for chosen_NL in one_each_LL.split(AT_ONCE):
            count = len(chosen_NL)
            without = delete(image.expand(count, -1, -1, -1), chosen_NL, blur.expand(count, -1, -1, -1))
            yield whole - log_chances(judge, without, label.expand(count))


def rank_correlation(one_L: Tensor, other_L: Tensor) -> float | None:
    """Spearman's rank correlation, equals sharing their mean rank; None where one of the two is the same everywhere.

    Raises:
        UserError: they have not as many values.
    """
    if one_L.shape != other_L.shape:
        raise UserError(f"maps of {one_L.numel()} and {other_L.numel()} positions cannot be compared")
    ranks = torch.stack([_ranks(one_L), _ranks(other_L)])
    away = ranks - ranks.mean(1, keepdim=True)
    spread = away.square().sum(1).sqrt()
    return None if bool((spread == 0).any()) else float((away[0] * away[1]).sum() / spread.prod())


def _ranks(x_L: Tensor) -> Tensor:
    x_L = x_L.flatten().double()
    below_L = (x_L[None] < x_L[:, None]).sum(1)
    equal_L = (x_L[None] == x_L[:, None]).sum(1)
    return below_L + (equal_L - 1) / 2
