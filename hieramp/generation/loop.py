"""THE generation loop: a generator that yields each scale. The app, the export and the tests all use it.

Letters: B images asked for, U rows computed (images that agree so far share one), L positions, V codes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from hieramp.amplification.saliency import RowStrengths, class_token_saliency, guidance_saliency
from hieramp.amplification.settings import Amplification
from hieramp.generation.sampling import Sampling, filter_logits, guide, gumbel_noise, noise_keys, sample
from hieramp.var.model import VAR, Generation
from hieramp.vqvae.model import VQVAE


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
        groups = []
        for i, (label, seed, amp) in enumerate(zip(self.labels, self.seeds, self.amplifications, strict=True)):
            history = tuple(amp.at(s, var.scales) for s in range(scale + 1))
            depth = var.config.depth
            how = (amp.mode, amp.resolved_blocks(depth)) if any(history) else None
            groups.append(first.setdefault((label, seed, history, how, amp.read_block(depth)), i))
        return groups


@dataclass(frozen=True)
class Step:
    """One scale of all images."""

    scale: int
    tokens: Tensor  # (B, n²) int64
    logits: Tensor  # (B, n², V) guided, before top-k and top-p
    f_hat: Tensor  # (B, code_dim, N, N): the latent grid so far
    block_saliency: Tensor | None  # (B, blocks, heads, n, n), where details were asked for
    beliefs: Tensor | None  # (B, classes): the class token's own class logits, likewise
    read_saliency: Callable[[], Tensor] = field(repr=False)
    vqvae: VQVAE = field(repr=False)

    @cached_property
    def saliency(self) -> Tensor:
        """(B, n, n), sums to 1: the conditional half's, of the watched block; worked out when first looked at."""
        return self.read_saliency()

    @cached_property
    def image(self) -> Tensor:
        """The picture so far, (B, 3, H, W) in [0, 1]; decoded when first looked at."""
        return self.vqvae.to_images(self.f_hat)


@dataclass
class _Rows:
    """The rows in hand and which image each serves."""

    state: Generation
    f_hat: Tensor  # (U, code_dim, N, N)
    groups: list[int]  # per image, the first image of its row

    @property
    def firsts(self) -> list[int]:
        return sorted(set(self.groups))

    @property
    def of_image(self) -> list[int]:
        """Per image, the row that serves it."""
        row = {first: i for i, first in enumerate(self.firsts)}
        return [row[group] for group in self.groups]


@torch.no_grad()
def draw(vqvae: VQVAE, var: VAR, request: Request) -> Iterator[Step]:
    """Draw images scale by scale.

    Images that share label, seed and all settings up to a scale share one row until they part.
    Without guidance there is no unconditional half, except for a model without class tokens, whose
    saliency is made of it.
    """
    loop = _Loop(vqvae, var, request)
    for scale in range(len(var.scales)):
        yield loop.step(scale)


class _Loop:
    def __init__(self, vqvae: VQVAE, var: VAR, request: Request) -> None:
        self.vqvae, self.var, self.request = vqvae, var, request
        self.device = var.pos_start.device
        self.keys_B2 = noise_keys(request.labels, request.seeds, self.device)
        self.watched = var.config.watched_block
        self.has_class_tokens = bool(var.config.class_token_scales)
        self.halves = 2 if request.sampling.guidance > 0 or not self.has_class_tokens else 1
        max_rows = self.halves * len(set(request.agreeing(len(var.scales) - 1, var)))
        groups = request.agreeing(0, var)
        rows = _Rows(None, None, groups)  # type: ignore[arg-type]
        labels = torch.tensor([request.labels[i] for i in rows.firsts], device=self.device)
        both = torch.cat([labels, torch.full_like(labels, var.null_label)]) if self.halves == 2 else labels
        rows.state = var.begin(both, max_rows)
        side = vqvae.config.sides[-1]
        rows.f_hat = torch.zeros(len(labels), vqvae.config.code_dim, side, side, device=self.device)
        self.rows = rows

    def step(self, scale: int) -> Step:
        rows, request = self.rows, self.request
        if scale > 0:
            self._part(scale)
        firsts = rows.firsts
        hook = _Watcher(self, scale, [request.amplifications[i] for i in firsts])
        inputs = None
        if scale > 0:
            inputs = self.vqvae.quantize.next_input(scale, rows.f_hat).repeat(self.halves, 1, 1)
        guided, saliency, beliefs = self._logits(scale, inputs, hook)
        filtered = filter_logits(guided, request.sampling.top_k, request.sampling.top_p)
        noise = gumbel_noise(self.keys_B2[firsts], scale, *guided.shape[1:])
        tokens = sample(filtered, noise)
        rows.f_hat = rows.f_hat + self.vqvae.quantize.contribution(scale, tokens)
        image_rows, side = rows.of_image, self.var.scales.sides[scale]
        everything = torch.stack(hook.seen, 1)[image_rows].unflatten(-1, (side, side)) if hook.seen else None
        return Step(
            scale,
            tokens[image_rows],
            guided[image_rows],
            rows.f_hat[image_rows],
            everything,
            None if beliefs is None else beliefs[image_rows],
            lambda: saliency()[image_rows].unflatten(-1, (side, side)),
            self.vqvae,
        )

    def _part(self, scale: int) -> None:
        """Give images that part at this scale rows of their own."""
        rows = self.rows
        groups = self.request.agreeing(scale, self.var)
        if groups == rows.groups:
            return
        row_of_image, num_before = rows.of_image, len(rows.firsts)
        rows.groups = groups
        parents = torch.tensor([row_of_image[first] for first in rows.firsts], device=self.device)
        both = torch.cat([parents + half * num_before for half in range(self.halves)])
        rows.state.select(both, self.var.scales.spans[scale].start)
        rows.f_hat = rows.f_hat[parents]

    def _logits(
        self, scale: int, inputs: Tensor | None, hook: "_Watcher"
    ) -> tuple[Tensor, Callable[[], Tensor], Tensor | None]:
        """Guided logits, saliency (when asked for) and beliefs of the rows."""
        state, num_rows = self.rows.state, len(self.rows.firsts)
        details = self.request.details
        result = self.var.step(state, scale, inputs, hook, class_logits=details, keep_entry=hook.keep_entry)
        saliency = self._saliency(scale, result.logits_BLV, hook.saliency)
        if hook.saliency is None and hook.strengths.any:
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
        num_rows, num_positions = len(self.rows.firsts), logits_BLV.shape[1]
        if of_class_token is not None:
            return lambda: of_class_token[:num_rows]
        if self.halves == 2:
            return lambda: guidance_saliency(logits_BLV[:num_rows], logits_BLV[num_rows:])
        return lambda: torch.full((num_rows, num_positions), 1 / num_positions, device=self.device)


class _Watcher:
    """The hook of one scale: reads the saliency of each block and answers with the change of its keys.

    The watched block always gets a bias, zeros where nothing is amplified: "off" and strength 0 then run the
    very same arithmetic.
    """

    def __init__(self, loop: _Loop, scale: int, amplifications: Sequence[Amplification]) -> None:
        side = loop.var.scales.sides[scale]
        depth, halves = loop.var.config.depth, loop.halves
        self.watched, self.details = loop.watched, loop.request.details
        per_row = [amp.at(scale, loop.var.scales) for amp in amplifications]
        self.strengths = RowStrengths(
            per_row * halves, [a.mode for a in amplifications] * halves, side * side, loop.device
        )
        self.per_block: dict[int, RowStrengths] = {}
        active = {amp.resolved_blocks(depth) for amp, at in zip(amplifications, per_row, strict=True) if at}
        for block in {block for blocks in active for block in blocks}:
            here = [
                at if block in a.resolved_blocks(depth) else None for a, at in zip(amplifications, per_row, strict=True)
            ]
            modes = [a.mode for a in amplifications]
            self.per_block[block] = RowStrengths(here * halves, modes * halves, side * side, loop.device)
        self.read_R = [amp.read_block(depth) for amp in amplifications] * halves
        self.lowest_block = min([self.watched, *self.per_block])
        has_token = scale in loop.var.config.class_token_scales
        self.keep_entry = self.lowest_block if self.strengths.any and not has_token else None
        self.num_rows = len(amplifications)
        self.saliency: Tensor | None = None
        self.given: Tensor | None = None  # saliency from guidance, on the second pass
        self.seen: list[Tensor] = []

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
        if m_BL is None:
            return None
        if block in self.per_block:
            return self.per_block[block].change(m_BL)
        return (torch.zeros_like(m_BL), None) if block == self.watched else None

    def _report(self, block: int, m_BL: Tensor) -> None:
        """Keep the maps of the rows that are read at this block."""
        mine = [read == block for read in self.read_R]
        if self.saliency is None or all(mine):
            self.saliency = m_BL
        else:
            self.saliency = torch.where(torch.tensor(mine, device=m_BL.device)[:, None], m_BL, self.saliency)
