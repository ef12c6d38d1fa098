"""The nearest real image of every image of a set, in whatever space."""

from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 2000  # real images compared at a time
CANDIDATES = 4  # of each chunk, measured exactly


@dataclass(frozen=True)
class Nearest:
    """For each image of a set."""

    index: Tensor  # int64 (N,): of the nearest real image
    distance: Tensor  # float (N,): root mean square over the coordinates


def nearest(points: Tensor, real: Tensor) -> Nearest:
    """The nearest of M real points (M, …) to each of N, by root mean square difference; uint8 is brought to [0, 1].

    The product form |a|² - 2ab + |b|² is quick but loses the small distances that are looked for: it names a few
    candidates, whose differences are then taken.

    Raises:
        ValueError: there is no real point.
    """
    if not len(real):
        raise ValueError("there are no real images to compare with")
    points_NF = _flat(points)
    index_N = torch.zeros(len(points_NF), dtype=torch.long)
    best_N = torch.full((len(points_NF),), float("inf"))
    for start in range(0, len(real), CHUNK):
        real_MF = _flat(real[start : start + CHUNK])
        rough_NM = torch.addmm(real_MF.square().sum(1), points_NF, real_MF.T, alpha=-2)
        for candidate_N in rough_NM.topk(min(CANDIDATES, len(real_MF)), largest=False).indices.unbind(1):
            exact_N = (points_NF - real_MF[candidate_N]).square().mean(1).sqrt()
            index_N = torch.where(exact_N < best_N, candidate_N + start, index_N)
            best_N = torch.minimum(best_N, exact_N)
    return Nearest(index_N, best_N)


def _flat(points: Tensor) -> Tensor:
    return points.flatten(1).float() / 255 if points.dtype == torch.uint8 else points.flatten(1).float()
