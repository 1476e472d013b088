"""Triton kernels for norms, activations, additions and temporal attention.

All work on contiguous tokens [rows, pixels, channels], which is the memory layout of features with
channels last. They compute in float32 whatever the dtype of their tensors, and add the biases of
the matrix products before them, which would take longer in the products themselves. Sums run in a
fixed order: the same input gives the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Values that a program holds at a time: sixteen for each thread of four warps.
_TILE = 2048
_TILE_IN_KERNELS = tl.constexpr(_TILE)  # the only kind of global that a kernel may read
# Tiles that a program sums up; more for larger frames.
_FEWEST_TILES, _MOST_TILES = 8, 64
# Parts of a frame that are summed separately, within those limits.
_PARTS = 32
# Frames that a program of temporal attention holds: a whole window.
MOST_FRAMES = 32


@triton.jit
def _spread_of_parts(
    features, sums, pixels, CHANNELS: tl.constexpr, PIXELS: tl.constexpr, WIDE: tl.constexpr,
    TILES: tl.constexpr,
):  # fmt: skip
    """Compute mean, and sum of squared distances to it, of each channel in a part of the pixels.

    sums: [2, rows, parts, channels].
    """
    part, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    channel = tl.program_id(2) * WIDE + tl.arange(0, WIDE)
    begin = part * PIXELS * TILES
    start = features + row * pixels * CHANNELS + channel
    # Squares are of distances to the first value: squares of the values themselves would cancel.
    origin = tl.load(start + begin.to(tl.int64) * CHANNELS).to(tl.float32)
    distances = tl.zeros([PIXELS, WIDE], tl.float32)
    squares = tl.zeros([PIXELS, WIDE], tl.float32)
    for tile in range(TILES):
        pixel = begin + tile * PIXELS + tl.arange(0, PIXELS)
        inside = (pixel < pixels)[:, None] & (channel < CHANNELS)[None, :]
        indices = pixel.to(tl.int64)[:, None] * CHANNELS
        values = tl.load(start[None, :] + indices, mask=inside, other=0.0).to(tl.float32)
        distance = tl.where(inside, values - origin[None, :], 0.0)
        distances += distance
        squares += distance * distance
    count = tl.minimum(pixels - begin, PIXELS * TILES).to(tl.float32)
    distance = tl.sum(distances, axis=0)
    index = (row * tl.num_programs(0) + part) * CHANNELS + channel
    tl.store(sums + index, origin + distance / count)
    index += tl.num_programs(0) * tl.num_programs(1) * CHANNELS
    tl.store(sums + index, tl.sum(squares, axis=0) - distance * distance / count)


@triton.jit
def _factors_of_groups(
    sums, weight, bias, shift, factors, pixels, eps, CHANNELS: tl.constexpr, GROUP: tl.constexpr,
    WIDE: tl.constexpr, PARTS: tl.constexpr, PIXELS_OF_PART: tl.constexpr,
):  # fmt: skip
    """Compute a factor and an offset for each channel, with which its group is normalised.

    Means and squared distances of the parts are combined as in Chan, Golub and LeVeque, 1979.
    factors: [2, rows, channels].
    """
    parts = tl.cdiv(pixels, PIXELS_OF_PART)
    spreads = sums + tl.num_programs(0) * parts * CHANNELS
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    member = tl.arange(0, WIDE)
    known = member < GROUP
    channel = group * GROUP + member
    added = tl.zeros([WIDE], tl.float32)
    if shift is not None:
        added = tl.load(shift + channel, mask=known, other=0.0).to(tl.float32)
    total = tl.zeros([PARTS, WIDE], tl.float32)
    first = 0
    while first < parts:
        part = first + tl.arange(0, PARTS)
        inside = (part < parts)[:, None] & known[None, :]
        index = (row * parts + part)[:, None] * CHANNELS + channel[None, :]
        count = tl.minimum(pixels - part * PIXELS_OF_PART, PIXELS_OF_PART).to(tl.float32)
        mean = tl.load(sums + index, mask=inside, other=0.0) + added[None, :]
        total += tl.where(inside, mean * count[:, None], 0.0)
        first += PARTS
    members = pixels * (GROUP * 1.0)  # Triton treats a pixel count of 1 as a constant without dtype
    centre = tl.sum(total) / members
    spread = tl.zeros([PARTS, WIDE], tl.float32)
    first = 0
    while first < parts:
        part = first + tl.arange(0, PARTS)
        inside = (part < parts)[:, None] & known[None, :]
        index = (row * parts + part)[:, None] * CHANNELS + channel[None, :]
        count = tl.minimum(pixels - part * PIXELS_OF_PART, PIXELS_OF_PART).to(tl.float32)
        apart = tl.load(sums + index, mask=inside, other=0.0) + added[None, :] - centre
        within = tl.load(spreads + index, mask=inside, other=0.0)
        spread += tl.where(inside, within + apart * apart * count[:, None], 0.0)
        first += PARTS
    scale = tl.rsqrt(tl.sum(spread) / members + eps)
    factor = tl.load(weight + channel, mask=known, other=0.0).to(tl.float32) * scale
    offset = tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)
    index = row * CHANNELS + channel
    tl.store(factors + index, factor, mask=known)
    index += tl.num_programs(0) * CHANNELS
    tl.store(factors + index, offset + (added - centre) * factor, mask=known)


@triton.jit
def _scaled(
    features, factors, result, pixels, CHANNELS: tl.constexpr, PIXELS: tl.constexpr,
    WIDE: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Multiply each channel by its factor, add its offset, and apply the activation."""
    tile, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    channel = tl.program_id(2) * WIDE + tl.arange(0, WIDE)
    pixel = tile * PIXELS + tl.arange(0, PIXELS)
    inside = (pixel < pixels)[:, None] & (channel < CHANNELS)[None, :]
    indices = (row * pixels + pixel)[:, None] * CHANNELS + channel[None, :]
    factor = tl.load(factors + row * CHANNELS + channel)
    offset = tl.load(factors + (tl.num_programs(1) + row) * CHANNELS + channel)
    values = tl.load(features + indices, mask=inside, other=0.0).to(tl.float32)
    values = values * factor[None, :] + offset[None, :]
    if SILU:
        values = values * tl.sigmoid(values)
    tl.store(result + indices, values.to(result.dtype.element_ty), mask=inside)


def group_norm(
    tokens: Tensor, norm: Any, *, shift: Tensor | None = None, silu: bool = False
) -> Tensor:
    """Normalise [rows, pixels, channels] by groups of channels, each row by itself.

    Args:
        tokens: The rows.
        norm: A GroupNorm.
        shift: [channels], added to the tokens first. The sum is not needed elsewhere.
        silu: Apply SiLU afterwards.
    """
    rows, pixels, channels = tokens.shape
    wide = _width(channels)
    tile = _TILE // wide
    wanted = _power_of_two(_ceil(pixels, tile * _PARTS))
    tiles = max(_FEWEST_TILES, min(_MOST_TILES, wanted))
    parts = _ceil(pixels, tile * tiles)
    sums = tokens.new_empty(2, rows, parts, channels, dtype=torch.float32)
    _spread_of_parts[parts, rows, channels // wide](
        tokens, sums, pixels, CHANNELS=channels, PIXELS=tile, WIDE=wide, TILES=tiles
    )
    factors = tokens.new_empty(2, rows, channels, dtype=torch.float32)
    group = channels // norm.num_groups
    _factors_of_groups[rows, norm.num_groups](
        sums, norm.weight, norm.bias, shift, factors, pixels, norm.eps,
        CHANNELS=channels, GROUP=group, WIDE=_power_of_two(group),
        PARTS=min(_PARTS, _power_of_two(parts)), PIXELS_OF_PART=tile * tiles,
    )  # fmt: skip
    result = torch.empty_like(tokens)
    # Only the first axis of a grid may exceed 65,535.
    _scaled[_ceil(pixels, tile), rows, channels // wide](
        tokens, factors, result, pixels, CHANNELS=channels, PIXELS=tile, WIDE=wide, SILU=silu
    )
    return result


# Triton's own functions for these take microseconds each.
def _ceil(length: int, part: int) -> int:
    return -(-length // part)


def _power_of_two(length: int) -> int:
    return 1 << (length - 1).bit_length()


def _width(channels: int) -> int:
    """Return the largest power of two, up to 512, that divides the channels."""
    return min(channels & -channels, 512)


@triton.jit
def _added(
    left, right, bias, result, tokens, CHANNELS: tl.constexpr, TOKENS: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    channel = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    inside = (token < tokens)[:, None] & (channel < CHANNELS)[None, :]
    index = token[:, None] * CHANNELS + channel[None, :]
    value = tl.load(left + index, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + channel).to(tl.float32)[None, :]
    value += tl.load(right + index, mask=inside, other=0.0).to(tl.float32)
    tl.store(result + index, value.to(result.dtype.element_ty), mask=inside)


def add_with_bias(left: Tensor, right: Tensor, bias: Tensor) -> Tensor:
    """Return the sum of two [rows, pixels, channels] and a bias [channels]."""
    channels = left.shape[-1]
    tokens, wide = left.numel() // channels, _width(channels)
    result = torch.empty_like(left)
    _added[_ceil(tokens, _TILE // wide), channels // wide](
        left, right, bias, result, tokens, CHANNELS=channels, TOKENS=_TILE // wide, WIDE=wide
    )
    return result


@triton.jit
def _gated(
    doubled, bias, result, tokens, CHANNELS: tl.constexpr, TOKENS: tl.constexpr, WIDE: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    channel = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    inside = (token < tokens)[:, None] & (channel < CHANNELS)[None, :]
    index = token[:, None] * (2 * CHANNELS) + channel[None, :]
    hidden = tl.load(doubled + index, mask=inside, other=0.0).to(tl.float32)
    gating = tl.load(doubled + index + CHANNELS, mask=inside, other=0.0).to(tl.float32)
    hidden += tl.load(bias + channel).to(tl.float32)[None, :]
    gating += tl.load(bias + CHANNELS + channel).to(tl.float32)[None, :]
    gelu = 0.5 * gating * (1.0 + tl.erf(gating * 0.7071067811865476))
    index = token[:, None] * CHANNELS + channel[None, :]
    tl.store(result + index, (hidden * gelu).to(result.dtype.element_ty), mask=inside)


def gate(doubled: Tensor, bias: Tensor) -> Tensor:
    """Add a bias, then multiply the first half of the channels by GELU of the other.

    GEGLU, arXiv 2002.05202.

    Args:
        doubled: [..., 2 * channels].
        bias: [2 * channels].
    """
    channels = doubled.shape[-1] // 2
    tokens, wide = doubled.numel() // (2 * channels), _width(channels)
    result = doubled.new_empty(*doubled.shape[:-1], channels)
    _gated[_ceil(tokens, _TILE // wide), channels // wide](
        doubled, bias, result, tokens, CHANNELS=channels, TOKENS=_TILE // wide, WIDE=wide
    )
    return result


@triton.jit
def _normed_sum(
    tokens, change, change_bias, weight, bias, table, total, result, pixels, eps,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Compute add_and_norm for some pixels of a frame of a video.

    With 320 channels, WIDE is 512, so that channels 320 to 511 are masked, and a program takes
    2048 // 512 = 4 pixels. With 16 frames, frame 1 of the second video is row 1 * 16 + 1 = 17, and
    takes entry 1 of the table.
    """
    PIXELS: tl.constexpr = _TILE_IN_KERNELS // WIDE if WIDE < _TILE_IN_KERNELS else 1
    frame, video = tl.program_id(1), tl.program_id(2)
    row = (video * tl.num_programs(1) + frame).to(tl.int64)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.arange(0, WIDE)
    known = channel < CHANNELS
    inside = (pixel < pixels)[:, None] & known[None, :]
    index = (row * pixels + pixel)[:, None] * CHANNELS + channel[None, :]
    value = tl.load(change + index, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(change_bias + channel, mask=known, other=0.0).to(tl.float32)[None, :]
    if tokens is not None:
        value += tl.load(tokens + index, mask=inside, other=0.0).to(tl.float32)
    rounded = value.to(total.dtype.element_ty)
    tl.store(total + index, rounded, mask=inside)
    value = rounded.to(tl.float32)
    mean = tl.sum(value, axis=1) / CHANNELS
    distance = tl.where(inside, value - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(distance * distance, axis=1) / CHANNELS + eps)
    factor = tl.load(weight + channel, mask=known, other=0.0).to(tl.float32)
    offset = tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)
    value = distance * scale[:, None] * factor[None, :] + offset[None, :]
    if table is not None:
        entry = tl.load(table + frame * CHANNELS + channel, mask=known, other=0.0)
        value += entry.to(tl.float32)[None, :]
    tl.store(result + index, value.to(result.dtype.element_ty), mask=inside)


def add_and_norm(
    tokens: Tensor | None, change: Tensor, bias: Tensor, norm: Any, *, table: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return `tokens` + `change` + `bias`, and its layer norm.

    Args:
        tokens: [rows, pixels, channels]; None is 0.
        change: [rows, pixels, channels].
        bias: [channels].
        norm: A LayerNorm.
        table: [frames, channels]; entry f is added to the normed rows f, f + frames, and so on.
    """
    rows, pixels, channels = change.shape
    frames = rows if table is None else len(table)
    wide = _power_of_two(channels)
    total, result = torch.empty_like(change), torch.empty_like(change)
    _normed_sum[_ceil(pixels, max(1, _TILE // wide)), frames, rows // frames](
        tokens, change, bias, norm.weight, norm.bias, table, total, result, pixels, norm.eps,
        CHANNELS=channels, WIDE=wide,
    )  # fmt: skip
    return total, result


@triton.jit
def _attended_over_frames(
    joined, result, pixels, scale, FRAMES: tl.constexpr, HEADS: tl.constexpr, SIZE: tl.constexpr,
    LONG: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    video_and_pixel, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    video, pixel = video_and_pixel // pixels, video_and_pixel % pixels
    frame, part = tl.arange(0, LONG), tl.arange(0, WIDE)
    inside = (frame < FRAMES)[:, None] & (part < SIZE)[None, :]
    token = (video * FRAMES + frame) * pixels + pixel
    channels = HEADS * SIZE
    index = token[:, None] * (3 * channels) + head * SIZE + part[None, :]
    query = tl.load(joined + index, mask=inside, other=0.0)
    key = tl.load(joined + index + channels, mask=inside, other=0.0)
    value = tl.load(joined + index + 2 * channels, mask=inside, other=0.0)
    score = tl.dot(query, tl.trans(key)) * scale
    score = tl.where((frame < FRAMES)[None, :], score, float("-inf"))
    share = tl.exp(score - tl.max(score, axis=1)[:, None])
    share /= tl.sum(share, axis=1)[:, None]
    attended = tl.dot(share.to(value.dtype), value)
    index = token[:, None] * channels + head * SIZE + part[None, :]
    tl.store(result + index, attended.to(result.dtype.element_ty), mask=inside)


def attend_over_frames(joined: Tensor, num_frames: int, *, heads: int, key_scale: float) -> Tensor:
    """Return softmax attention of each pixel to itself in all frames of its video.

    Args:
        joined: [batch * num_frames, pixels, 3 * channels], queries, keys and values side by side.
        num_frames: At most MOST_FRAMES, because a program holds the queries of all of them.
        heads: Heads that the channels are divided into.
        key_scale: Multiplies the keys.

    Returns:
        [batch * num_frames, pixels, channels].
    """
    rows, pixels, tripled = joined.shape
    channels = tripled // 3
    size = channels // heads
    result = joined.new_empty(rows, pixels, channels)
    _attended_over_frames[rows // num_frames * pixels, heads](
        joined, result, pixels, key_scale * size**-0.5,
        FRAMES=num_frames, HEADS=heads, SIZE=size,
        LONG=max(16, _power_of_two(num_frames)),
        WIDE=max(16, _power_of_two(size)),
        num_warps=1,
    )  # fmt: skip
    return result


@triton.jit
def _doubling_taps(
    weight, result, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """Compute one of the 4x4 taps of the transposed convolution from 1, 2 or 4 of 3x3 taps."""
    tap = tl.program_id(0)
    row, column = tap // 4, tap % 4
    source = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    target = tl.program_id(2) * WIDE + tl.arange(0, WIDE)
    inside = (target < OUTPUTS)[:, None] & (source < INPUTS)[None, :]
    index = target.to(tl.int64)[:, None] * (9 * INPUTS) + source[None, :]
    total = tl.zeros([WIDE, WIDE], tl.float32)
    for down in range(2):
        for right in range(2):
            # Rotated by 180°: a transposed convolution scatters where a correlation gathers.
            y, x = 3 - row - down, 3 - column - right
            nearest = tl.minimum(tl.maximum(y, 0), 2) * 3 + tl.minimum(tl.maximum(x, 0), 2)
            taps = tl.load(weight + index + nearest * INPUTS, mask=inside, other=0.0)
            is_there = (y >= 0) & (y < 3) & (x >= 0) & (x < 3)
            total += tl.where(is_there, taps.to(tl.float32), 0.0)
    index = source.to(tl.int64)[:, None] * (16 * OUTPUTS) + tap * OUTPUTS + target[None, :]
    inside = (source < INPUTS)[:, None] & (target < OUTPUTS)[None, :]
    tl.store(result + index, tl.trans(total).to(result.dtype.element_ty), mask=inside)


def upsample_kernel(weight: Tensor) -> Tensor:
    """Return the kernel [in, out, 4, 4] for one of [out, in, 3, 3]; see vae.UpsampleConv2d."""
    outputs, inputs = weight.shape[:2]
    weight = weight.contiguous(memory_format=torch.channels_last)
    result = weight.new_empty(inputs, 4, 4, outputs)
    wide = 64
    _doubling_taps[16, _ceil(inputs, wide), _ceil(outputs, wide)](
        weight, result, INPUTS=inputs, OUTPUTS=outputs, WIDE=wide
    )
    return result.permute(0, 3, 1, 2)
