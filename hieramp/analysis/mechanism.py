"""One token of a picture from the inside: where it looked, what β did to that, and which code it became.

HierAmp (arXiv 2603.06932), Algorithm 1, for a single position: the attention of its query before the change, the bias β
on the chosen keys, the attention after it; the distribution its code was drawn from; and what that code added to the
picture. Nothing here is a model of the drawing: the drawing is run again, scale by scale, on the tokens it drew, and
looked into.

Letters: L positions of a scale, K keys that they see, H heads, D head width, V codes, C code width, N codes asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor

from hieramp.amplification.settings import OFF, Amplification
from hieramp.errors import UserError
from hieramp.generation.loop import Request, draw
from hieramp.generation.model import Model
from hieramp.settings import Settings
from hieramp.var.model import VAR, Generation, ScaleLogits
from hieramp.vqvae.model import VQVAE

Side = Literal["baseline", "spared", "amplified"]
SIDES: tuple[Side, ...] = ("baseline", "spared", "amplified")
PATCH_CELLS = 3  # a patch is so many positions wide


@dataclass(frozen=True)
class AttentionRow:
    """What one position looks at in one block, in the half that is told the class.

    The keys are the image tokens of all scales so far, in their order, and last the class token where image tokens see
    it.
    """

    logits_HK: Tensor  # q·k, scaled
    bias_K: Tensor  # β on the chosen keys, 0 on all others
    factor_K: Tensor  # γ on the chosen keys, 1 on all others

    @property
    def before(self) -> Tensor:
        """The weights without the change, (H, K); each head's sum to 1."""
        return self.logits_HK.softmax(-1)

    @property
    def after(self) -> Tensor:
        """The weights that the drawing used, (H, K); γ leaves their sum as it becomes (docs/method.md)."""
        return (self.logits_HK + self.bias_K).softmax(-1) * self.factor_K

    @property
    def chosen(self) -> Tensor:
        """Which keys were changed, (K,) bool."""
        return (self.bias_K != 0) | (self.factor_K != 1)


@dataclass(frozen=True)
class Run:
    """One run of the transformer over a scale, as one row of a batch had it in one block."""

    queries_HLD: Tensor  # scaled
    keys_HKD: Tensor
    bias_K: Tensor
    factor_K: Tensor


@dataclass(frozen=True)
class DrawnScale:
    """One scale of one drawing."""

    tokens_L: Tensor
    filtered_LV: Tensor  # logits after guidance, top-k and top-p; -inf where a code is dropped
    noise_LV: Tensor  # times the temperature
    temperature: float
    f_hat: Tensor  # (C, n, n) at the finest side, this scale included
    runs: tuple[Run, ...]  # one for each pass over the scale
    pass_L: Tensor  # the pass that draws each position

    def row(self, position: int) -> AttentionRow:
        """The attention of a position in the run that drew it."""
        run = self.runs[int(self.pass_L[position])]
        logits_HK = (run.queries_HLD[:, position, None].float() * run.keys_HKD.float()).sum(-1)
        return AttentionRow(logits_HK, run.bias_K, run.factor_K)

    def probabilities(self, position: int) -> Tensor:
        """The distribution that the position's code was drawn from, (V,); at temperature 0 all of it on one code."""
        filtered_V = self.filtered_LV[position].float()
        if self.temperature == 0:
            return torch.nn.functional.one_hot(filtered_V.argmax(), len(filtered_V)).float()
        return (filtered_V / self.temperature).softmax(-1)

    def would_draw(self, position: int) -> int:
        """The code that these probabilities and the picture's own noise give (Gumbel-max)."""
        return int((self.filtered_LV[position] + self.noise_LV[position]).argmax())


@dataclass(frozen=True)
class Added:
    """What one code added to a picture, when it was drawn."""

    image: Tensor  # (3, H, W) in [0, 1]: the picture up to this scale
    without: Tensor  # (3, H, W): the same without this one code
    rms: float  # root of the mean squared difference over all pixels and channels, of 1


@dataclass(frozen=True)
class Mechanism:
    """One scale of a picture: plain, amplified, and amplified at all scales before but spared at this one.

    "spared" takes the amplified picture's tokens, so it differs from "amplified" in this scale's β alone. What it would
    have drawn is `would_draw`.
    """

    vqvae: VQVAE
    scale: int
    side: int  # n
    block: int
    is_amplified: bool  # this block at this scale
    sides: dict[Side, DrawnScale]

    def check(self, position: int) -> int:
        """The position. Raises UserError where the scale does not have it."""
        if not 0 <= position < self.side**2:
            raise UserError(
                f"position {position} does not exist: scale {self.scale} has positions 0 to {self.side**2 - 1}"
            )
        return position

    def likeliest(self, position: int, count: int = 10) -> list[int]:
        """The codes that are likeliest in either drawing, the likeliest in the amplified one first.

        The two that were drawn are always among them.
        """
        self.check(position)
        plain_V, amplified_V = (self.sides[side].probabilities(position) for side in ("baseline", "amplified"))
        drawn = {int(self.sides[side].tokens_L[position]) for side in ("baseline", "amplified")}
        ranked = torch.maximum(plain_V, amplified_V).argsort(descending=True, stable=True).tolist()
        others = [code for code in ranked if code not in drawn][: max(0, count - len(drawn))]
        return sorted([*drawn, *others], key=lambda code: (-float(amplified_V[code]), -float(plain_V[code]), code))

    def moved(self, position: int, before: Side, after: Side = "amplified") -> float:
        """How much of the probability lies elsewhere in `after` than in `before`: their total variation, 0 to 1."""
        self.check(position)
        one_V, other_V = self.sides[before].probabilities(position), self.sides[after].probabilities(position)
        return float((one_V - other_V).abs().sum() / 2)

    def box(self, position: int) -> tuple[int, int, int]:
        """Left, top and side in pixels of the square that shows a position with its neighbours; all of a small map."""
        self.check(position)
        size = self.vqvae.config.image_size
        wide = min(size, -(-PATCH_CELLS * size // self.side))
        y, x = divmod(position, self.side)
        left, top = (max(0, min(size - wide, round((at + 0.5) * size / self.side - wide / 2))) for at in (x, y))
        return left, top, wide

    @torch.no_grad()
    def patches(self, position: int, codes: Sequence[int], side: Side = "amplified") -> Tensor:
        """What each code would look like here, (N + 1, 3, h, w) in [0, 1]; the last one is without any.

        The picture up to this scale with one code exchanged, decoded, and cut out (`box`).
        """
        left, top, wide = self.box(position)
        drawn, quantize = self.sides[side], self.vqvae.quantize
        mine_LC = quantize.embedding(drawn.tokens_L)
        codes_NLC = mine_LC.repeat(len(codes) + 1, 1, 1)
        codes_NLC[:-1, position] = quantize.embedding(torch.as_tensor(list(codes), device=drawn.tokens_L.device))
        codes_NLC[-1, position] = 0
        rest = drawn.f_hat - quantize.spread(self.scale, mine_LC[None])[0]
        images = self.vqvae.to_images(rest + quantize.spread(self.scale, codes_NLC))
        return images[..., top : top + wide, left : left + wide]

    @torch.no_grad()
    def added(self, position: int, side: Side = "amplified") -> Added:
        """What the code drawn at a position added to the picture up to this scale."""
        self.check(position)
        drawn, quantize = self.sides[side], self.vqvae.quantize
        codes_2LC = quantize.embedding(drawn.tokens_L).repeat(2, 1, 1)
        codes_2LC[1, position] = 0
        both = quantize.spread(self.scale, codes_2LC)
        image, without = self.vqvae.to_images(torch.stack([drawn.f_hat, drawn.f_hat - both[0] + both[1]]))
        return Added(image, without, float((image - without).square().mean().sqrt()))


@dataclass(frozen=True)
class Looking:
    """A look on its way: a picture is drawn again up to the scale that is looked into."""

    done: int  # positions
    of: int
    found: Mechanism | None  # with the last one


class _Watched:
    """A VAR whose runs over one scale are looked into at one block, while they draw."""

    def __init__(self, var: VAR, scale: int, block: int) -> None:
        self.var, self.scale, self.block = var, scale, block
        self.runs: list[tuple[Tensor, Tensor, Any]] = []  # queries, keys and the change of them, by pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self.var, name)

    def step(
        self, state: Generation, scale: int, inputs_BLC: Tensor | None, hook: Any = None, **how: Any
    ) -> ScaleLogits:
        """As `VAR.step`, whose arguments these are."""
        is_seen = scale == self.scale and self.block >= how.get("first_block", 0)
        kept = how.get("keep_entry")
        if not is_seen:
            return self.var.step(state, scale, inputs_BLC, hook, **how)
        out = self.var.step(state, scale, inputs_BLC, hook, **{**how, "keep_entry": self.block})
        assert out.entry_BTC is not None, "the block runs, so its entry was kept"
        self._look(state, out.entry_BTC, hook, is_first=how.get("again") is None)
        if kept in (None, self.block):
            return out
        return self.var.step(state, scale, inputs_BLC, hook, **how)  # the caller wants another block's entry

    def _look(self, state: Generation, entry_BTC: Tensor, hook: Any, is_first: bool) -> None:
        var, config, span = self.var, self.var.config, self.var.scales.spans[self.scale]
        block, conditions = var.blocks[self.block], state.conditions
        x_BLC = block.attention_input(entry_BTC[:, : span.stop - span.start], conditions.modulations[self.block])
        queries_BHLD = block.attn.queries(x_BLC, conditions.qkv_params[self.block])
        shows_token = self.scale in config.class_token_scales and not config.read_only_class_tokens
        keys_BHKD = state.cache.keys_NBHTD[self.block, : len(x_BLC), :, : span.stop + shows_token].clone()
        if is_first:  # without class tokens the upper blocks run twice before anything is drawn: the second time counts
            self.runs.clear()
        self.runs.append((queries_BHLD, keys_BHKD, getattr(hook, "key_biases", {}).get(self.block)))

    def of_row(self, row: int) -> tuple[Run, ...]:
        """Of one row of the batch."""
        found = []
        for queries, keys, change in self.runs:
            plain_K = torch.zeros(keys.shape[2], device=keys.device)
            bias_K = plain_K if change is None else change.bias_BK[row].float()
            factor = None if change is None else change.factor_BK
            found.append(Run(queries[row], keys[row], bias_K, plain_K + 1 if factor is None else factor[row].float()))
        return tuple(found)


def look(
    model: Model,
    label: int,
    seed: int,
    settings: Settings,
    scale: int,
    block: int | None = None,
    tokens: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
) -> Mechanism:
    """Look into one scale of a picture that `model` draws, at one block (None: the one whose saliency is reported).

    `tokens` are those of the plain and of the amplified picture, where they are known, per scale (L,): the picture is
    then not drawn first. What is found is what these very pictures were drawn by, but for float rounding.

    Raises:
        UserError: a label, scale or block that the model does not have.
    """
    *_, last = looking(model, label, seed, settings, scale, block, tokens)
    assert last.found is not None
    return last.found


def looking(
    model: Model,
    label: int,
    seed: int,
    settings: Settings,
    scale: int,
    block: int | None = None,
    tokens: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None,
) -> Iterator[Looking]:
    """As `look`, telling after every scale how far it is; what is found comes with the last.

    Raises:
        UserError: as `look`, when the first is asked for.
    """
    wanted = _checked(model, label, settings, scale, block)
    scales, depth, amplification = model.var.scales, model.depth, settings.amplification
    if tokens is None:
        drawing = model.generate([label] * 2, [seed] * 2, [settings.plain, settings])
        tokens = tuple(tuple(of_scale[row] for of_scale in drawing.tokens) for row in (0, 1))  # type: ignore[assignment]
    assert tokens is not None
    plain, amplified = (tuple(tuple(of_scale.tolist()) for of_scale in mine[: scale + 1]) for mine in tokens)
    request = Request(
        (label,) * len(SIDES),
        (seed,) * len(SIDES),
        (OFF, _spared(amplification, scale, len(scales)), amplification),
        settings.sampling,
        prefix_tokens=(plain, amplified, amplified),
    )
    watched = _Watched(model.var, scale, wanted)
    of = scales.spans[scale].stop
    for step in draw(model.vqvae, cast(VAR, watched), request):
        if step.scale == scale:
            break
        yield Looking(scales.spans[step.scale].stop, of, None)
    result, passes = step.rows.result, model.var.passes(scale)
    pass_L = model.var.pass_N if passes else torch.zeros(step.side**2, dtype=torch.long)
    temperature = settings.sampling.temperature_at(scale, scales)
    found = {
        side: DrawnScale(
            result.tokens[row],
            result.filtered[row],
            result.noise[row],
            temperature,
            result.f_hat[row],
            watched.of_row(row),
            pass_L,
        )
        for side, row in zip(SIDES, step.row_of_image, strict=True)
    }
    is_amplified = amplification.at(scale, scales) is not None and wanted in amplification.resolved_blocks(depth)
    yield Looking(of, of, Mechanism(model.vqvae, scale, step.side, wanted, is_amplified, found))


def _checked(model: Model, label: int, settings: Settings, scale: int, block: int | None) -> int:
    """The block to look into. Raises UserError where the model does not have what is asked for."""
    if not isinstance(model, Model):
        raise UserError(f"{model.name} is no VAR: it has no tokens to look into")
    model.check(settings)
    if not 0 <= label < len(model.class_names):
        raise UserError(f"label {label} does not exist: {model.name} has labels 0 to {len(model.class_names) - 1}")
    scales, depth = model.var.scales, model.depth
    if not 0 <= scale < len(scales):
        raise UserError(f"scale {scale} does not exist: {model.name} has scales 0 to {len(scales) - 1}")
    wanted = settings.amplification.read_block(depth) if block is None else block
    if not 0 <= wanted < depth:
        raise UserError(f"block {wanted} does not exist: {model.name} has blocks 0 to {depth - 1}")
    return wanted


def _spared(amplification: Amplification, scale: int, num_scales: int) -> Amplification:
    """The same amplification but for one scale."""
    others = tuple(s for s in amplification.scales or range(num_scales) if s != scale)
    return replace(amplification, scales=others) if others else OFF
