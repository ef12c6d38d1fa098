"""HierAmp in the sampler: reads the two halves of guidance at every step, and amplifies the attention in the next."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from hieramp.amplification.output import OutputChange, RunningMap, guidance_difference
from hieramp.amplification.settings import CLASS_TOKEN, Amplification, ScaleStrength
from hieramp.diffusion.class_token import DiTClassToken
from hieramp.diffusion.levels import NoiseLevel
from hieramp.diffusion.noise import chances
from hieramp.diffusion.sampler import Denoiser, Prediction, Watch


def strength_at(amplification: Amplification, level: NoiseLevel) -> ScaleStrength | None:
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
        class_token: DiTClassToken | None = None,
    ) -> None:
        """`class_token` is needed where an amplification takes its map from one; `watch` also where all are off."""
        self.labels, self.seeds, self.amplifications = labels, seeds, amplifications
        self.depth, self.side, self.device = denoiser.depth, denoiser.token_side, denoiser.device
        self.needs_unconditional = watch or any(not amplification.is_off for amplification in amplifications)
        by_token = [amplification.map_from == CLASS_TOKEN for amplification in amplifications]
        self.class_token = class_token if any(by_token) else None
        self.is_token_B = torch.tensor(by_token, device=self.device)
        self.looked_BT: Tensor | None = None  # what the class token saw in the step in hand
        self.map = RunningMap()
        self.chosen: Tensor | None = None  # (B, T) bool: what the step in hand amplifies
        self.changes: dict[str, OutputChange | None] = {}  # by stage

    def factors(self, index: int, level: NoiseLevel) -> dict[int, Tensor] | None:
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

    def watching(self, level: NoiseLevel) -> Watch | None:
        return None if self.class_token is None else partial(self._look, level)

    def _look(self, level: NoiseLevel, block: int, x_BTD: Tensor) -> None:
        assert self.class_token is not None
        if block == self.class_token.config.class_token_block:
            rows = len(self.labels)
            t_B = torch.full((rows,), level.t, device=x_BTD.device)
            self.looked_BT = self.class_token(x_BTD[-rows:], t_B).map()

    def see(self, index: int, level: NoiseLevel, conditional: Prediction, unconditional: Prediction | None) -> None:
        if unconditional is None:
            return
        difference = guidance_difference(conditional.velocity, unconditional.velocity)
        if difference.shape[-1] != self.side:  # a token of several positions of the latent
            difference = torch.nn.functional.adaptive_avg_pool2d(difference, self.side)
        if self.class_token is not None and self.looked_BT is not None:
            looked = self.looked_BT.unflatten(1, (self.side, self.side))
            difference = torch.where(self.is_token_B[:, None, None], looked, difference)
        self.map.add(difference)

    def _settings(self, level: NoiseLevel) -> dict[int, list[ScaleStrength | None]]:
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
