"""The maths of HierAmp: saliency maps, the salient positions, and what they do to the attention.

Free of models. m_BL: saliency over the L positions of a scale, one map per row, each summing to 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hieramp.amplification.settings import ScaleStrength
from hieramp.devices import to_device_async


class KeyBias(NamedTuple):
    """What amplification does to the K keys that a scale sees: adds to their logits, multiplies their weights.

    Keys other than the scale's own L positions get a bias of 0 and a factor of 1; factor None is 1 for all.
    """

    bias_BK: Tensor
    factor_BK: Tensor | None


def class_token_saliency(weights_BHL: Tensor) -> Tensor:
    """m_s: the class token's attention over the image keys, averaged over the heads (Algorithm 1, line 2)."""
    return weights_BHL.mean(dim=1)


def guidance_saliency(conditional_BLV: Tensor, unconditional_BLV: Tensor) -> Tensor:
    """Saliency without class tokens: how far the class moves the token distribution at each position.

    KL(conditional ‖ unconditional) in nats per position, normalised to sum to 1; uniform where nothing moves.
    """
    log_p, log_q = conditional_BLV.float().log_softmax(-1), unconditional_BLV.float().log_softmax(-1)
    divergence_BL = (log_p.exp() * (log_p - log_q)).sum(-1).clamp_min(0) + 1e-12
    return divergence_BL / divergence_BL.sum(-1, keepdim=True)


def num_salient(rho: float, num_positions: int) -> int:
    """k = max(1, floor(ρ·n²)) (Algorithm 1, line 3); the small term keeps 0.29·100 at 29."""
    return max(1, int(rho * num_positions + 1e-9))


def salient_positions(m_BL: Tensor, count_B: Tensor) -> Tensor:
    """a_s: True at the `count_B` largest positions of every row; of equals, the earlier one."""
    first_BL = torch.arange(m_BL.shape[1], device=m_BL.device) < count_B[:, None]
    return torch.empty_like(first_BL).scatter_(1, _descending(m_BL), first_BL)


def _descending(m_BL: Tensor) -> Tensor:
    """The positions of every row, the largest first; of equals, the earlier one first."""
    return m_BL.argsort(dim=-1, descending=True, stable=True)


def chosen_positions(saliency_BHW: Tensor, choice: ScaleStrength, random_BL: Tensor | None = None) -> Tensor:
    """Which positions `choice` means on these maps, (B, H, W) bool: those named by hand, else a share ρ of them.

    `random_BL`: the random numbers that random positions are ranked by.
    """
    strengths = BatchAmplification([choice], ["logit"], saliency_BHW[0].numel(), saliency_BHW.device)
    return strengths.chosen(saliency_BHW.flatten(1), random_BL).view_as(saliency_BHW)


class BatchAmplification:
    """Lines 3 and 4 of Algorithm 1 for a batch: rows may differ in ρ, strength and mode, all held as tensors.

    `before` and `after`: how many keys the scale sees besides its own L positions, on either side of them.
    """

    def __init__(
        self,
        strengths: Sequence[ScaleStrength | None],
        modes: Sequence[str],
        num_positions: int,
        device: torch.device,
        *,
        before: int = 0,
        after: int = 0,
    ) -> None:
        additive = [s.strength if s and mode == "logit" else 0.0 for s, mode in zip(strengths, modes, strict=True)]
        factors = [s.strength if s and mode == "attention" else 1.0 for s, mode in zip(strengths, modes, strict=True)]
        counts = [num_salient(s.rho, num_positions) if s and not s.positions else 0 for s in strengths]
        where = [s.where if s else "salient" for s in strengths]
        named = [s.positions if s else () for s in strengths]
        self.around = before, after
        beta_B1, count_B = np.array(additive, np.float32)[:, None], np.array(counts)
        self.beta_B1 = to_device_async(torch.from_numpy(beta_B1), device)
        self.gamma_B1 = (
            to_device_async(torch.tensor(factors)[:, None], device) if any(f != 1.0 for f in factors) else None
        )
        self.count_B = to_device_async(torch.from_numpy(count_B), device)
        # what is added at each rank; numpy, as a small drawing on a CPU spends its time on calls of torch
        boost_BL = np.where(np.arange(num_positions) < count_B[:, None], beta_B1, np.float32(0))
        self.boost_BL = to_device_async(torch.from_numpy(boost_BL), device)
        self.named_BL = to_device_async(_named(named, num_positions), device) if any(named) else None
        signs = [[-1.0 if w == "least" else 1.0] for w in where]
        self.sign_B1 = to_device_async(torch.tensor(signs), device) if "least" in where else None
        self.is_random_B1 = (
            to_device_async(torch.tensor([[w == "random"] for w in where]), device) if "random" in where else None
        )

    def _scores(self, m_BL: Tensor, random_BL: Tensor | None) -> Tensor:
        """What the positions are ranked by, the highest first."""
        if self.sign_B1 is not None:
            m_BL = m_BL * self.sign_B1
        if self.is_random_B1 is not None:
            assert random_BL is not None, "random positions need their random numbers"
            m_BL = torch.where(self.is_random_B1, random_BL, m_BL)
        return m_BL

    def chosen(self, m_BL: Tensor, random_BL: Tensor | None = None) -> Tensor:
        """a_s of every row, (B, L) bool; `random_BL` ranks random positions."""
        chosen_BL = salient_positions(self._scores(m_BL, random_BL), self.count_B.expand(len(m_BL)))
        return chosen_BL if self.named_BL is None else chosen_BL | self.named_BL

    def key_bias(self, m_BL: Tensor, random_BL: Tensor | None = None) -> KeyBias:
        """Bias β·a_s (line 4) or factor γ on a_s; rows that are off get zeros and ones."""
        before, after = self.around
        if self.named_BL is None and self.gamma_B1 is None:  # in one step
            rows, num_positions = m_BL.shape
            bias_BK = self.boost_BL.new_zeros(rows, before + num_positions + after)
            mine_BL = bias_BK.narrow(1, before, num_positions)
            mine_BL.scatter_(1, _descending(self._scores(m_BL, random_BL)), self.boost_BL)
            return KeyBias(bias_BK, None)
        chosen_BL = self.chosen(m_BL, random_BL)
        bias_BK = F.pad(self.beta_B1 * chosen_BL, self.around)
        if self.gamma_B1 is None:
            return KeyBias(bias_BK, None)
        return KeyBias(bias_BK, F.pad(torch.where(chosen_BL, self.gamma_B1, 1.0), self.around, value=1.0))

    def copy_(self, other: "BatchAmplification") -> None:
        """Take the values of as many rows that use the same modes and choose positions alike, in place."""
        for name, mine in vars(self).items():
            if isinstance(mine, Tensor):
                mine.copy_(getattr(other, name))

    def is_unambiguous(self, m_BL: Tensor, tolerance: float) -> Tensor:
        """Whether the same positions would be chosen from maps with a relative error of `tolerance`, (B,) bool."""
        last = m_BL.shape[1] - 1
        descending = self._scores(m_BL, torch.zeros_like(m_BL)).sort(dim=-1, descending=True).values
        chosen_B = descending.gather(1, (self.count_B - 1).clamp(0, last)[:, None])[:, 0]
        passed_B = descending.gather(1, self.count_B.clamp(0, last)[:, None])[:, 0]
        safe_B = (self.count_B == 0) | (self.count_B > last)
        if self.is_random_B1 is not None:
            safe_B = safe_B | self.is_random_B1[:, 0]
        return safe_B | (chosen_B - passed_B > tolerance * torch.maximum(chosen_B.abs(), passed_B.abs()))


def _named(positions_B: Sequence[tuple[int, ...]], num_positions: int) -> Tensor:
    """Rows of named positions as (B, L) bool."""
    named_BL = torch.zeros(len(positions_B), num_positions, dtype=torch.bool)
    for row, positions in enumerate(positions_B):
        named_BL[row, list(positions)] = True
    return named_BL
