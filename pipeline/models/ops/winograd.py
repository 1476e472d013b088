"""3x3 convolutions on a CPU by Winograd's scheme, with a quarter of the multiplications.

A tile of 6x6 pixels becomes 36 sums of its pixels, the kernel 36 sums of its taps. Their products,
added up over the channels, give 4x4 pixels of the result after a last change of basis: 36
multiplications where the definition takes 144. F(4x4, 3x3) in arXiv 1509.09308 (Lavin and Gray),
with its points 0, 1, -1, 2, -2 and infinity.

In float32 the error is three times that of summing up one by one: 3e-6 of the result's norm. Tiles
and kernels are treated in parts, so that the sums stay in the caches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_TILE = 4  # pixels of the result, along a side
_SEEN = 6  # pixels of the input that a tile depends on, along a side
_SUMS = _SEEN * _SEEN
# Elements of the sums of tiles, and of kernels, at a time: 25 and 50 MB.
_SUMS_AT_ONCE = 6 * 2**20
_KERNELS_AT_ONCE = 12 * 2**20
# MKL sums up in another order where a thread has few rows; see linear.py.
_ROWS_PER_THREAD = 16


def convolve(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with 3x3 kernels, zeros around the features.

    Args:
        features: [rows, channels, height, width], float32, channels first or last in memory.
        weight: [channels of the result, channels, 3, 3].
        bias: [channels of the result].

    Returns:
        [rows, channels of the result, height, width], laid out in memory like the features.
    """
    rows, _, height, width = features.shape
    outputs, channels = weight.shape[:2]
    is_last = features.is_contiguous(memory_format=torch.channels_last)
    result = features.new_empty(rows, height, width, outputs).permute(0, 3, 1, 2)
    if not is_last:
        result = features.new_empty(rows, outputs, height, width)
    at_once = max(1, _SUMS_AT_ONCE // (_SUMS * channels))
    kernels = _Kernels(weight)
    work = _Work()
    for part in _parts(rows, height, width, at_once):
        tiles = _sums_of_tiles(features, part, work)
        for some in kernels.parts:
            # The pixels of the tiles are in their sums now.
            made = work.of("pixels", _SUMS, tiles.shape[1], some.stop - some.start)
            torch.bmm(tiles, kernels.of(some), out=made)
            pixels = _pixels(made, part, work)
            into = result[part.rows, some, part.top : part.top + part.height]
            pixels = pixels[:, :, : part.height, :width]
            if bias is None:
                into.copy_(pixels)
            else:
                torch.add(pixels, bias[some, None, None], out=into)
    return result


class _Work:
    """Memory that the parts of one convolution share: fresh pages cost more than the sums."""

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}

    def of(self, name: str, *shape: int) -> Tensor:
        """Return a tensor of a shape, with any content, in the memory of this name."""
        size = math.prod(shape)
        if name not in self._flat or self._flat[name].numel() < size:
            self._flat[name] = torch.empty(size)
        return self._flat[name][:size].view(shape)


class _Part(NamedTuple):
    """Tiles that are treated together: the same rows of tiles of some frames."""

    rows: slice
    top: int
    """First row of pixels."""
    height: int
    """Rows of pixels, of which the last ones may fall short of a tile."""
    across: int
    """Tiles from left to right."""

    @property
    def down(self) -> int:
        """Tiles from top to bottom."""
        return -(-self.height // _TILE)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, tiles from top to bottom and from left to right."""
        return self.rows.stop - self.rows.start, self.down, self.across


def _parts(rows: int, height: int, width: int, at_once: int) -> Iterator[_Part]:
    """Yield parts of at most `at_once` tiles, the largest first."""
    down, across = -(-height // _TILE), -(-width // _TILE)
    frames = max(1, at_once // (down * across))
    lines = _TILE * min(down, max(1, at_once // across))
    for first in range(0, rows, frames):
        for top in range(0, height, lines):
            last = min(rows, first + frames)
            yield _Part(slice(first, last), top, min(lines, height - top), across)


class _Kernels:
    """The sums of kernels, a few at a time; computed once if that is all of them."""

    def __init__(self, weight: Tensor) -> None:
        outputs, channels = weight.shape[:2]
        at_once = max(1, _KERNELS_AT_ONCE // (_SUMS * channels))
        self.parts = [
            slice(first, min(outputs, first + at_once)) for first in range(0, outputs, at_once)
        ]
        self._weight = weight.flatten(2).transpose(1, 2)
        self._sums = weight.new_empty(min(outputs, at_once), _SUMS, channels)
        self._computed: slice | None = None

    def of(self, some: slice) -> Tensor:
        """Return the sums of some kernels, [36, channels, kernels]; valid until the next call."""
        sums = self._sums[: some.stop - some.start]
        if some != self._computed:
            taps = self._weight[some]
            torch.bmm(_bases().kernels.expand(len(taps), -1, -1), taps, out=sums)
            self._computed = some
        return sums.permute(1, 2, 0)


def _sums_of_tiles(features: Tensor, part: _Part, work: _Work) -> Tensor:
    """Return the sums of a part's tiles, [36, tiles, channels]."""
    frames, down, across = part.shape
    channels, height, width = features.shape[1:]
    seen = work.of("seen", frames, _TILE * down + 2, _TILE * across + 2, channels).zero_()
    first, last = max(0, part.top - 1), min(height, part.top + part.height + 1)
    skipped = first - (part.top - 1)
    seen[:, skipped : skipped + last - first, 1 : width + 1] = features[
        part.rows, :, first:last
    ].permute(0, 2, 3, 1)
    frame, line, pixel, channel = seen.stride()
    pixels = work.of("pixels", _SEEN, _SEEN, frames, down, across, channels)
    pixels.copy_(
        seen.as_strided(pixels.shape, (line, pixel, frame, _TILE * line, _TILE * pixel, channel))
    )
    tiles = frames * down * across
    filled = max(tiles, _ROWS_PER_THREAD * torch.get_num_threads())
    sums = work.of("sums", _SUMS, tiles, channels)
    torch.mm(_bases().tiles, pixels.view(_SUMS, -1), out=sums.view(_SUMS, -1))
    return functional.pad(sums, (0, 0, 0, filled - tiles)) if filled > tiles else sums


def _pixels(products: Tensor, part: _Part, work: _Work) -> Tensor:
    """Return the result of a part, [frames, channels, height, width], whole tiles."""
    frames, down, across = part.shape
    tiles, channels = frames * down * across, products.shape[2]
    if products.shape[1] > tiles:
        products = products[:, :tiles].contiguous()
    pixels = work.of("results", _TILE * _TILE, tiles * channels)
    torch.mm(_bases().results, products.view(_SUMS, -1), out=pixels)
    placed = work.of("placed", frames, down, _TILE, across, _TILE, channels)
    placed.copy_(
        pixels.view(_TILE, _TILE, frames, down, across, channels).permute(2, 3, 0, 4, 1, 5)
    )
    return placed.view(frames, _TILE * down, _TILE * across, channels).permute(0, 3, 1, 2)


class _Bases(NamedTuple):
    """The changes of basis for both directions of a tile at once."""

    tiles: Tensor
    """[36 sums, 36 pixels]; B transposed of the paper, with itself."""
    kernels: Tensor
    """[36 sums, 9 taps]; G."""
    results: Tensor
    """[16 pixels, 36 sums]; A transposed."""


@cache
def _bases() -> _Bases:
    tiles = [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
    kernels = [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
    results = [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]
    exact = (torch.tensor(each, dtype=torch.float64) for each in (tiles, kernels, results))
    return _Bases(*(torch.kron(each, each).float() for each in exact))
