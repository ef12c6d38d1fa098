"""Self-attention of a VAR block, with the class token's row computed on its own.

Only the class-token row needs explicit weights (they are the saliency map); all else is fused attention.
Letters: B rows, T tokens, L image tokens of the present scale, H heads, D head width, C = H·D.
"""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.config import VARConfig
from hieramp.var.cache import KVCache

KeyBias = tuple[Tensor, Tensor | None]  # bias (B, K) on the logits of the K keys seen, factor (B, K) on their weights


class AttentionHook(Protocol):
    """Looks into the attention of one scale, and may change how its image keys are weighted."""

    def reads(self, block: int) -> bool:
        """Whether this block is looked at; all others stay fully fused."""
        ...

    def __call__(self, block: int, weights_BHL: Tensor | None) -> KeyBias | None:
        """From the class token's weights over the image keys (None without a class token) to a change.

        It holds for all keys that the scale's image tokens see: those of earlier scales, their own, and behind them the
        class token's, where they see it.
        """
        ...


MAX_LOG_TEMPERATURE = math.log(100)


class QKVParams(NamedTuple):
    """What an attention layer makes of its parameters alone."""

    bias: Tensor  # (3·C,) of queries, keys and values; the keys' is zero
    gain_2H1: Tensor | None  # factors on the normalised queries and keys: the temperature, and one


class SelfAttention(nn.Module):
    def __init__(self, config: VARConfig, block: int) -> None:
        super().__init__()
        width, heads = config.width, config.num_heads
        self.block, self.num_heads, self.l2 = block, heads, config.l2_attention
        self.read_only = config.read_only_class_tokens
        self.scale = 1.0 if config.l2_attention else 0.25 / math.sqrt(width // heads)
        if config.l2_attention:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4.0)))
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def qkv_params(self) -> QKVParams:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        if not self.l2:
            return QKVParams(bias, None)
        temperature = self.scale_mul_1H11.clamp_max(MAX_LOG_TEMPERATURE).exp()[0, :, 0]
        return QKVParams(bias, torch.stack([temperature, torch.ones_like(temperature)]))

    def _qkv(self, x_BTC: Tensor, qkv_params: QKVParams | None = None) -> tuple[Tensor, Tensor, Tensor]:
        bias, gain_2H1 = qkv_params or self.qkv_params()
        qkv = F.linear(x_BTC, self.mat_qkv.weight, bias).unflatten(-1, (3, self.num_heads, -1))
        if gain_2H1 is None:
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            return q, k, v
        if qkv.is_cuda:
            # the same but for rounding, in one kernel, and under autocast without a way through float32
            width = qkv.shape[-1]
            unit_BT2HD = F.rms_norm(qkv[:, :, :2], (width,), eps=1e-24)
            gain_2H1 = (gain_2H1 * width**-0.5).to(unit_BT2HD.dtype)
        else:
            unit_BT2HD = F.normalize(qkv[:, :, :2], dim=-1)
        qk_2BHTD = (unit_BT2HD * gain_2H1).permute(2, 0, 3, 1, 4)
        return qk_2BHTD[0], qk_2BHTD[1], qkv[:, :, 2].transpose(1, 2)

    def queries(self, x_BTC: Tensor, qkv_params: QKVParams) -> Tensor:
        """What these tokens ask with, (B, H, T, D): the logits of keys are the products with it."""
        return self._qkv(x_BTC, qkv_params)[0] * self.scale

    def _project(self, *parts_BHTD: Tensor) -> Tensor:
        """Consecutive tokens, in parts, through the last matrix."""
        parts = [part.transpose(1, 2) for part in parts_BHTD]
        return self.proj((parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).flatten(2))

    def forward(self, x_BTC: Tensor, mask_TT: Tensor) -> Tensor:
        """All tokens at once under a mask (teacher forcing): additive, -inf where a token may not look."""
        q, k, v = self._qkv(x_BTC)
        return self._project(self._under_mask(q, k, v, mask_TT))

    def image_stream(self, x_BLC: Tensor, mask_LL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image tokens that see no class token; also their keys and values, for `class_stream`."""
        q, k, v = self._qkv(x_BLC)
        return self._project(self._under_mask(q, k, v, mask_LL)), k, v

    def class_stream(self, x_BSC: Tensor, image_k: Tensor, image_v: Tensor, mask_ST: Tensor) -> Tensor:
        """Class tokens that look at the image tokens of `image_stream` and at themselves."""
        q, k, v = self._qkv(x_BSC)
        keys, values = torch.cat([image_k, k], dim=2), torch.cat([image_v, v], dim=2)
        return self._project(self._under_mask(q, keys, values, mask_ST))

    def _under_mask(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Attention of teacher forcing, fused but where a CPU trains in bfloat16.

        There PyTorch's fused kernel takes three times as long as plain products, its way back included.
        """
        if v.device.type == "cpu" and v.dtype is torch.bfloat16:
            return ((q * self.scale) @ k.mT + mask).softmax(-1) @ v
        return F.scaled_dot_product_attention(q, k, v, mask, scale=self.scale)

    def class_weights(self, class_BSC: Tensor, image_BLC: Tensor, mask_SL: Tensor) -> Tensor:
        """Weights of every class token over the image keys of its scale, (B, H, S, L)."""
        q, k = self._qkv(class_BSC)[0], self._qkv(image_BLC)[1]
        return ((q * self.scale) @ k.mT + mask_SL).float().softmax(-1)

    def step(
        self,
        x_BTC: Tensor,
        start: int,
        cache: KVCache,
        qkv_params: QKVParams,
        hook: AttentionHook | None = None,
        *,
        class_token: bool = False,
        keep_class_row: bool = True,
        mask_TK: Tensor | None = None,
        weights_BHL: Tensor | None = None,
    ) -> Tensor:
        """The tokens of one scale, which begins at position `start`; with `class_token` the last one is it.

        Returns (B, T, C), without the class token's row where it is not kept: a token that was only to be looked at.
        With `mask_TK`, which tells what these tokens may look at, a block that is not looked at takes them all at once.
        `weights_BHL` are for the hook: those of a class token that is not among these tokens.
        """
        q, k, v = self._qkv(x_BTC, qkv_params)
        looked_at = hook is not None and hook.reads(self.block)
        together = class_token and keep_class_row and not looked_at and mask_TK is not None
        hidden = int(class_token and self.read_only and not together)
        keys, values = cache.write(self.block, start, k, v, hidden)
        if together:
            return self._project(F.scaled_dot_product_attention(q, keys, values, mask_TK, scale=self.scale))
        if not class_token:
            change = hook(self.block, weights_BHL) if hook and looked_at else None
            return self._project(self._image_rows(q, keys, values, change))
        num_image = x_BTC.shape[1] - 1
        q, class_q = q.split([num_image, 1], dim=2)
        change, class_row = None, None
        if hook and looked_at:
            # a product and its sum: two calls, where a matrix product with one row makes nine
            at_least_float = torch.promote_types(class_q.dtype, torch.float32)
            logits_BHT = (class_q.to(at_least_float) * self.scale * k).sum(-1)
            change = hook(self.block, logits_BHT[..., :num_image].float().softmax(-1))
            if keep_class_row:
                class_row = self._class_row(logits_BHT, v, start, change)
        elif keep_class_row:
            class_row = F.scaled_dot_product_attention(class_q, k, v, scale=self.scale)
        image_rows = self._image_rows(q, keys, values, change)
        return self._project(image_rows) if class_row is None else self._project(image_rows, class_row)

    def _class_row(self, logits_BHT: Tensor, own_values_BHTD: Tensor, start: int, change: KeyBias | None) -> Tensor:
        """What the class token takes from the image tokens of its scale and, last, from itself."""

        def own(x_BK: Tensor, itself: float) -> Tensor:
            x_BT = x_BK[:, start : start + logits_BHT.shape[-1]]
            return F.pad(x_BT, (0, logits_BHT.shape[-1] - x_BT.shape[1]), value=itself)[:, None]

        bias_BK, factor_BK = change or (None, None)
        weights_BHT = (logits_BHT if bias_BK is None else logits_BHT + own(bias_BK, 0.0)).softmax(-1)
        if factor_BK is not None:
            weights_BHT = weights_BHT * own(factor_BK, 1.0)
        return weights_BHT[:, :, None].to(own_values_BHTD.dtype) @ own_values_BHTD

    def _image_rows(self, q: Tensor, keys: Tensor, values: Tensor, change: KeyBias | None) -> Tensor:
        if change is None:
            return F.scaled_dot_product_attention(q, keys, values, scale=self.scale)
        bias_BK, factor_BK = change
        if factor_BK is not None:
            # softmax(q·k)·diag(γ)·v: scaling the values scales the weights and keeps attention fused
            values = values * factor_BK[:, None, :, None].to(values.dtype)
        bias = bias_BK.to(q.dtype).view(len(bias_BK), 1, 1, -1).expand(-1, -1, q.shape[2], -1)
        return F.scaled_dot_product_attention(q, keys, values, bias, scale=self.scale)
