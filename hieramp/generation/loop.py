"""THE generation loop: a generator that yields each scale. The app, the export and the tests all use it.

Letters: B images asked for, U rows computed (images that agree so far share one), L positions, V codes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Protocol

import torch
from torch import Tensor

from hieramp.amplification.saliency import chosen_positions
from hieramp.amplification.settings import Amplification
from hieramp.devices import sent
from hieramp.generation.captured import Board, Captured
from hieramp.generation.sampling import Sampling, chance, clear_draws, noise_keys
from hieramp.generation.scale import Drawn, Plan, draw_scale
from hieramp.var.model import VAR, Generation
from hieramp.vqvae.model import VQVAE

# Closer than this, float32 may take one code for another, of logits before guidance. On the default model the gap of
# the first two codes erred by 2e-6 · (1 + 2t) rms and ten times that at most (96 images against float64); the error
# has to exceed tolerance and gap.
LOGIT_ERROR = 1.5e-5

Given = tuple[tuple[int, ...], ...]  # tokens of the first scales of one image, scale by scale


@dataclass(frozen=True)
class Request:
    """What to draw: one entry per image."""

    labels: tuple[int, ...]
    seeds: tuple[int, ...]
    amplifications: tuple[Amplification, ...]
    sampling: Sampling
    details: bool = False  # the saliency of every block and head, and the class tokens' beliefs, as well
    given: tuple[Given, ...] = ()  # not drawn but taken from here; as many scales for every image

    def agreeing(self, scale: int, var: VAR) -> list[int]:
        """For every image the first one that agrees with it in everything up to and including `scale`."""
        first: dict[object, int] = {}
        return [first.setdefault(key, i) for i, key in enumerate(self.histories(scale, var))]

    def histories(self, scale: int, var: VAR) -> list[object]:
        """Per image, all that it depends on up to and including `scale`, next to the sampling."""
        depth = var.config.depth
        keys: list[object] = []
        per_image = zip(
            self.labels, self.seeds, self.amplifications, self.given or ((),) * len(self.labels), strict=True
        )
        for label, seed, amp, given in per_image:
            history = tuple(amp.at(s, var.scales) for s in range(scale + 1))
            how = (amp.mode, amp.resolved_blocks(depth)) if any(history) else None
            keys.append((label, seed, history, how, amp.read_block(depth), given[: scale + 1]))
        return keys


@dataclass(frozen=True)
class _Rows:
    """One scale of the rows that were computed."""

    drawn: Drawn
    clear: Callable[[], Tensor]  # (U,) bool
    chance: Callable[[], Tensor]  # (U, L): what random positions are ranked by
    images: Callable[[], Tensor]  # (U, 3, H, W); decoded once


def _picked(x: Tensor, rows: Sequence[int]) -> Tensor:
    """These rows; the same tensor where it is all of them in order."""
    return x if list(rows) == list(range(len(x))) else x[sent(torch.tensor(rows), x.device)]


@dataclass(frozen=True)
class Step:
    """One scale of all images; what is dear is worked out when first looked at."""

    scale: int
    side: int  # n
    _rows: _Rows = field(repr=False)
    _row_of_image: list[int] = field(repr=False)
    _vqvae: VQVAE = field(repr=False)

    @cached_property
    def tokens(self) -> Tensor:
        """(B, n²) int64."""
        return _picked(self._rows.drawn.tokens, self._row_of_image)

    @cached_property
    def image(self) -> Tensor:
        """The picture so far, (B, 3, H, W) in [0, 1]."""
        return _picked(self._rows.images(), self._row_of_image)

    @cached_property
    def saliency(self) -> Tensor:
        """(B, n, n), sums to 1: the conditional half's, of the block that is amplified (depth - 2 by default)."""
        m_BL = _picked(self._rows.drawn.saliency(), self._row_of_image)
        return m_BL.unflatten(-1, (self.side, self.side))

    def chosen(self, amplification: Amplification) -> Tensor | None:
        """Which positions `amplification` means on these images, (B, n, n) bool; None at a scale it leaves alone."""
        choice = amplification.choice_at(self.scale, self._vqvae.config.scales)
        if choice is None:
            return None
        chance_BL = _picked(self._rows.chance(), self._row_of_image) if choice.where == "random" else None
        return chosen_positions(self.saliency, choice, chance_BL)

    @cached_property
    def logits(self) -> Tensor:
        """(B, n², V) after guidance, before top-k and top-p."""
        return _picked(self._rows.drawn.logits, self._row_of_image)

    @cached_property
    def block_saliency(self) -> Tensor | None:
        """(B, blocks, heads, n, n), where details were asked for and the scale has a class token."""
        weights = self._rows.drawn.weights
        if weights is None:
            return None
        return _picked(weights, self._row_of_image).unflatten(-1, (self.side, self.side))

    @cached_property
    def beliefs(self) -> Tensor | None:
        """(B, classes): the class token's own class logits, likewise."""
        beliefs = self._rows.drawn.beliefs
        return None if beliefs is None else _picked(beliefs, self._row_of_image)

    @cached_property
    def class_probabilities(self) -> Tensor | None:
        """(B, classes): the same as probabilities."""
        return None if self.beliefs is None else self.beliefs.softmax(-1)

    @cached_property
    def clear(self) -> Tensor:
        """(B,) bool: no token and no salient position of this scale was so close that rounding could turn it.

        Float32 arithmetic rounds differently at another batch size, thread count or machine.
        """
        return _picked(self._rows.clear(), self._row_of_image)


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
        rows = [step._rows.drawn for step in self.steps]
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
def draw(
    vqvae: VQVAE, var: VAR, request: Request, memory: Memory | None = None, captured: Captured | None = None
) -> Iterator[Step]:
    """Draw images scale by scale.

    Images that share label, seed and all settings up to a scale share one row until they part.
    Without guidance there is no unconditional half, except for a model without class tokens, whose
    saliency is made of it. With a memory, scales that an earlier drawing shares are not computed again.
    With `captured`, the scales are replayed where they can be: the same computation with fewer launches.
    """
    if memory is None:
        with _board(captured, vqvae, var, request) as board:
            loop = _Loop(vqvae, var, request, board)
            for scale in range(len(var.scales)):
                yield loop.step(scale)
        return
    loop = _Loop(vqvae, var, request)
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


def _num_halves(var: VAR, request: Request) -> int:
    """2 with an unconditional half: for guidance, or for a saliency that is made of it or read there."""
    reads_conditional = var.config.class_token_scales and not var.config.own_class_tokens
    return 1 if request.sampling.guidance == 0 and reads_conditional else 2


@contextmanager
def _board(captured: Captured | None, vqvae: VQVAE, var: VAR, request: Request) -> Iterator[Board | None]:
    """A board for this drawing; None where it has to be drawn plainly.

    That is where images share rows until they part, where details are asked for or tokens given, where images are read
    at different blocks, and where another drawing has not ended yet.
    """
    blocks = {amp.read_block(var.config.depth) for amp in request.amplifications}
    alike = len(set(zip(request.labels, request.seeds, strict=True))) < len(request.labels)
    if captured is None or request.details or request.given or alike or len(blocks) > 1:
        yield None
    else:
        with captured.lent(vqvae, var, len(request.labels), _num_halves(var, request)) as board:
            yield board


class _Loop:
    """The rows in hand: `groups` names for every image the first image that its row serves."""

    def __init__(self, vqvae: VQVAE, var: VAR, request: Request, board: Board | None = None) -> None:
        self.vqvae, self.var, self.request, self.board = vqvae, var, request, board
        self.device = var.pos_start.device
        self.keys_B2 = noise_keys(request.labels, request.seeds, self.device)
        self.halves = _num_halves(var, request)
        self.groups = request.agreeing(0, var)
        # where no two images agree at first, none ever will
        self.never_parts = len(set(self.groups)) == len(self.groups)
        labels = sent(torch.tensor([request.labels[i] for i in self.firsts]), self.device)
        if board is not None:
            board.begin(labels, self.keys_B2)
            return
        both = torch.cat([labels, torch.full_like(labels, var.null_label)]) if self.halves == 2 else labels
        last_groups = self.groups if self.never_parts else request.agreeing(len(var.scales) - 1, var)
        self.state = var.begin(both, max_rows=self.halves * len(set(last_groups)))
        side = vqvae.config.sides[-1]
        self.f_hat = torch.zeros(len(labels), vqvae.config.code_dim, side, side, device=self.device)

    def go_on_from(self, past: Past) -> list[Step]:
        """Take the place where a drawing that began alike stood; returns its steps so far, for these images."""
        count, sources = past.sources(self.request, self.var)
        if not count:
            return []
        self.groups = self.request.agreeing(count - 1, self.var)
        rows = sent(torch.tensor([past.row_of_image[sources[first]] for first in self.firsts]), self.device)
        num_before = len(past.state.conditions.class_BC) // self.halves
        both = torch.cat([rows + half * num_before for half in range(self.halves)])
        self.state.take(past.state, both, self.var.scales.spans[count - 1].stop)
        steps = []
        for step in past.steps[:count]:
            steps.append(replace(step, _row_of_image=[step._row_of_image[source] for source in sources]))
        latest = steps[-1]
        self.f_hat = _picked(latest._rows.drawn.f_hat, [latest._row_of_image[first] for first in self.firsts])
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
        how = self.request.sampling
        if self.board is None:
            self._part(scale)
        given_UL = self._given(scale)
        amplifications = tuple(self.request.amplifications[i] for i in self.firsts)
        plan = Plan(self.var, scale, self.halves, how, self.request.details, amplifications)
        keys_U2 = _picked(self.keys_B2, self.firsts)
        if self.board is None:
            drawn = draw_scale(self.vqvae, self.var, plan, self.state, self.f_hat, keys_U2, given_UL)
            self.f_hat = drawn.f_hat
        else:
            drawn = self.board.draw(plan)

        def clear() -> Tensor:
            if given_UL is not None:
                return plan.clear(drawn)
            tolerance = LOGIT_ERROR * (1 + 2 * plan.guidance)
            return plan.clear(drawn) & clear_draws(drawn.logits, drawn.filtered, drawn.noise, how, tolerance)

        ranks = partial(chance, keys_U2, scale, plan.num_positions)
        rows = _Rows(drawn, clear, ranks, cache(partial(self.vqvae.to_images, drawn.f_hat)))
        return Step(scale, self.var.scales.sides[scale], rows, self.row_of_image, self.vqvae)

    def _part(self, scale: int) -> None:
        """Give images that part at this scale rows of their own."""
        if self.never_parts:
            return
        groups = self.request.agreeing(scale, self.var)
        if groups == self.groups:
            return
        row_of_image, num_before = self.row_of_image, len(self.firsts)
        self.groups = groups
        parents = sent(torch.tensor([row_of_image[first] for first in self.firsts]), self.device)
        both = torch.cat([parents + half * num_before for half in range(self.halves)])
        self.state.select(both, self.var.scales.spans[scale].start)
        self.f_hat = self.f_hat[parents]

    def _given(self, scale: int) -> Tensor | None:
        """The tokens that the rows must take at this scale, (U, n²); None where they are drawn."""
        given = self.request.given
        if not given or scale >= len(given[0]):
            return None
        return sent(torch.tensor([given[first][scale] for first in self.firsts]), self.device)
