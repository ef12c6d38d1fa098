"""Encoder and decoder between images and the latent grid.

Attribute names follow the official checkpoint keys, so that its tensors load by name.
x_BCHW: batch, channels, height, width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hieramp.config import VQVAEConfig


def _norm(config: VQVAEConfig, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(config.num_groups, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    def __init__(self, config: VQVAEConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = _norm(config, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = _norm(config, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.nin_shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x_BCHW)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(x_BCHW) + h


class AttentionBlock(nn.Module):
    """Single-head self-attention over the positions of a feature map."""

    def __init__(self, config: VQVAEConfig, channels: int) -> None:
        super().__init__()
        self.norm = _norm(config, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x_BCHW)).flatten(2).transpose(1, 2)
        if qkv.is_cuda:  # the fused kernels want heads, and channels side by side
            q, k, v = qkv.contiguous()[:, None].chunk(3, dim=-1)
            h = F.scaled_dot_product_attention(q, k, v)[:, 0]
        else:
            h = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        return x_BCHW + self.proj_out(h.transpose(1, 2).reshape(x_BCHW.shape))


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))  # the official one pads right and bottom only


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(F.interpolate(x_BCHW, scale_factor=2, mode="nearest"))


class ResolutionLevel(nn.Module):
    """The blocks at one resolution, and the step to the next one."""

    def __init__(self, config: VQVAEConfig, in_channels: int, out_channels: int, num_blocks: int, lowest: bool) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * (num_blocks - 1)
        self.block = nn.ModuleList(ResnetBlock(config, width, out_channels) for width in widths)
        num_attention = num_blocks if lowest and config.attention else 0
        self.attn = nn.ModuleList(AttentionBlock(config, out_channels) for _ in range(num_attention))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x_BCHW = block(x_BCHW)
            if self.attn:
                x_BCHW = self.attn[i](x_BCHW)
        return x_BCHW


class Middle(nn.Module):
    def __init__(self, config: VQVAEConfig, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(config, channels, channels)
        self.attn_1: nn.Module = AttentionBlock(config, channels) if config.attention else nn.Identity()
        self.block_2 = ResnetBlock(config, channels, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x_BCHW)))


class Encoder(nn.Module):
    """(B, 3, H, W) images in [-1, 1] to a (B, code_dim, n, n) latent grid."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.patch = config.patch
        widths = [config.channels * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(3 * config.patch**2, config.channels, 3, padding=1)
        self.down = nn.ModuleList()
        for i, (before, width) in enumerate(zip([config.channels, *widths], widths, strict=False)):
            lowest = i == len(widths) - 1
            level = ResolutionLevel(config, before, width, config.num_res_blocks, lowest)
            if not lowest:
                level.downsample = Downsample(width)
            self.down.append(level)
        self.mid = Middle(config, widths[-1])
        self.norm_out = _norm(config, widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.code_dim, 3, padding=1)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        h = self.conv_in(F.pixel_unshuffle(images_BCHW, self.patch))
        for level in self.down[:-1]:
            h = level.get_submodule("downsample")(level(h))
        h = self.mid(self.down[-1](h))
        return self.conv_out(F.silu(self.norm_out(h)))


class Decoder(nn.Module):
    """A (B, code_dim, n, n) latent grid to (B, 3, H, W) images around [-1, 1], not clamped."""

    def __init__(self, config: VQVAEConfig) -> None:
        super().__init__()
        self.patch = config.patch
        widths = [config.channels * m for m in config.multipliers]
        self.conv_in = nn.Conv2d(config.code_dim, widths[-1], 3, padding=1)
        self.mid = Middle(config, widths[-1])
        self.up = nn.ModuleList()
        for i, width in enumerate(widths):
            lowest = i == len(widths) - 1
            before = width if lowest else widths[i + 1]
            level = ResolutionLevel(config, before, width, config.num_res_blocks + 1, lowest)
            if i > 0:
                level.upsample = Upsample(width)
            self.up.append(level)
        self.norm_out = _norm(config, widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3 * config.patch**2, 3, padding=1)

    def forward(self, latent_BCHW: Tensor) -> Tensor:
        h = self.mid(self.conv_in(latent_BCHW))
        for i in reversed(range(1, len(self.up))):
            h = self.up[i].get_submodule("upsample")(self.up[i](h))
        h = self.up[0](h)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.patch)


def to_unit(images_BCHW: Tensor) -> Tensor:
    """[-1, 1] to [0, 1], clamped."""
    return torch.clamp(images_BCHW.float(), -1, 1).add(1).mul(0.5)
