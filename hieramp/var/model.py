"""The VAR transformer: a class and all earlier scales to the token logits of the next scale.

Names of parameters follow the official checkpoints. Letters: B rows, L image tokens, V codes, C width, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.config import VARConfig
from hieramp.var.attention import AttentionHook, QKVParams, SelfAttention
from hieramp.var.block import Block, HeadModulation, HeadNorm, Modulation
from hieramp.var.cache import KVCache
from hieramp.var.class_tokens import ClassTokenAttention, Reading
from hieramp.var.passes import pass_of_position


class TeacherForced(NamedTuple):
    """What a pass over given tokens yields."""

    logits_BLV: Tensor
    class_logits_BSK: Tensor | None  # per class token, from the shared class head
    weights_BHSL: Tensor | None  # attention of the class tokens in the watched block, if asked for


class ScaleLogits(NamedTuple):
    """What one step of generation yields."""

    logits_BLV: Tensor
    class_logits_BK: Tensor | None
    entry_BTC: Tensor | None  # tokens as they enter the block asked for


class Conditions(NamedTuple):
    """What a generation makes of its classes and of the weights, once for all scales."""

    class_BC: Tensor
    modulations: tuple[Modulation, ...]  # per block
    head: HeadModulation
    qkv_params: tuple[QKVParams, ...]  # per block

    def select(self, rows: Tensor) -> "Conditions":
        modulations = tuple(modulation.select(rows) for modulation in self.modulations)
        return Conditions(self.class_BC[rows], modulations, self.head.select(rows), self.qkv_params)


@dataclass
class Generation:
    """The state of a generation."""

    cache: KVCache
    conditions: Conditions

    def select(self, rows: Tensor, filled: int) -> None:
        """Row i goes on as a copy of row `rows[i]`."""
        self.take(self, rows, filled)

    def take(self, other: "Generation", rows: Tensor, filled: int) -> None:
        """Row i becomes a copy of row `rows[i]` of another generation, for the first `filled` positions."""
        self.cache.take(other.cache, rows, filled)
        self.conditions = other.conditions.select(rows)


class SharedAdaLin(nn.Linear):
    def forward(self, class_BC: Tensor) -> Tensor:
        return super().forward(class_BC)[:, None].unflatten(-1, (6, -1))


class VAR(nn.Module):
    """Visual autoregressive transformer (arXiv 2404.02905) with optional class tokens (HierAmp, Eq. 4-6)."""

    level_L: Tensor
    mask_TT: Tensor
    pass_N: Tensor  # the pass that draws each position of the last scale
    by_pass_N: Tensor  # its positions in the order in which they are drawn

    def __init__(self, config: VARConfig) -> None:
        super().__init__()
        self.config, self.scales = config, config.scales
        width, std = config.width, (1 / config.width / 3) ** 0.5
        self.word_embed = nn.Linear(config.input_dim, width)
        self.class_emb = nn.Embedding(config.num_classes + 1, width)
        self.pos_start = nn.Parameter(torch.randn(1, 1, width) * std)
        self.pos_1LC = nn.Parameter(torch.randn(1, self.scales.num_tokens, width) * std)
        self.lvl_embed = nn.Embedding(len(self.scales), width)
        if config.shared_adaln:
            shared = nn.Sequential(nn.SiLU(), SharedAdaLin(width, 6 * width))
            self.shared_ada_lin: nn.Module = shared
        blocks = [Block(config, i) for i in range(config.depth)]
        self.blocks: Sequence[Block] = nn.ModuleList(blocks)  # type: ignore[assignment]
        if config.class_token_scales:
            token_width = config.own_width if config.own_class_tokens else width
            tokens = {str(s): nn.Parameter(torch.randn(1, 1, token_width) * std) for s in config.class_token_scales}
            self.cls_tokens = nn.ParameterDict(tokens)
            self.class_head = nn.Linear(token_width, config.num_classes)
        if config.class_token_scales and config.own_class_tokens:
            attention = ClassTokenAttention(width, config.own_width, config.num_heads, config.sides)
            self.cls_attn = nn.ModuleDict({str(config.watched_block): attention})
        self.head_nm = HeadNorm(config)
        self.head = nn.Linear(width, config.num_codes)
        level_L = torch.cat([torch.full((side * side,), s) for s, side in enumerate(self.scales.sides)])
        self.register_buffer("level_L", level_L, persistent=False)
        self.register_buffer("mask_TT", self._mask(), persistent=False)
        for scale, mask_TK in self._step_masks().items():
            self.register_buffer(f"step_mask_{scale}", mask_TK, persistent=False)
        order = pass_of_position(self.scales.sides[-1], config.last_passes)
        self.pass_sizes = [order.count(number) for number in range(config.last_passes)]
        self.register_buffer("pass_N", torch.tensor(order), persistent=False)
        by_pass = sorted(range(len(order)), key=order.__getitem__)
        self.register_buffer("by_pass_N", torch.tensor(by_pass), persistent=False)

    @property
    def null_label(self) -> int:
        """The label of "no class", for guidance."""
        return self.config.num_classes

    def initialize(self) -> None:
        """Starting weights for training.

        Branches start at zero behind a gain of one (their last matrices are zero), and the head close to
        uniform. VAR itself starts with gains of 1e-5, which a short run spends its first part on undoing.
        """
        std = (1 / self.config.width / 3) ** 0.5
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.trunc_normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        self.head.weight.data.mul_(0.02)
        for block in self.blocks:
            nn.init.zeros_(block.attn.proj.weight)
            nn.init.zeros_(block.ffn.fc2.weight)
            gains = block.ada_gss if block.shared else block.ada_lin.get_parameter("1.bias")
            gains.data.view(6, -1)[:2] = 1.0

    def _mask(self) -> Tensor:
        """Additive (T, T) mask over the image tokens and, behind them, the class tokens.

        Image tokens see their own and earlier scales and, unless read-only, the class token of their scale;
        a class token sees its scale's image tokens and itself.
        """
        class_scales = torch.tensor(self.config.class_token_scales, dtype=torch.long)
        scale_T = torch.cat([self.level_L, class_scales])
        is_class_T = torch.arange(len(scale_T)) >= len(self.level_L)
        same, earlier = scale_T[:, None] == scale_T, scale_T[:, None] > scale_T
        readable = torch.zeros_like(is_class_T) if self.config.read_only_class_tokens else is_class_T
        image_row = (~is_class_T & (same | earlier)) | (readable & same)
        allowed = torch.where(is_class_T[:, None], same, image_row)
        return torch.zeros(allowed.shape).masked_fill_(~allowed, -torch.inf)

    def _step_masks(self) -> dict[int, Tensor]:
        """By scale, what its image tokens and behind them its class token see of the tokens so far, themselves last."""
        masks = {}
        for i, scale in enumerate(self.config.class_token_scales):
            span, class_token = self.scales.spans[scale], self.scales.num_tokens + i
            rows = torch.tensor([*range(span.start, span.stop), class_token])
            columns = torch.tensor([*range(span.stop), class_token])
            masks[scale] = self.mask_TT[rows[:, None], columns]
        return masks

    def _modulations(self, class_BC: Tensor) -> list[Modulation]:
        condition = self.shared_ada_lin(class_BC) if self.config.shared_adaln else class_BC
        return [block.modulation(condition) for block in self.blocks]

    def _logits(self, x_BTC: Tensor, head: HeadModulation) -> Tensor:
        """Float32 even of weights in half precision, whose last place is too coarse for a logit."""
        x_BTC, weight = self.head_nm(x_BTC, head), self.head.weight
        if weight.dtype.itemsize > 2:
            return self.head(x_BTC).float()
        if weight.is_cuda:  # a GPU adds up in float32 anyway
            product_NV = torch.mm(x_BTC.flatten(0, 1), weight.T, out_dtype=torch.float32)
        else:
            product_NV = x_BTC.flatten(0, 1).float() @ weight.float().T
        return product_NV.unflatten(0, x_BTC.shape[:2]) + self.head.bias.float()

    def forward(
        self, labels_B: Tensor, inputs_BLC: Tensor, *, class_tokens: bool = True, watch: int | None = None
    ) -> TeacherForced:
        """Teacher forcing: logits of every token, given `VQVAE.teacher_input` (B, L-1, code_dim).

        A model that draws its last scale in several passes takes that input through `append_known_tokens` too: what it
        then says of the last scale's other tokens is what it would draw them from in the next pass.
        `watch` names a block whose class-token attention is returned; class tokens with projections of their own have
        but one. Saliency of scale s is weights_BHSL[..., scales.spans[s]] averaged over the heads.
        """
        class_BC = self.class_emb(labels_B)
        modulations, head = self._modulations(class_BC), self.head_nm.modulation(class_BC)
        x = self._all_inputs(class_BC, inputs_BLC)
        class_tokens = class_tokens and bool(self.config.class_token_scales)
        if not class_tokens or self.config.own_class_tokens:
            watched = self.config.watched_block
            below = self._image_blocks(x, modulations[:watched])
            x = self._image_blocks(below, modulations[watched:], watched)
            if not class_tokens:
                return TeacherForced(self._logits(x, head), None, None)
            reading = self.read_all(below)
            return TeacherForced(self._logits(x, head), self.answer(reading), reading.weights_BHSL)
        tokens = [self.cls_tokens[str(s)] for s in self.config.class_token_scales]
        tokens_BSC = torch.cat(tokens, dim=1).expand(len(x), -1, -1).to(x.dtype)
        run = self._two_streams if self.config.read_only_class_tokens else self._one_stream
        x, attended, weights = run(x, tokens_BSC, modulations, watch)
        return TeacherForced(self._logits(x, head), self.class_head(attended).float(), weights)

    def _all_inputs(self, class_BC: Tensor, inputs_BLC: Tensor) -> Tensor:
        """All image tokens as they enter the first block."""
        x = torch.cat([class_BC[:, None] + self.pos_start, self._words(inputs_BLC)], dim=1)
        return x + self.lvl_embed(self.level_L) + self.pos_1LC

    def _image_blocks(self, x_BLC: Tensor, modulations: Sequence[Modulation], first: int = 0) -> Tensor:
        """All image tokens through as many blocks, from `first` on."""
        mask = self.mask_TT[: x_BLC.shape[1], : x_BLC.shape[1]].to(x_BLC.dtype)
        for i, mod in enumerate(modulations, first):
            x_BLC, _ = self.blocks[i](x_BLC, mod, lambda attn, h: attn(h, mask))
        return x_BLC

    def watched_input(self, inputs_BLC: Tensor) -> Tensor:
        """Image tokens as they enter the watched block where no class is given, (B, L, C); the blocks above rest."""
        labels_B = torch.full((len(inputs_BLC),), self.null_label, device=inputs_BLC.device)
        class_BC = self.class_emb(labels_B)
        modulations = self._modulations(class_BC)[: self.config.watched_block]
        return self._image_blocks(self._all_inputs(class_BC, inputs_BLC), modulations)

    @property
    def class_attention(self) -> ClassTokenAttention:
        """Of class tokens that have their own."""
        attention: Any = self.cls_attn[str(self.config.watched_block)]
        return attention

    def read_all(self, image_BLC: Tensor) -> Reading:
        """What class tokens of their own see of the image tokens that enter the watched block."""
        tokens_SW = torch.cat([self.cls_tokens[str(s)] for s in self.config.class_token_scales], dim=1)[0]
        num_image = image_BLC.shape[1]
        return self.class_attention(tokens_SW, image_BLC, mask_SL=self.mask_TT[num_image:, :num_image])

    def answer(self, reading: Reading) -> Tensor:
        """The class logits of class tokens of their own, (B, S, K) in float32."""
        return self.class_head(reading.read()).float()

    def _one_stream(
        self, image_BLC: Tensor, class_BSC: Tensor, modulations: list[Modulation], watch: int | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image and class tokens in one sequence; returns image tokens, class attention outputs, weights."""
        num_image, weights = image_BLC.shape[1], None
        mask = self.mask_TT.to(image_BLC.dtype)
        x = torch.cat([image_BLC, class_BSC], dim=1)
        attended = x
        for i, (block, mod) in enumerate(zip(self.blocks, modulations, strict=True)):
            if i == watch:
                image, tokens = block.attention_input(x, mod).split([num_image, class_BSC.shape[1]], dim=1)
                weights = block.attn.class_weights(tokens, image, mask[num_image:, :num_image])
            x, attended = block(x, mod, lambda attn, h: attn(h, mask))
        return x[:, :num_image], attended[:, num_image:], weights

    def _two_streams(
        self, image_BLC: Tensor, class_BSC: Tensor, modulations: list[Modulation], watch: int | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The same for class tokens that are only read: a frozen backbone then needs no gradients at all."""
        num_image, weights = image_BLC.shape[1], None
        mask = self.mask_TT.to(image_BLC.dtype)
        image_mask, class_mask = mask[:num_image, :num_image], mask[num_image:]
        image, tokens, attended = image_BLC, class_BSC, class_BSC
        for i, (block, mod) in enumerate(zip(self.blocks, modulations, strict=True)):
            if i == watch:
                inputs = block.attention_input(tokens, mod), block.attention_input(image, mod)
                weights = block.attn.class_weights(*inputs, class_mask[:, :num_image])
            keys: list[Tensor] = []

            def look(attn: SelfAttention, h: Tensor, keys: list[Tensor] = keys) -> Tensor:
                out, *kept = attn.image_stream(h, image_mask)
                keys.extend(kept)
                return out

            image, _ = block(image, mod, look)
            tokens, attended = block(tokens, mod, lambda attn, h, keys=keys: attn.class_stream(h, *keys, class_mask))
        return image, attended, weights

    def begin(self, labels_B: Tensor, max_rows: int) -> Generation:
        """Start generating rows with these labels (the null label for the unconditional half)."""
        return Generation(self.cache(max_rows), self.conditions(labels_B))

    def cache(self, max_rows: int) -> KVCache:
        return KVCache(self.config, max_rows, self.pos_start.device, self.pos_start.dtype)

    def conditions(self, labels_B: Tensor) -> Conditions:
        class_BC = self.class_emb(labels_B)
        qkv_params = tuple(block.attn.qkv_params() for block in self.blocks)
        return Conditions(class_BC, tuple(self._modulations(class_BC)), self.head_nm.modulation(class_BC), qkv_params)

    def step(
        self,
        state: Generation,
        scale: int,
        inputs_BLC: Tensor | None,
        hook: AttentionHook | None = None,
        *,
        class_logits: bool = False,
        first_block: int = 0,
        entry_BTC: Tensor | None = None,
        keep_entry: int | None = None,
        again: Tensor | None = None,
    ) -> ScaleLogits:
        """Logits of one scale; `inputs_BLC` is `Quantizer.next_input`, None at scale 0.

        A later pass over a scale is made `again`, on inputs of `append_known_tokens`, for the positions that it draws:
        theirs alone are the logits, and a class token that is only read is left out.
        To run the upper blocks of a scale again with another hook, keep the entry of a block and pass it
        back with `first_block`; the cache is simply overwritten.
        """
        span = self.scales.spans[scale]
        num_image = span.stop - span.start
        own = self.config.own_class_tokens
        has_class = scale in self.config.class_token_scales and not own  # among the tokens of this step
        last_class_block = self._last_class_block(scale, hook, class_logits, again is not None)
        x = self._embed(state, scale, inputs_BLC) if entry_BTC is None else entry_BTC
        kept, attended = None, x
        # on a GPU a mask would cost the faster kernel, and a second launch is cheap there
        mask_TK = self.get_buffer(f"step_mask_{scale}") if has_class and not x.is_cuda else None
        look_at = self._look_at(scale, hook, class_logits, again is not None)
        reading = self._look_ahead(state, scale, x) if look_at == 0 else None
        for i in range(first_block, self.config.depth):
            if i == keep_entry:
                kept = x
            if i == look_at and reading is None:
                reading = self._read(scale, x)
            with_class = i <= last_class_block
            if not with_class:
                x = x[:, :num_image]
            attend = partial(
                SelfAttention.step,
                start=span.start,
                cache=state.cache,
                qkv_params=state.conditions.qkv_params[i],
                hook=hook,
                class_token=with_class,
                keep_class_row=class_logits or i < last_class_block,
                mask_TK=mask_TK,
                weights_BHL=None if reading is None else reading.weights_BHSL[:, :, 0],
            )
            x, attended = self.blocks[i](x, state.conditions.modulations[i], attend)
        class_logits_BK = None
        if class_logits and reading is not None:
            class_logits_BK = self.answer(reading)[:, 0]
        elif class_logits and last_class_block == self.config.depth - 1:
            class_logits_BK = self.class_head(attended[:, num_image]).float()
        x = x[:, :num_image] if again is None else x[:, again]
        return ScaleLogits(self._logits(x, state.conditions.head), class_logits_BK, kept)

    def _look_at(self, scale: int, hook: AttentionHook | None, class_logits: bool, again: bool) -> int | None:
        """The block before which class tokens of their own are read; None where nobody asks them.

        It is 0 where the map is wanted in a block below the watched one: that takes a look ahead.
        """
        asked = class_logits or (hook is not None and scale > 0)
        if not self.config.own_class_tokens or scale not in self.config.class_token_scales or again or not asked:
            return None
        watched = self.config.watched_block
        return 0 if hook is not None and any(hook.reads(i) for i in range(watched)) else watched

    def _look_ahead(self, state: Generation, scale: int, x_BLC: Tensor) -> Reading:
        """What class tokens read at the watched block when nothing is changed below; the cache is overwritten later."""
        start = self.scales.spans[scale].start
        for i in range(self.config.watched_block):
            attend = partial(
                SelfAttention.step, start=start, cache=state.cache, qkv_params=state.conditions.qkv_params[i]
            )
            x_BLC, _ = self.blocks[i](x_BLC, state.conditions.modulations[i], attend)
        return self._read(scale, x_BLC)

    def _read(self, scale: int, image_BLC: Tensor) -> Reading:
        """What the class token of one scale reads there."""
        token_SW = self.cls_tokens[str(scale)][0]
        return self.class_attention(token_SW, image_BLC, self.scales.spans[scale])

    def _last_class_block(self, scale: int, hook: AttentionHook | None, class_logits: bool, again: bool) -> int:
        """The last block that needs the class token's row, -1 for none; a token that is only read may stop early.

        A class token with projections of its own has no row here at all.
        """
        last = self.config.depth - 1
        if scale not in self.config.class_token_scales or self.config.own_class_tokens:
            return -1
        if not self.config.read_only_class_tokens or class_logits:
            return last
        if scale == 0 or again:
            return -1  # one position: there is nothing to tell apart
        return max((i for i in range(last + 1) if hook is not None and hook.reads(i)), default=-1)

    def _words(self, inputs_BLC: Tensor) -> Tensor:
        """The inputs in the transformer's width; without a word on known tokens none is known."""
        nothing = self.word_embed.in_features - inputs_BLC.shape[-1]
        inputs_BLC = F.pad(inputs_BLC, (0, nothing)) if nothing > 0 else inputs_BLC
        return self.word_embed(inputs_BLC.to(self.word_embed.weight.dtype))

    def passes(self, scale: int) -> tuple[Tensor, ...]:
        """The positions that each pass over `scale` draws; empty where one pass draws them all."""
        if scale < len(self.scales) - 1 or self.config.last_passes == 1:
            return ()
        return self.by_pass_N.split(self.pass_sizes)

    def _embed(self, state: Generation, scale: int, inputs_BLC: Tensor | None) -> Tensor:
        span = self.scales.spans[scale]
        conditions = state.conditions
        x = conditions.class_BC[:, None] + self.pos_start if inputs_BLC is None else self._words(inputs_BLC)
        x = x + self.lvl_embed.weight[scale] + self.pos_1LC[:, span]
        if scale in self.config.class_token_scales and not self.config.own_class_tokens:
            x = torch.cat([x, self.cls_tokens[str(scale)].expand(len(x), -1, -1).to(x.dtype)], dim=1)
        return x


def token_loss(logits_BLV: Tensor, tokens_BL: Tensor) -> Tensor:
    """Cross-entropy per token in nats, (B, L)."""
    return F.cross_entropy(logits_BLV.flatten(0, 1), tokens_BL.flatten(), reduction="none").view(tokens_BL.shape)
