"""AnimateDiff's motion modules: temporal transformers through which frames attend to each other.

Follows guoyww/AnimateDiff, animatediff/models/motion_module.py (Apache-2.0, 2024-07-17). Two things
differ from diffusers' `AnimateDiffTransformer3D`. Each frame is normalised by itself, as in the
original; diffusers normalises over all frames together. And tokens are rearranged only once, to
[batch, pixels, frames, channels], for all layers of a module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..curve import Curve, Strength
from .frame_masks import NO_MASKS, MotionMasks
from .ops.eager import gate, in_parts
from .ops.frame_norm import group_norm
from .ops.linear import project_together
from .pass_strengths import KeyScales, RowStrength, of_pixels

HEADS = 8  # in every AnimateDiff module; it does not follow from a tensor's shape
NORM_GROUPS = 32
# CUDA's fused attention kernels refuse larger batches ("invalid configuration argument").
MAX_ATTENTION_BATCH = 65_535


def sinusoidal_encoding(length: int, channels: int) -> Tensor:
    """Return the table [1, length, channels], float32, of arXiv 1706.03762, section 3.5."""
    position = torch.arange(length, dtype=torch.float32).unsqueeze(1)
    frequency = torch.exp(
        torch.arange(0, channels, 2, dtype=torch.float32) * (-math.log(10_000.0) / channels)
    )
    table = torch.zeros(1, length, channels)
    table[0, :, 0::2] = torch.sin(position * frequency)
    table[0, :, 1::2] = torch.cos(position * frequency)
    return table


class PositionalEncoding(nn.Module):
    """A table that is added to tokens, with one entry for each frame of a window."""

    pe: Tensor

    def __init__(self, channels: int, length: int) -> None:
        """Reserve a table [1, length, channels], which is loaded with the weights."""
        super().__init__()
        self.register_buffer("pe", torch.empty(1, length, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        """Add entry f of the table to frame f of `tokens` [batch, pixels, frames, channels]."""
        return tokens + self.pe[:, : tokens.shape[2]]


class TemporalAttention(nn.Module):
    """Self-attention over frames, for each pixel separately."""

    def __init__(self, channels: int, max_frames: int) -> None:
        """Size the projections for `channels` and the encoding for `max_frames`."""
        super().__init__()
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])
        self.pos_encoder = PositionalEncoding(channels, max_frames)
        # Multiplies the keys: above 1 sharpens attention over time, AnimateDiff's `motion_scale`.
        self.key_scale = 1.0

    def forward(self, tokens: Tensor, scales: Tensor | None = None) -> Tensor:
        """Map [batch, pixels, frames, channels] to the same shape.

        Args:
            tokens: The tokens.
            scales: Multiply the keys, [batch, 1 or pixels, frames, 1]; None takes `key_scale`.
        """
        tokens = self.pos_encoder(tokens)
        query, key, value = project_together(tokens, self.to_q, self.to_k, self.to_v)
        if scales is not None:
            key = key * scales
        elif self.key_scale != 1.0:
            key = key * self.key_scale
        attended: Tensor = self.to_out[0](attend_over_frames(query, key, value))
        return attended


def attend_over_frames(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax attention along axis 2 of [batch, pixels, frames, channels], for each pixel.

    The channels are those of `HEADS` heads, one head after another. The result has the same shape
    and dtype.
    """
    frames, channels = query.shape[2:]

    def parts(tokens: Tensor) -> tuple[Tensor, ...]:  # [pixels, heads, frames, head size] each
        split = tokens.view(-1, frames, HEADS, channels // HEADS).transpose(1, 2)
        return torch.split(split, MAX_ATTENTION_BATCH)

    attended = [
        functional.scaled_dot_product_attention(*part)
        for part in zip(parts(query), parts(key), parts(value), strict=True)
    ]
    whole = attended[0] if len(attended) == 1 else torch.cat(attended)
    return whole.transpose(1, 2).reshape(query.shape)


class GatedProjection(nn.Module):
    """A linear layer of which one half gates the other (GEGLU, arXiv 2002.05202)."""

    def __init__(self, channels: int, inner: int) -> None:
        """Project `channels` to `inner` gated ones."""
        super().__init__()
        self.proj = nn.Linear(channels, inner * 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [..., channels] to [..., inner]."""
        return gate(self.proj(tokens))


class FeedForward(nn.Module):
    """A feed-forward network on each token, four times as wide inside."""

    def __init__(self, channels: int) -> None:
        """Size it for `channels`."""
        super().__init__()
        # The original has a dropout at index 1; the index is part of the key `net.2`.
        self.net = nn.ModuleList(
            [
                GatedProjection(channels, channels * 4),
                nn.Identity(),
                nn.Linear(channels * 4, channels),
            ]
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [..., channels] to the same shape."""
        projected: Tensor = self.net[2](self.net[0](tokens))
        return projected


class TemporalBlock(nn.Module):
    """Attentions over frames and a feed-forward layer, each on a residual path."""

    def __init__(self, channels: int, max_frames: int, attentions: int = 2) -> None:
        """Size it for `channels`, videos of at most `max_frames` and so many attentions."""
        super().__init__()
        self.attention_blocks = nn.ModuleList(
            [TemporalAttention(channels, max_frames) for _ in range(attentions)]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(attentions)])
        self.ff = FeedForward(channels)
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, scales: Tensor | None = None) -> Tensor:
        """Map [batch, pixels, frames, channels] to the same shape; see TemporalAttention."""
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            tokens = attention(norm(tokens), scales) + tokens
        forwarded: Tensor = self.ff(self.ff_norm(tokens))
        return forwarded + tokens


class TemporalTransformer(nn.Module):
    """Group norm, projections, and the transformer blocks of one motion module."""

    def __init__(self, channels: int, max_frames: int, attentions: int = 2) -> None:
        """Size it for `channels`, videos of at most `max_frames` and so many attentions."""
        super().__init__()
        self.norm = nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(channels, max_frames, attentions)])
        self.proj_out = nn.Linear(channels, channels)
        # Of each row, and of each pixel with a mask; None takes the attentions' `key_scale`.
        self.key_scales: KeyScales | None = None

    def forward(
        self, features: Tensor, num_frames: int, tokens_at_once: int | None = None
    ) -> Tensor:
        """Map [batch * num_frames, channels, height, width] to the same shape.

        Args:
            features: Rows of a video follow each other in order of its frames.
            num_frames: Frames of each video.
            tokens_at_once: Pixels of all frames to process at a time; None for all.
        """
        rows, channels, height, width = features.shape
        split = (-1, num_frames, channels, height * width)
        normed = group_norm(self.norm, features, num_frames).reshape(split)
        scales = None if self.key_scales is None else self.key_scales.at(features)
        features = features.reshape(split)

        def moved(part: slice) -> Tensor:
            # The only copy: contiguous frames suit attention and all other operations.
            tokens = normed[..., part].permute(0, 3, 1, 2).contiguous()
            tokens = self.proj_in(tokens)
            own = of_pixels(scales, part)
            if own is not None:  # from [rows, pixels] to [batch, pixels, frames, 1]
                own = own.view(len(tokens), num_frames, -1).transpose(1, 2).unsqueeze(-1)
            for block in self.transformer_blocks:
                tokens = block(tokens, own)
            change: Tensor = self.proj_out(tokens)
            return features[..., part] + change.permute(0, 2, 3, 1)

        pixels_at_once = None if tokens_at_once is None else max(1, tokens_at_once // rows)
        result = in_parts(moved, height * width, pixels_at_once, dim=-1)
        if result.stride() != features.stride():
            # Joined parts are contiguous, and the next operation may round differently by layout.
            result = torch.empty_like(features).copy_(result)
        return result.reshape(rows, channels, height, width)


class MotionModule(nn.Module):
    """One motion module of a UNet; the level `temporal_transformer` is in the files' keys."""

    def __init__(self, channels: int, max_frames: int, attentions: int = 2) -> None:
        """Size it for `channels`, videos of at most `max_frames` and so many attentions."""
        super().__init__()
        self.temporal_transformer = TemporalTransformer(channels, max_frames, attentions)

    def forward(
        self, features: Tensor, num_frames: int, tokens_at_once: int | None = None
    ) -> Tensor:
        """Map [batch * num_frames, channels, height, width] to the same shape.

        See TemporalTransformer.forward.
        """
        transformed: Tensor = self.temporal_transformer(features, num_frames, tokens_at_once)
        return transformed


class MotionBlock(nn.Module):
    """The motion modules of one UNet block: one after each of its layers."""

    def __init__(self, channels: int, max_frames: int, count: int, attentions: int = 2) -> None:
        """Hold `count` modules of `channels`, with so many attentions each."""
        super().__init__()
        self.motion_modules = nn.ModuleList(
            [MotionModule(channels, max_frames, attentions) for _ in range(count)]
        )


class MotionModules(nn.Module):
    """All motion modules of one file, under the file's original AnimateDiff keys."""

    def __init__(
        self, *, block_channels: tuple[int, ...], layers_per_block: int, max_frames: int, mid: bool
    ) -> None:
        """Build the modules for a UNet of these sizes.

        Args:
            block_channels: Channels of the UNet's levels, outermost first.
            layers_per_block: Modules in a down block; an up block has one more.
            max_frames: Length of the positional encoding, the longest window.
            mid: True for files with a module in the middle block (v2-shaped ones).
        """
        super().__init__()
        self.max_frames = max_frames
        self.scale: Strength = 1.0
        self.effect: Strength = 1.0
        """Share of the modules' change of features that is used."""
        self.masks: MotionMasks = NO_MASKS
        self._key_scales: KeyScales | None = None
        self.down_blocks = nn.ModuleList(
            [MotionBlock(c, max_frames, layers_per_block) for c in block_channels]
        )
        self.mid_block = MotionBlock(block_channels[-1], max_frames, 1) if mid else None
        self.up_blocks = nn.ModuleList(
            [MotionBlock(c, max_frames, layers_per_block + 1) for c in reversed(block_channels)]
        )

    def set_motion_scale(self, motion_scale: Strength) -> None:
        """Scale attention over time in every module; 1 is as trained.

        With a curve, it is that of the frames that are attended to, as in AnimateDiff-Evolved.
        """
        self.scale = motion_scale
        self._share_scales()

    def set_masks(self, masks: MotionMasks) -> None:
        """Let the modules act more or less from pixel to pixel.

        The masks multiply the motion scale and the motion effect, as in AnimateDiff-Evolved.
        """
        self.masks = masks
        self._share_scales()

    @property
    def is_uneven(self) -> bool:
        """True if scale or effect is a curve or has a mask."""
        changes = any(isinstance(each, Curve) for each in (self.scale, self.effect))
        return changes or bool(self.masks.given)

    def _share_scales(self) -> None:
        number = 1.0 if isinstance(self.scale, Curve) else self.scale
        varies = isinstance(self.scale, Curve) or self.masks.scale is not None
        self._key_scales = KeyScales() if varies else None
        for module in self.modules():
            if isinstance(module, TemporalTransformer):
                module.key_scales = self._key_scales
            elif isinstance(module, TemporalAttention):
                module.key_scale = 1.0 if varies else number

    def scaled_by(self, scale: RowStrength | None, like: Tensor) -> AbstractContextManager[None]:
        """Return a context for a pass, in which the motion scale of each row is `scale`.

        Args:
            scale: None is 1 in all rows. Used if the motion scale is a curve or has a mask.
            like: The features of the pass.
        """
        if self._key_scales is None:
            return nullcontext()
        return self._key_scales.using(scale or RowStrength(torch.ones(len(like))))


def blended(features: Tensor, moved: Tensor, effect: RowStrength | None) -> Tensor:
    """Return features before and after a motion module, blended by its effect.

    Args:
        features: [rows, channels, height, width].
        moved: The features after the module.
        effect: None is 1.
    """
    return moved if effect is None else torch.lerp(features, moved, effect.at(features))


def positional_tables(tensors: Mapping[str, Tensor], max_frames: int) -> dict[str, Any]:
    """Return sinusoids for every attention of `tensors`, for files without tables (AnimateLCM)."""
    suffix = ".to_q.weight"
    return {
        key.removesuffix(suffix) + ".pos_encoder.pe": sinusoidal_encoding(
            max_frames, weight.shape[1]
        )
        for key, weight in tensors.items()
        if key.endswith(suffix)
    }
