"""One scale of the rows being computed: its settings, the hooks that amplify it, and its result.

Letters: U rows computed, B = U or (with classifier-free guidance) 2·U rows, conditional then unconditional,
L positions, V codes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from hieramp.amplification.saliency import BatchAmplification, KeyBias, class_token_saliency, guidance_saliency
from hieramp.amplification.settings import Amplification, ScaleStrength
from hieramp.devices import to_device_async
from hieramp.generation.sampling import Sampling, random_scores
from hieramp.var.model import VAR


@dataclass(frozen=True)
class ScaleSettings:
    """What one scale of some rows is drawn with; its tensors are made when first asked for."""

    var: VAR
    scale: int
    use_cfg: bool  # with an unconditional half
    sampling: Sampling
    return_attention: bool
    amplifications: tuple[Amplification, ...]  # (U,)

    @property
    def num_positions(self) -> int:
        """L = n²."""
        return self.var.scales.sides[self.scale] ** 2

    @property
    def guidance(self) -> float:
        """t of `guide`; 0 without an unconditional half."""
        return self.sampling.guidance_at(self.scale, len(self.var.scales)) if self.use_cfg else 0.0

    @property
    def temperature(self) -> float:
        return self.sampling.temperature_at(self.scale, self.var.scales)

    def cfg_rows(self, x: Tensor) -> Tensor:
        """(U, …) to (B, …): the same for the conditional and the unconditional half."""
        return x.repeat(1 + self.use_cfg, *[1] * (x.dim() - 1))

    @cached_property
    def strengths(self) -> dict[int, tuple[ScaleStrength | None, ...]]:
        """For each block that is amplified here, what each row does there."""
        depth = self.var.config.depth
        per_row = [amp.at(self.scale, self.var.scales) for amp in self.amplifications]
        blocks = [
            amp.resolved_blocks(depth) if at else () for amp, at in zip(self.amplifications, per_row, strict=True)
        ]
        return {
            block: tuple(at if block in mine else None for at, mine in zip(per_row, blocks, strict=True))
            for block in sorted({block for mine in blocks for block in mine})
        }

    @cached_property
    def amplified(self) -> dict[int, BatchAmplification]:
        """The same of all B rows, as tensors."""
        num_halves, device, config = 1 + self.use_cfg, self.var.pos_start.device, self.var.config
        modes = [amp.mode for amp in self.amplifications] * num_halves
        before = self.var.scales.spans[self.scale].start
        # the class token, where image tokens see it
        after = int(self.scale in config.class_token_scales and not config.read_only_class_tokens)
        return {
            block: BatchAmplification(rows * num_halves, modes, self.num_positions, device, before=before, after=after)
            for block, rows in self.strengths.items()
        }

    def random_scores(self, keys_U2: Tensor) -> Tensor | None:
        """What random positions are ranked by, (B, L); None where no row amplifies any."""
        if not any(at is not None and at.where == "random" for rows in self.strengths.values() for at in rows):
            return None
        return self.cfg_rows(random_scores(keys_U2, self.scale, self.num_positions))

    @cached_property
    def saliency_blocks(self) -> list[int]:
        """Per row the block whose saliency is reported."""
        return [amp.read_block(self.var.config.depth) for amp in self.amplifications]

    @cached_property
    def saliency_masks(self) -> dict[int, Tensor | None]:
        """For each of these blocks the rows that it is reported for, (B, 1) bool; None for all of them."""
        blocks = sorted(set(self.saliency_blocks))
        if len(blocks) == 1:
            return {blocks[0]: None}
        device, rows = self.var.pos_start.device, self.saliency_blocks * (1 + self.use_cfg)
        return {block: to_device_async(torch.tensor([[mine == block] for mine in rows]), device) for block in blocks}


class ScaleResult(NamedTuple):
    """One scale of the rows that were computed."""

    tokens: Tensor  # (U, L) int64
    logits: Tensor  # (U, L, V) after guidance
    filtered: Tensor  # (U, L, V) after top-k and top-p, -inf where a code is dropped
    noise: Tensor  # (U, L, V), times the temperature
    f_hat: Tensor  # (U, code_dim, N, N), this scale included
    attention: Tensor | None  # (U, blocks, heads, L): the class token's, where it is to be returned
    class_logits: Tensor | None  # (U, classes): the class token's, likewise
    class_saliency: Tensor | None  # (B, L), where there is a class token
    cfg_logits: Tensor | None  # (B, L, V) before guidance, where the saliency is made of it
    ranked_maps: tuple[Tensor, ...]  # for each amplified block the map whose top positions were amplified, (B, L)

    def saliency(self) -> Tensor:
        """m_s of the conditional half, (U, L)."""
        num_rows = len(self.tokens)
        if self.class_saliency is not None:
            return self.class_saliency[:num_rows]
        return saliency_without_class_token(self.logits, self.cfg_logits)


def saliency_without_class_token(logits_ULV: Tensor, cfg_logits_BLV: Tensor | None) -> Tensor:
    """m_s where no class token looks at the scale, (U, L): from guidance, and uniform where there is none."""
    num_rows = len(logits_ULV)
    if cfg_logits_BLV is not None:
        return guidance_saliency(cfg_logits_BLV[:num_rows], cfg_logits_BLV[num_rows:])
    return torch.full(logits_ULV.shape[:2], 1 / logits_ULV.shape[1], device=logits_ULV.device)


class AmplifyHook:
    """Algorithm 1 inside the attention of one scale: reads the saliency of a block and answers with its key bias.

    A strength that changes nothing counts as none: "off" and strength 0 run the very same arithmetic.
    """

    def __init__(self, settings: ScaleSettings, keys_U2: Tensor) -> None:
        watched = settings.var.config.watched_block
        self.settings, self.amplified = settings, settings.amplified
        self.random_BL = settings.random_scores(keys_U2)
        self.read_blocks = {*settings.saliency_blocks, *self.amplified, watched}
        self.first_block = min([watched, *self.amplified])
        # without a class token a scale's saliency is known after a first run alone: the blocks from here on run twice
        without_token = settings.scale not in settings.var.config.class_token_scales
        self.rerun_from = self.first_block if self.amplified and without_token else None
        self.saliency_BL: Tensor | None = None  # of a class token, as reported
        self.known_BL: Tensor | None = None  # without one, in the second run: the saliency that the first one gave
        self.attention: list[Tensor] = []
        self.ranked_maps: list[Tensor] = []
        self.key_biases: dict[int, KeyBias] = {}  # what was answered, by block

    def reads(self, block: int) -> bool:
        return self.settings.return_attention or block in self.read_blocks

    def __call__(self, block: int, weights_BHL: Tensor | None) -> KeyBias | None:
        m_BL = self.known_BL
        if weights_BHL is not None:
            if self.settings.var.config.own_class_tokens:  # the unconditional half's for both: it cannot see the label
                weights_BHL = self.settings.cfg_rows(weights_BHL[-len(self.settings.amplifications) :])
            m_BL = class_token_saliency(weights_BHL)
            self._report(block, weights_BHL, m_BL)
        if m_BL is None or block not in self.amplified:
            return None
        self.ranked_maps.append(m_BL)
        self.key_biases[block] = self.amplified[block].key_bias(m_BL, self.random_BL)
        return self.key_biases[block]

    def _report(self, block: int, weights_BHL: Tensor, m_BL: Tensor) -> None:
        if self.settings.return_attention:
            self.attention.append(weights_BHL[: len(self.settings.amplifications)])
        if block in self.settings.saliency_masks:
            mask, before = self.settings.saliency_masks[block], self.saliency_BL
            self.saliency_BL = m_BL if mask is None or before is None else torch.where(mask, m_BL, before)


class ReplayHook:
    """The hook of later passes over a scale: the key biases of the first one, whatever would be salient now."""

    def __init__(self, key_biases: dict[int, KeyBias]) -> None:
        self.key_biases = key_biases

    def reads(self, block: int) -> bool:
        return block in self.key_biases

    def __call__(self, block: int, weights_BHL: Tensor | None) -> KeyBias | None:
        return self.key_biases[block]
