"""Stable Diffusion's UNet: its layers, under the key names of diffusers' UNet2DConditionModel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from .layers import (
    Downsampler,
    Level,
    ResnetBlock,
    SpatialTransformer,
    TimestepEmbedding,
    Timesteps,
    Upsampler,
)

_EPSILON = 1e-5
ATTENDS = "CrossAttn"  # begins diffusers' names of blocks with transformers


@dataclass(frozen=True, kw_only=True)
class UNetSizes:
    """The sizes of a UNet under diffusers' names; the defaults are Stable Diffusion 1.5's."""

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Channels of each level, outermost first."""
    layers_per_block: int = 2
    down_block_types: tuple[str, ...] = (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D")
    up_block_types: tuple[str, ...] = ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3)
    cross_attention_dim: int = 768
    """Channels of encoded prompts."""
    attention_head_dim: int = 8
    """The number of heads, despite its name."""
    norm_num_groups: int = 32

    @property
    def time_channels(self) -> int:
        """Channels of the time step's embedding."""
        return 4 * self.block_out_channels[0]

    def resnet(self, in_channels: int, out_channels: int) -> ResnetBlock:
        """Return a residual block."""
        return ResnetBlock(
            in_channels,
            out_channels,
            groups=self.norm_num_groups,
            epsilon=_EPSILON,
            time_channels=self.time_channels,
        )

    def transformer(self, channels: int) -> SpatialTransformer:
        """Return a transformer."""
        return SpatialTransformer(
            channels, self.cross_attention_dim, self.attention_head_dim, self.norm_num_groups
        )


class UNetEncoder(nn.Module):
    """The half of a UNet that leads down and its middle, which ControlNets have as well."""

    def __init__(self, config: UNetSizes) -> None:
        """Build the layers in these sizes."""
        super().__init__()
        self.config = config
        first, last = config.block_out_channels[0], config.block_out_channels[-1]
        self.conv_in = nn.Conv2d(config.in_channels, first, 3, padding=1)
        self.time_proj = Timesteps(first)
        self.time_embedding = TimestepEmbedding(first, config.time_channels)
        self.down_blocks = nn.ModuleList(_levels_down(config))
        self.mid_block = Level(
            [config.resnet(last, last) for _ in range(2)], [config.transformer(last)]
        )

    def skip_channels(self) -> Iterator[int]:
        """Yield the channels of each skip connection, outermost first."""
        yield self.config.block_out_channels[0]
        level: Any
        for level, width in zip(self.down_blocks, self.config.block_out_channels, strict=True):
            yield from [width] * (len(level.resnets) + (level.downsamplers is not None))


class SpatialUNet(UNetEncoder):
    """The whole UNet; `unet.MotionUNet` runs it."""

    def __init__(self, config: UNetSizes) -> None:
        """Build the layers in these sizes."""
        super().__init__(config)
        first = config.block_out_channels[0]
        self.up_blocks = nn.ModuleList(_levels_up(config, list(self.skip_channels())))
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, first, eps=_EPSILON)
        self.conv_out = nn.Conv2d(first, config.out_channels, 3, padding=1)


def _levels_down(config: UNetSizes) -> Iterator[Level]:
    previous, widths = config.block_out_channels[0], config.block_out_channels
    for index, (width, kind) in enumerate(zip(widths, config.down_block_types, strict=True)):
        entering = [previous, *[width] * (config.layers_per_block - 1)]
        yield Level(
            [config.resnet(each, width) for each in entering],
            [config.transformer(width) for _ in entering] if kind.startswith(ATTENDS) else None,
            downsampler=Downsampler(width) if index + 1 < len(widths) else None,
        )
        previous = width


def _levels_up(config: UNetSizes, skips: list[int]) -> Iterator[Level]:
    widths = config.block_out_channels[::-1]
    previous = widths[0]
    for index, (width, kind) in enumerate(zip(widths, config.up_block_types, strict=True)):
        entering = [previous, *[width] * config.layers_per_block]
        yield Level(
            [config.resnet(each + skips.pop(), width) for each in entering],
            [config.transformer(width) for _ in entering] if kind.startswith(ATTENDS) else None,
            upsampler=Upsampler(width) if index + 1 < len(widths) else None,
        )
        previous = width
