"""THE generation loop: a generator that yields each scale. The app, the export and the tests all use it.

Letters: B images asked for, U rows computed (images that agree so far share one), L positions, V codes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Protocol

import torch
from torch import Tensor

from hieramp.amplification.saliency import RowStrengths, chosen_positions, class_token_saliency, guidance_saliency
from hieramp.amplification.settings import Amplification
from hieramp.generation.sampling import Sampling, clear_draws, filter_logits, guide, gumbel_noise, noise_keys, sample
from hieramp.var.model import VAR, Generation
from hieramp.vqvae.model import VQVAE

# Closer than this, float32 may take one code or position for another: of logits before guidance, and relative of
# saliencies. On the default model the gap of the first two codes erred by 2e-6 · (1 + 2t) rms and ten times that
# at most, a saliency by 8e-6 at most (96 images against float64); the error has to exceed tolerance and gap.
LOGIT_ERROR = 1.5e-5
SALIENCY_ERROR = 2e-5


@dataclass(frozen=True)
class Request:
    """What to draw: one entry per image."""

    labels: tuple[int, ...]
    seeds: tuple[int, ...]
    amplifications: tuple[Amplification, ...]
    sampling: Sampling
    details: bool = False  # the saliency of every block and head, and the class tokens' beliefs, as well

    def agreeing(self, scale: int, var: VAR) -> list[int]:
        """For every image the first one that agrees with it in everything up to and including `scale`."""
        first: dict[object, int] = {}
        return [first.setdefault(key, i) for i, key in enumerate(self.histories(scale, var))]

    def histories(self, scale: int, var: VAR) -> list[object]:
        """Per image, all that it depends on up to and including `scale`, next to the sampling."""
        depth = var.config.depth
        keys: list[object] = []
        for label, seed, amp in zip(self.labels, self.seeds, self.amplifications, strict=True):
            history = tuple(amp.at(s, var.scales) for s in range(scale + 1))
            how = (amp.mode, amp.resolved_blocks(depth)) if any(history) else None
            keys.append((label, seed, history, how, amp.read_block(depth)))
        return keys


@dataclass(frozen=True)
class _RowResult:
    """One scale of the rows that were computed."""

    tokens: Tensor  # (U, n²) int64
    logits: Tensor  # (U, n², V)
    f_hat: Tensor  # (U, code_dim, N, N)
    saliency: Callable[[], Tensor]  # (U, n²)
    weights: Tensor | None  # (U, blocks, heads, n²)
    beliefs: Tensor | None  # (U, classes)
    clear: Callable[[], Tensor]  # (U,) bool
    images: Callable[[], Tensor]  # (U, 3, H, W); decoded once


@dataclass(frozen=True)
class Step:
    """One scale of all images; what is dear is worked out when first looked at."""

    scale: int
    side: int  # n
    _rows: _RowResult = field(repr=False)
    _row_of_image: list[int] = field(repr=False)
    _vqvae: VQVAE = field(repr=False)

    @cached_property
    def tokens(self) -> Tensor:
        """(B, n²) int64."""
        return self._rows.tokens[self._row_of_image]

    @cached_property
    def image(self) -> Tensor:
        """The picture so far, (B, 3, H, W) in [0, 1]."""
        return self._rows.images()[self._row_of_image]

    @cached_property
    def saliency(self) -> Tensor:
        """(B, n, n), sums to 1: the conditional half's, of the block that is amplified (depth - 2 by default)."""
        return self._rows.saliency()[self._row_of_image].unflatten(-1, (self.side, self.side))

    def chosen(self, amplification: Amplification) -> Tensor | None:
        """Which positions `amplification` means on these images, (B, n, n) bool; None at a scale it leaves alone."""
        choice = amplification.choice_at(self.scale, self._vqvae.config.scales)
        return None if choice is None else chosen_positions(self.saliency, choice)

    @cached_property
    def logits(self) -> Tensor:
        """(B, n², V) after guidance, before top-k and top-p."""
        return self._rows.logits[self._row_of_image]

    @cached_property
    def block_saliency(self) -> Tensor | None:
        """(B, blocks, heads, n, n), where details were asked for and the scale has a class token."""
        weights = self._rows.weights
        return None if weights is None else weights[self._row_of_image].unflatten(-1, (self.side, self.side))

    @cached_property
    def beliefs(self) -> Tensor | None:
        """(B, classes): the class token's own class logits, likewise."""
        return None if self._rows.beliefs is None else self._rows.beliefs[self._row_of_image]

    @cached_property
    def class_probabilities(self) -> Tensor | None:
        """(B, classes): the same as probabilities."""
        return None if self.beliefs is None else self.beliefs.softmax(-1)

    @cached_property
    def clear(self) -> Tensor:
        """(B,) bool: no token and no salient position of this scale was so close that rounding could turn it.

        Float32 arithmetic rounds differently at another batch size, thread count or machine.
        """
        return self._rows.clear()[self._row_of_image]


@dataclass(frozen=True)
class Past:
    """A drawing as far as it came. Another one may go on from where the two part, without changing it."""

    request: Request
    steps: tuple[Step, ...]
    state: Generation
    row_of_image: tuple[int, ...]  # in the state

    @property
    def num_bytes(self) -> int:
        """What it keeps in memory, nearly: the cache, logits and noise, pictures."""
        cache, pixels = self.state.cache, 3 * self.steps[0]._vqvae.config.image_size ** 2
        rows = [step._rows for step in self.steps]
        dear = sum(2 * row.logits.nbytes + row.f_hat.nbytes + 4 * pixels * len(row.tokens) for row in rows)
        return cache.keys_NBHTD.nbytes + cache.values_NBHTD.nbytes + dear

    def sources(self, request: Request, var: VAR) -> tuple[int, list[int]]:
        """How many scales `request` shares with this drawing, and for each of its images the one to go on from."""
        if (request.sampling, request.details) != (self.request.sampling, self.request.details):
            return 0, []
        for scale in reversed(range(len(self.steps))):
            mine = {key: j for j, key in enumerate(self.request.histories(scale, var))}
            wanted = request.histories(scale, var)
            if all(key in mine for key in wanted):
                return scale + 1, [mine[key] for key in wanted]
        return 0, []


class Memory(Protocol):
    """Keeps drawings for others to go on from: `hieramp.generation.memory.RecentDrawings`."""

    def best(self, request: Request, var: VAR) -> Past | None: ...

    def keep(self, past: Past, var: VAR) -> None: ...


@torch.no_grad()
def draw(vqvae: VQVAE, var: VAR, request: Request, memory: Memory | None = None) -> Iterator[Step]:
    """Draw images scale by scale.

    Images that share label, seed and all settings up to a scale share one row until they part.
    Without guidance there is no unconditional half, except for a model without class tokens, whose
    saliency is made of it. With a memory, scales that an earlier drawing shares are not computed again.
    """
    loop = _Loop(vqvae, var, request)
    if memory is None:
        for scale in range(len(var.scales)):
            yield loop.step(scale)
        return
    past = memory.best(request, var)
    steps = loop.go_on_from(past) if past else []
    try:
        yield from tuple(steps)
        for scale in range(len(steps), len(var.scales)):
            steps.append(loop.step(scale))
            yield steps[-1]
    finally:
        if steps:
            memory.keep(Past(request, tuple(steps), loop.state, tuple(loop.row_of_image)), var)


class _Loop:
    """The rows in hand: `groups` names for every image the first image that its row serves."""

    def __init__(self, vqvae: VQVAE, var: VAR, request: Request) -> None:
        self.vqvae, self.var, self.request = vqvae, var, request
        self.device = var.pos_start.device
        self.keys_B2 = noise_keys(request.labels, request.seeds, self.device)
        self.halves = 2 if request.sampling.guidance > 0 or not var.config.class_token_scales else 1
        self.groups = request.agreeing(0, var)
        labels = torch.tensor([request.labels[i] for i in self.firsts], device=self.device)
        both = torch.cat([labels, torch.full_like(labels, var.null_label)]) if self.halves == 2 else labels
        last_groups = request.agreeing(len(var.scales) - 1, var)
        self.state = var.begin(both, max_rows=self.halves * len(set(last_groups)))
        side = vqvae.config.sides[-1]
        self.f_hat = torch.zeros(len(labels), vqvae.config.code_dim, side, side, device=self.device)

    def go_on_from(self, past: Past) -> list[Step]:
        """Take the place where a drawing that began alike stood; returns its steps so far, for these images."""
        count, sources = past.sources(self.request, self.var)
        if not count:
            return []
        self.groups = self.request.agreeing(count - 1, self.var)
        rows = torch.tensor([past.row_of_image[sources[first]] for first in self.firsts], device=self.device)
        num_before = len(past.state.class_BC) // self.halves
        both = torch.cat([rows + half * num_before for half in range(self.halves)])
        self.state.take(past.state, both, self.var.scales.spans[count - 1].stop)
        steps = []
        for step in past.steps[:count]:
            steps.append(replace(step, _row_of_image=[step._row_of_image[source] for source in sources]))
        latest = steps[-1]
        self.f_hat = latest._rows.f_hat[[latest._row_of_image[first] for first in self.firsts]]
        return steps

    @property
    def firsts(self) -> list[int]:
        """Per row, the first image that it serves."""
        return sorted(set(self.groups))

    @property
    def row_of_image(self) -> list[int]:
        row = {first: i for i, first in enumerate(self.firsts)}
        return [row[group] for group in self.groups]

    def step(self, scale: int) -> Step:
        self._part(scale)
        sampling = self.request.sampling
        hook = _Watcher(self, scale, [self.request.amplifications[i] for i in self.firsts])
        logits, saliency, beliefs = self._logits(scale, hook)
        noise = gumbel_noise(self.keys_B2[self.firsts], scale, *logits.shape[1:])
        filtered = filter_logits(logits, sampling.top_k, sampling.top_p)
        tokens = sample(filtered, noise)

        def clear() -> Tensor:
            t = sampling.guidance_at(scale, len(self.var.scales)) if self.halves == 2 else 0.0
            return hook.clear() & clear_draws(logits, filtered, noise, sampling, LOGIT_ERROR * (1 + 2 * t))

        self.f_hat = self.f_hat + self.vqvae.quantize.contribution(scale, tokens)
        weights = torch.stack(hook.seen, 1) if hook.seen else None
        images = cache(partial(self.vqvae.to_images, self.f_hat))
        result = _RowResult(tokens, logits, self.f_hat, saliency, weights, beliefs, clear, images)
        return Step(scale, self.var.scales.sides[scale], result, self.row_of_image, self.vqvae)

    def _part(self, scale: int) -> None:
        """Give images that part at this scale rows of their own."""
        groups = self.request.agreeing(scale, self.var)
        if groups == self.groups:
            return
        row_of_image, num_before = self.row_of_image, len(self.firsts)
        self.groups = groups
        parents = torch.tensor([row_of_image[first] for first in self.firsts], device=self.device)
        both = torch.cat([parents + half * num_before for half in range(self.halves)])
        self.state.select(both, self.var.scales.spans[scale].start)
        self.f_hat = self.f_hat[parents]

    def _inputs(self, scale: int) -> Tensor | None:
        if scale == 0:
            return None
        return self.vqvae.quantize.next_input(scale, self.f_hat).repeat(self.halves, 1, 1)

    def _logits(self, scale: int, hook: "_Watcher") -> tuple[Tensor, Callable[[], Tensor], Tensor | None]:
        """Guided logits, saliency (when asked for) and beliefs of the rows."""
        state, num_rows, details = self.state, len(self.firsts), self.request.details
        inputs = self._inputs(scale)
        result = self.var.step(state, scale, inputs, hook, class_logits=details, keep_entry=hook.keep_entry)
        saliency = self._saliency(scale, result.logits_BLV, hook.saliency)
        if hook.keep_entry is not None:
            # no class token: the guidance of a first pass tells what to amplify in a second one
            hook.given = saliency().repeat(self.halves, 1)
            result = self.var.step(
                state, scale, inputs, hook, first_block=hook.lowest_block, entry_BTC=result.entry_BTC
            )
        logits = result.logits_BLV
        if self.halves == 2:
            t = self.request.sampling.guidance_at(scale, len(self.var.scales))
            logits = guide(logits[:num_rows], logits[num_rows:], t)
        beliefs = result.class_logits_BK
        return logits, saliency, None if beliefs is None else beliefs[:num_rows]

    def _saliency(self, scale: int, logits_BLV: Tensor, of_class_token: Tensor | None) -> Callable[[], Tensor]:
        """The class token's map, else what guidance tells, else nothing: every position alike."""
        num_rows, num_positions = len(self.firsts), logits_BLV.shape[1]
        if of_class_token is not None:
            return lambda: of_class_token[:num_rows]
        if self.halves == 2:
            return lambda: guidance_saliency(logits_BLV[:num_rows], logits_BLV[num_rows:])
        return lambda: torch.full((num_rows, num_positions), 1 / num_positions, device=self.device)


class _Watcher:
    """The hook of one scale: reads the saliency of each block and answers with the change of its keys.

    A strength that changes nothing is none at all here: "off" and strength 0 run the very same arithmetic.
    """

    def __init__(self, loop: _Loop, scale: int, amplifications: Sequence[Amplification]) -> None:
        config, halves = loop.var.config, loop.halves
        depth, num_positions = config.depth, loop.var.scales.sides[scale] ** 2
        self.device = loop.device
        self.watched, self.details = config.watched_block, loop.request.details
        per_row = [amp.at(scale, loop.var.scales) for amp in amplifications]
        modes = [amp.mode for amp in amplifications]
        blocks_R = [amp.resolved_blocks(depth) if at else () for amp, at in zip(amplifications, per_row, strict=True)]
        self.per_block: dict[int, RowStrengths] = {}
        for block in {block for blocks in blocks_R for block in blocks}:
            here = [at if block in blocks else None for at, blocks in zip(per_row, blocks_R, strict=True)]
            self.per_block[block] = RowStrengths(here * halves, modes * halves, num_positions, loop.device)
        self.read_R = [amp.read_block(depth) for amp in amplifications] * halves
        self.lowest_block = min([self.watched, *self.per_block])
        # without a class token the blocks from here on run twice
        self.keep_entry = self.lowest_block if self.per_block and scale not in config.class_token_scales else None
        self.num_rows = len(amplifications)
        self.saliency: Tensor | None = None
        self.given: Tensor | None = None  # saliency from guidance, on the second pass
        self.seen: list[Tensor] = []
        self.chosen_from: list[tuple[RowStrengths, Tensor]] = []

    def clear(self) -> Tensor:
        """Per image row, whether no salient position was in doubt in either half."""
        clear_R = torch.ones(len(self.read_R), dtype=torch.bool, device=self.device)
        for strengths, m_BL in self.chosen_from:
            clear_R = clear_R & strengths.clear(m_BL, SALIENCY_ERROR)
        return clear_R.view(-1, self.num_rows).all(0)

    def reads(self, block: int) -> bool:
        return self.details or block == self.watched or block in self.per_block or block in self.read_R

    def __call__(self, block: int, weights_BHL: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
        m_BL = self.given
        if weights_BHL is not None:
            m_BL = class_token_saliency(weights_BHL)
            if self.details:
                self.seen.append(weights_BHL[: self.num_rows])
            if block in self.read_R:
                self._report(block, m_BL)
        if m_BL is None or block not in self.per_block:
            return None
        self.chosen_from.append((self.per_block[block], m_BL))
        return self.per_block[block].change(m_BL)

    def _report(self, block: int, m_BL: Tensor) -> None:
        """Keep the maps of the rows that are read at this block."""
        mine = [read == block for read in self.read_R]
        if self.saliency is None or all(mine):
            self.saliency = m_BL
        else:
            self.saliency = torch.where(torch.tensor(mine, device=m_BL.device)[:, None], m_BL, self.saliency)
