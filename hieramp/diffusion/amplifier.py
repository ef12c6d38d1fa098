"""HierAmp in the sampler: reads the two halves of guidance at every step, and amplifies the attention in the next."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from hieramp.amplification.output import OutputChange, RunningMap, guidance_difference
from hieramp.amplification.settings import Amplification, ScaleStrength
from hieramp.diffusion.levels import Level
from hieramp.diffusion.noise import chances
from hieramp.diffusion.sampler import Denoiser, Prediction


def strength_at(amplification: Amplification, level: Level) -> ScaleStrength | None:
    """What a setting does at a noise level, by its stage; None where that changes nothing."""
    stage = getattr(amplification, level.stage)
    if stage is None or stage[1] == 0:
        return None
    rho, strength = stage
    return ScaleStrength(rho, strength, where=amplification.where)


class Amplifier:
    """One setting per row; rows that are off multiply by exactly 1. Also keeps the map for those who only look."""

    def __init__(
        self,
        denoiser: Denoiser,
        labels: Sequence[int],
        seeds: Sequence[int],
        amplifications: Sequence[Amplification],
        watch: bool = False,
    ) -> None:
        self.labels, self.seeds, self.amplifications = labels, seeds, amplifications
        self.depth, self.side, self.device = denoiser.depth, denoiser.token_side, denoiser.device
        self.needs_unconditional = watch or any(not amplification.is_off for amplification in amplifications)
        self.map = RunningMap()
        self.chosen: Tensor | None = None  # (B, T) bool: what the step in hand amplifies
        self.changes: dict[str, OutputChange | None] = {}  # by stage

    def factors(self, index: int, level: Level) -> dict[int, Tensor] | None:
        ranks_BT = self.map.ranks()
        if level.stage not in self.changes:
            settings = self._settings(level)
            self.changes[level.stage] = OutputChange(settings, self.side**2, self.device) if settings else None
        change, self.chosen = self.changes[level.stage], None
        if ranks_BT is None or change is None:
            return None
        chance = partial(chances, self.labels, self.seeds, index, self.side**2, self.device)
        factors = change.factors(ranks_BT, chance)
        self.chosen = torch.stack([factor != 1 for factor in factors.values()]).any(0)
        return factors

    def see(self, index: int, level: Level, conditional: Prediction, unconditional: Prediction | None) -> None:
        if unconditional is None:
            return
        difference = guidance_difference(conditional.velocity, unconditional.velocity)
        if difference.shape[-1] != self.side:  # a token of several positions of the latent
            difference = torch.nn.functional.adaptive_avg_pool2d(difference, self.side)
        self.map.add(difference)

    def _settings(self, level: Level) -> dict[int, list[ScaleStrength | None]]:
        """For each block that is amplified at this level, what every row does there."""
        per_row = [strength_at(amplification, level) for amplification in self.amplifications]
        blocks = [
            amplification.resolved_blocks(self.depth) if strength else ()
            for amplification, strength in zip(self.amplifications, per_row, strict=True)
        ]
        return {
            block: [at if block in mine else None for at, mine in zip(per_row, blocks, strict=True)]
            for block in sorted({block for mine in blocks for block in mine})
        }
