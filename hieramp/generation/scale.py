"""What is computed at one scale, from the state of the rows to their tokens: nothing here waits for the device.

Letters: U rows computed, B = U or 2·U rows of both halves (conditional, then unconditional), L positions, V codes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from hieramp.amplification.saliency import RowStrengths, class_token_saliency, guidance_saliency
from hieramp.amplification.settings import Amplification, ScaleStrength
from hieramp.devices import sent
from hieramp.generation.sampling import Sampling, chance, filter_logits, guide, gumbel_noise, sample
from hieramp.var.attention import Change
from hieramp.var.model import VAR, Generation
from hieramp.var.passes import knowing
from hieramp.vqvae.model import VQVAE

# Closer than this, float32 may choose another position, relative to the saliency: on the default model a saliency
# erred by 8e-6 at most (96 images against float64).
SALIENCY_ERROR = 2e-5


class Drawn(NamedTuple):
    """One scale of the rows that were computed."""

    tokens: Tensor  # (U, L) int64
    logits: Tensor  # (U, L, V) after guidance
    filtered: Tensor  # (U, L, V) after top-k and top-p
    noise: Tensor  # (U, L, V), times the temperature
    f_hat: Tensor  # (U, code_dim, N, N)
    weights: Tensor | None  # (U, blocks, heads, L), with details
    beliefs: Tensor | None  # (U, classes), with details
    class_saliency: Tensor | None  # (B, L), where there is a class token
    both_logits: Tensor | None  # (B, L, V) before guidance, where the saliency is made of it
    chosen_from: tuple[Tensor, ...]  # (B, L): the maps whose largest positions were amplified, by block

    def saliency(self) -> Tensor:
        """The conditional half's map, (U, L)."""
        num_rows = len(self.tokens)
        if self.class_saliency is not None:
            return self.class_saliency[:num_rows]
        if self.both_logits is not None:
            return guidance_saliency(self.both_logits[:num_rows], self.both_logits[num_rows:])
        return _all_alike(self.logits)


def _all_alike(logits_ULV: Tensor) -> Tensor:
    """The map where neither a class token nor guidance tells positions apart, (U, L)."""
    return torch.full(logits_ULV.shape[:2], 1 / logits_ULV.shape[1], device=logits_ULV.device)


@dataclass(frozen=True)
class Plan:
    """What one scale of some rows is drawn with; as tensors once they are asked for."""

    var: VAR
    scale: int
    halves: int  # 2 with an unconditional half
    sampling: Sampling
    details: bool
    amplifications: tuple[Amplification, ...]  # (U,)

    @property
    def num_positions(self) -> int:
        return self.var.scales.sides[self.scale] ** 2

    @property
    def guidance(self) -> float:
        """t of `guide`; 0 without an unconditional half."""
        return self.sampling.guidance_at(self.scale, len(self.var.scales)) if self.halves == 2 else 0.0

    @property
    def temperature(self) -> float:
        """Of the draw, by the stage."""
        return self.sampling.temperature_at(self.scale, self.var.scales)

    @cached_property
    def settings(self) -> dict[int, tuple[ScaleStrength | None, ...]]:
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
    def strengths(self) -> dict[int, RowStrengths]:
        """The same of both halves, as tensors."""
        modes, device = [amp.mode for amp in self.amplifications] * self.halves, self.var.pos_start.device
        config = self.var.config
        before = self.var.scales.spans[self.scale].start
        # the class token, where image tokens see it
        after = int(self.scale in config.class_token_scales and not config.read_only_class_tokens)
        return {
            block: RowStrengths(rows * self.halves, modes, self.num_positions, device, before=before, after=after)
            for block, rows in self.settings.items()
        }

    @property
    def takes_chances(self) -> bool:
        """Whether some row amplifies random positions here."""
        return any(at is not None and at.where == "random" for rows in self.settings.values() for at in rows)

    @cached_property
    def read(self) -> list[int]:
        """Per row the block whose map is reported."""
        return [amp.read_block(self.var.config.depth) for amp in self.amplifications]

    @cached_property
    def read_masks(self) -> dict[int, Tensor | None]:
        """For each of these blocks, which rows of both halves it is; None for all of them."""
        blocks = sorted(set(self.read))
        if len(blocks) == 1:
            return {blocks[0]: None}
        device = self.var.pos_start.device
        return {b: sent(torch.tensor([[mine == b] for mine in self.read] * self.halves), device) for b in blocks}

    def clear(self, drawn: Drawn) -> Tensor:
        """Per row, whether no salient position was in doubt in either half, (U,) bool."""
        clear_B = torch.ones(len(self.amplifications) * self.halves, dtype=torch.bool, device=drawn.tokens.device)
        for strengths, m_BL in zip(self.strengths.values(), drawn.chosen_from, strict=False):
            clear_B = clear_B & strengths.clear(m_BL, SALIENCY_ERROR)
        return clear_B.view(self.halves, -1).all(0)


class _Look:
    """The hook of one scale: reads the saliency of each block and answers with the change of its keys.

    A strength that changes nothing is none at all here: "off" and strength 0 run the very same arithmetic.
    """

    def __init__(self, plan: Plan, chance_BL: Tensor | None) -> None:
        config = plan.var.config
        self.plan, self.strengths, self.num_rows = plan, plan.strengths, len(plan.amplifications)
        self.chance_BL = chance_BL
        self.read_at = {*plan.read, *plan.settings, config.watched_block}
        self.lowest_block = min([config.watched_block, *self.strengths])
        # without a class token the blocks from here on run twice
        without_token = plan.scale not in config.class_token_scales
        self.keep_entry = self.lowest_block if self.strengths and without_token else None
        self.saliency: Tensor | None = None
        self.given: Tensor | None = None  # saliency from guidance, on the second pass
        self.seen: list[Tensor] = []
        self.chosen_from: list[Tensor] = []
        self.changes: dict[int, Change] = {}  # what was answered, by block

    def reads(self, block: int) -> bool:
        return self.plan.details or block in self.read_at

    def __call__(self, block: int, weights_BHL: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
        m_BL = self.given
        if weights_BHL is not None:
            if self.plan.var.config.own_class_tokens:
                # the unconditional half's for both, where there is one: a token that sees the label need not look
                weights_BHL = weights_BHL[-self.num_rows :].repeat(self.plan.halves, 1, 1)
            m_BL = class_token_saliency(weights_BHL)
            if self.plan.details:
                self.seen.append(weights_BHL[: self.num_rows])
            if block in self.plan.read_masks:
                mask, before = self.plan.read_masks[block], self.saliency
                self.saliency = m_BL if mask is None or before is None else torch.where(mask, m_BL, before)
        if m_BL is None or block not in self.strengths:
            return None
        self.chosen_from.append(m_BL)
        self.changes[block] = self.strengths[block].change(m_BL, self.chance_BL)
        return self.changes[block]


class _Same:
    """The hook of the later passes over a scale: what the first one changed, whatever would be salient now."""

    def __init__(self, changes: dict[int, Change]) -> None:
        self.changes = changes

    def reads(self, block: int) -> bool:
        return block in self.changes

    def __call__(self, block: int, weights_BHL: Tensor | None) -> Change | None:
        return self.changes[block]


class _Picked(NamedTuple):
    """Tokens and what they were drawn from, at all positions of a scale or at those of one pass."""

    tokens: Tensor  # (U, L)
    logits: Tensor  # (U, L, V)
    filtered: Tensor  # (U, L, V)


def _pick(plan: Plan, both_BLV: Tensor, noise_ULV: Tensor, given_UL: Tensor | None) -> _Picked:
    """Draw from the logits of both halves."""
    num_rows = len(noise_ULV)
    logits = guide(both_BLV[:num_rows], both_BLV[num_rows:], plan.guidance) if plan.halves == 2 else both_BLV
    filtered = filter_logits(logits, plan.sampling.top_k, plan.sampling.top_p)
    return _Picked(sample(filtered, noise_ULV) if given_UL is None else given_UL, logits, filtered)


def _pick_in_turn(
    plan: Plan,
    order: tuple[Tensor, ...],
    first_BLV: Tensor,
    noise_ULV: Tensor,
    given_UL: Tensor | None,
    later: Callable[[int, Tensor, Tensor], Tensor],
) -> _Picked:
    """Draw the positions of each pass: the first from its logits, the others from what `later` makes of the tokens."""
    picks, tokens_UL = [], torch.zeros_like(noise_ULV[..., 0], dtype=torch.long)
    for number, at in enumerate(order):
        both = later(number, at, tokens_UL) if number else first_BLV[:, at]
        picks.append(_pick(plan, both, noise_ULV[:, at], None if given_UL is None else given_UL[:, at]))
        tokens_UL = tokens_UL.index_copy(1, at, picks[-1].tokens)
    back_L = torch.cat(order).argsort()
    return _Picked(*(torch.cat(parts, dim=1)[:, back_L] for parts in zip(*picks, strict=True)))


def draw_scale(
    vqvae: VQVAE,
    var: VAR,
    plan: Plan,
    state: Generation,
    f_hat: Tensor,
    keys_U2: Tensor,
    given_UL: Tensor | None = None,
) -> Drawn:
    """Draw one scale: `state` and `f_hat` (U, code_dim, N, N) of the scales before; `keys_U2` from `noise_keys`.

    Tokens that are given are taken instead of drawn. Where the model draws the scale in several passes, the saliency is
    the first one's, when nothing of the scale is known, and what it amplifies is amplified in all of them.
    """
    scale, num_rows = plan.scale, len(keys_U2)
    chance_UL = chance(keys_U2, scale, plan.num_positions) if plan.takes_chances else None
    hook = _Look(plan, None if chance_UL is None else chance_UL.repeat(plan.halves, 1))
    inputs = None if scale == 0 else vqvae.quantize.next_input(scale, f_hat).repeat(plan.halves, 1, 1)
    result = var.step(state, scale, inputs, hook, class_logits=plan.details, keep_entry=hook.keep_entry)
    beliefs, both = result.class_logits_BK, result.logits_BLV
    untold = both if hook.saliency is None and plan.halves == 2 else None
    if hook.keep_entry is not None:
        # no class token: the guidance of a first pass tells what to amplify in a second one
        halves = both[:num_rows], both[num_rows:]
        m_UL = guidance_saliency(*halves) if plan.halves == 2 else _all_alike(both)
        hook.given = m_UL.repeat(plan.halves, 1)
        both = var.step(
            state, scale, inputs, hook, first_block=hook.lowest_block, entry_BTC=result.entry_BTC
        ).logits_BLV
    noise = gumbel_noise(keys_U2, scale, *both.shape[1:])
    if plan.temperature != 1:
        noise = noise * plan.temperature

    def later_logits(number: int, at: Tensor, tokens_UL: Tensor) -> Tensor:
        """The logits of a later pass, at its positions, from the tokens so far."""
        assert inputs is not None, "the last scale is not the first"
        codes, known = vqvae.quantize.unit_codes(tokens_UL), (var.pass_N < number).expand_as(tokens_UL)
        told = knowing(inputs[:num_rows], codes, known).repeat(plan.halves, 1, 1)
        return var.step(state, scale, told, _Same(hook.changes), again=at).logits_BLV

    order = var.passes(scale)
    picked = (
        _pick_in_turn(plan, order, both, noise, given_UL, later_logits) if order else _pick(plan, both, noise, given_UL)
    )
    return Drawn(
        **picked._asdict(),
        noise=noise,
        f_hat=f_hat + vqvae.quantize.contribution(scale, picked.tokens),
        weights=torch.stack(hook.seen, 1) if hook.seen else None,
        # of the half whose map it is
        beliefs=None if beliefs is None else beliefs[-num_rows:] if var.config.own_class_tokens else beliefs[:num_rows],
        class_saliency=hook.saliency,
        both_logits=untold,
        chosen_from=tuple(hook.chosen_from),
    )
