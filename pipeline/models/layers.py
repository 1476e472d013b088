"""The layers of Stable Diffusion's networks, under the key names of diffusers' modules.

They hold the weights and, unlike diffusers' modules, import nothing but PyTorch. The operations of
`ops` run residual blocks and transformers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .motion_module import FeedForward
from .ops.convolution import Convolution

TRANSFORMER_EPSILON = 1e-6
_LONGEST_PERIOD = 10_000
# From these sizes on, CUDA's enlarging of features with channels last has failed
# (huggingface/diffusers issue 984, pytorch/pytorch issue 141831).
_ROWS_ONLY_CHANNELS_FIRST = 64
_MOST_CHANNELS_LAST = 2**30


class ResnetBlock(nn.Module):
    """Two convolutions on a residual path; arXiv 1512.03385, with group norms."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        groups: int,
        epsilon: float,
        time_channels: int | None = None,
    ) -> None:
        """Size the block.

        Args:
            in_channels: Channels of its input.
            out_channels: Channels of its output.
            groups: Groups of its norms.
            epsilon: Epsilon of its norms.
            time_channels: Channels of the time step's embedding; None for a block without one.
        """
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=epsilon)
        self.conv1 = Convolution(in_channels, out_channels, 3, padding=1)
        if time_channels is not None:
            self.time_emb_proj = nn.Linear(time_channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=epsilon)
        self.conv2 = Convolution(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut: nn.Conv2d | None = None
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)


class Attention(nn.Module):
    """Projections of an attention layer."""

    def __init__(
        self, channels: int, context_channels: int, *, heads: int, has_biases: bool = False
    ) -> None:
        """Size the projections.

        Args:
            channels: Channels of the queries and of the output.
            context_channels: Channels of the tokens that are attended to.
            heads: Number of heads.
            has_biases: True if queries, keys and values have biases; the output always has one.
        """
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=has_biases)
        self.to_k = nn.Linear(context_channels, channels, bias=has_biases)
        self.to_v = nn.Linear(context_channels, channels, bias=has_biases)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])


class TransformerBlock(nn.Module):
    """Attention among pixels, attention to prompts, and a feed-forward layer."""

    def __init__(self, channels: int, context_channels: int, heads: int) -> None:
        """Size it for features and prompts of these channels."""
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, channels, heads=heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = Attention(channels, context_channels, heads=heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)


class SpatialTransformer(nn.Module):
    """A transformer over the pixels of a frame."""

    row_strengths: Any = None
    """The RowStrengths of LoRAs whose strength varies."""

    def __init__(self, channels: int, context_channels: int, heads: int, groups: int) -> None:
        """Size it for features and prompts of these channels."""
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=TRANSFORMER_EPSILON)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(channels, context_channels, heads)]
        )
        self.proj_out = nn.Conv2d(channels, channels, 1)


class Downsampler(nn.Module):
    """A convolution that halves height and width."""

    def __init__(self, channels: int, *, pads_all_sides: bool = True) -> None:
        """Size it; a VAE pads only the right and the bottom side."""
        super().__init__()
        self.pads_all_sides = pads_all_sides
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=int(pads_all_sides))

    def forward(self, features: Tensor) -> Tensor:
        """Map [rows, channels, height, width] to half the height and width."""
        if not self.pads_all_sides:
            features = functional.pad(features, (0, 1, 0, 1))
        halved: Tensor = self.conv(features)
        return halved


class Upsampler(nn.Module):
    """Nearest-neighbour enlarging and a convolution."""

    def __init__(self, channels: int) -> None:
        """Size it."""
        super().__init__()
        self.conv = Convolution(channels, channels, 3, padding=1)

    def forward(self, features: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Map [rows, channels, height, width] to `size`; None is twice the height and width."""
        height, width = features.shape[2:]
        if len(features) >= _ROWS_ONLY_CHANNELS_FIRST or features.numel() > _MOST_CHANNELS_LAST:
            features = features.contiguous()
        enlarged = functional.interpolate(features, size or (2 * height, 2 * width), mode="nearest")
        convolved: Tensor = self.conv(enlarged)
        return convolved


class Level(nn.Module):
    """The layers of a network at one size of features."""

    def __init__(
        self,
        resnets: list[ResnetBlock],
        attentions: list[SpatialTransformer] | None = None,
        *,
        downsampler: Downsampler | None = None,
        upsampler: Upsampler | None = None,
    ) -> None:
        """Hold the layers; None is a level without."""
        super().__init__()
        self.attentions = nn.ModuleList(attentions) if attentions else None
        self.resnets = nn.ModuleList(resnets)
        self.downsamplers = nn.ModuleList([downsampler]) if downsampler else None
        self.upsamplers = nn.ModuleList([upsampler]) if upsampler else None


class Timesteps(nn.Module):
    """Sinusoids of a time step; arXiv 1706.03762, section 3.5, cosines first."""

    def __init__(self, channels: int) -> None:
        """Return embeddings of `channels`, an even number."""
        super().__init__()
        self.channels = channels

    def forward(self, timesteps: Tensor) -> Tensor:
        """Map [rows] to [rows, channels], float32."""
        half = self.channels // 2
        counted = torch.arange(half, dtype=torch.float32, device=timesteps.device)
        frequencies = torch.exp(-math.log(_LONGEST_PERIOD) * counted / half)
        angles = timesteps[:, None].float() * frequencies[None, :]
        return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class TimestepEmbedding(nn.Module):
    """Two linear layers that embed a time step."""

    def __init__(self, channels: int, out_channels: int) -> None:
        """Size it."""
        super().__init__()
        self.linear_1 = nn.Linear(channels, out_channels)
        self.linear_2 = nn.Linear(out_channels, out_channels)

    def forward(self, sinusoids: Tensor) -> Tensor:
        """Map [rows, channels] to [rows, out_channels]."""
        embedding: Tensor = self.linear_2(functional.silu(self.linear_1(sinusoids)))
        return embedding
