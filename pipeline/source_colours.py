"""Brightness and colour of a result, held to those of its source.

Statistics are those of Oklab (Björn Ottosson 2020, https://bottosson.github.io/posts/oklab), in
which equal distances look equally different: the mean and the standard deviation of lightness and
of the two colour axes. A change of them moves and stretches the colours of a whole frame, so no
pixel is treated differently from another of its colour.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional

from .errors import AnimateDiffV2VError
from .ranges import SHARE

# Corrections are averaged over as many frames on either side.
REACH = 4
# A frame counts half in that average if its lightness differs from this one's by so much, less
# beyond: corrections do not leak across a cut.
LIGHTNESS_TOLERANCE = 0.1
# Below this spread a channel is mostly noise, which would be amplified.
LEAST_SPREAD = 0.01
MOST_STRETCH = 2.0

_TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


def to_oklab(frames: Tensor) -> Tensor:
    """Return sRGB frames [..., 3], float 0..1, as Oklab: lightness 0..1, two axes of -0.4..0.4."""
    linear = torch.where(
        frames <= 0.04045, frames / 12.92, ((frames.clamp(min=0) + 0.055) / 1.055) ** 2.4
    )
    return _multiplied(_multiplied(linear, _TO_LMS).clamp(min=0) ** (1 / 3), _TO_LAB)


def from_oklab(lab: Tensor) -> Tensor:
    """Return Oklab as sRGB frames; colours that no screen can show are cut to 0..1."""
    linear = _multiplied(_multiplied(lab, _inverse(_TO_LAB)) ** 3, _inverse(_TO_LMS)).clamp(0, 1)
    return torch.where(
        linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=1e-9) ** (1 / 2.4) - 0.055
    ).clamp(0, 1)


def _inverse(matrix: tuple[tuple[float, ...], ...]) -> list[list[float]]:
    rows: list[list[float]] = torch.linalg.inv(torch.tensor(matrix, dtype=torch.float64)).tolist()
    return rows


def _multiplied(colours: Tensor, matrix: Iterable[Iterable[float]]) -> Tensor:
    # One channel after another: a product of matrices may use other kernels for other sizes, whose
    # sums round differently.
    channels = colours.unbind(-1)
    rows = [sum(f * channel for f, channel in zip(row, channels, strict=True)) for row in matrix]
    return torch.stack([row for row in rows if isinstance(row, Tensor)], dim=-1)


def colour_statistics(frame: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return mean and standard deviation of the three channels of Oklab, [2, 3] on the CPU.

    Args:
        frame: [height, width, 3], sRGB, uint8 or float 0..1.
        weight: How much each pixel counts, float 0..1, [height, width] of any size; None counts all
            fully. Where nothing counts, the result is NaN.
    """
    floats = frame.float() / 255 if frame.dtype == torch.uint8 else frame.float()
    lab = to_oklab(floats).flatten(0, 1)
    if weight is None:
        mean, spread = lab.mean(dim=0), lab.std(dim=0, correction=0)
    else:
        share = resized(weight, frame).flatten().unsqueeze(1)
        mean = (lab * share).sum(dim=0) / share.sum()
        spread = (((lab - mean) ** 2 * share).sum(dim=0) / share.sum()).sqrt()
    return torch.stack([mean, spread]).cpu()


def resized(mask: Tensor, frame: Tensor) -> Tensor:
    """Return a mask [height, width] at the size of a frame, on its device."""
    size, given = frame.shape[:2], mask.to(frame.device, torch.float32)
    if given.shape == size:
        return given
    return functional.interpolate(given[None, None], size, mode="bilinear", antialias=True)[0, 0]


class SourceColours:
    """The colours of a source's frames, to which the frames of its result are held.

    Only six numbers are kept of each frame of the source, and a few frames of the result at a time.
    """

    def __init__(self, strength: float, mask: Tensor | None = None) -> None:
        """Prepare for a video.

        Args:
            strength: 0 leaves frames as they are, to the bit; 1 gives them the source's colours.
            mask: Float 0..1, [masks, height, width]: what counts and what is changed, one for each
                frame or one for all. None counts and changes everything.

        Raises:
            AnimateDiffV2VError: the strength is out of range.
        """
        SHARE.check("match_source", strength)
        self.strength, self._mask = strength, mask
        self._source: list[Tensor] = []

    def add(self, frames: Tensor) -> None:
        """Note the colours of the source's next frames, [n, height, width, 3], uint8 or float."""
        if self.strength:
            self._source += [
                colour_statistics(frame, self._weight(len(self._source) + index))
                for index, frame in enumerate(frames)
            ]

    def matched(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the result's frames in the colours of the source.

        The correction of a frame is the mean of those of its neighbours in time, so that a single
        frame does not jump. The bytes do not depend on how frames come in chunks.

        Args:
            chunks: The result's frames in order, float 0..1, [n, height, width, 3] each.

        Yields:
            The chunks unchanged at strength 0, otherwise chunks of one frame.

        Raises:
            AnimateDiffV2VError: there are more or fewer of them than of the source's.
        """
        if not self.strength:
            yield from chunks
            return
        waiting: deque[Tensor] = deque()
        corrections: deque[Tensor] = deque(maxlen=2 * REACH + 1)
        seen = 0
        for frame in (frame for chunk in chunks for frame in chunk):
            self._check_count(at_least=seen + 1)
            corrections.append(self._correction(frame, seen))
            waiting.append(frame)
            seen += 1
            if len(waiting) > REACH:
                yield self._next(waiting, corrections, seen)
        self._check_count(at_least=seen, at_most=seen)
        while waiting:
            yield self._next(waiting, corrections, seen)

    def _check_count(self, *, at_least: int, at_most: int | None = None) -> None:
        known = len(self._source)
        if known < at_least or (at_most is not None and known > at_most):
            more = "more" if known < at_least else "fewer"
            raise AnimateDiffV2VError(
                f"There are {more} restyled frames than the source's {known}: each takes the "
                "colours of the source's frame of its number."
            )

    def _next(self, waiting: deque[Tensor], corrections: deque[Tensor], seen: int) -> Tensor:
        """Return the frame that waits longest, corrected, [1, height, width, 3]."""
        index, first = seen - len(waiting), seen - len(corrections)
        # Of frames 0 to 11, corrections 3 to 11 are kept and 7 waits longest: its own is the 4th.
        low = max(0, index - first - REACH)
        near = torch.stack(list(islice(corrections, low, index - first + REACH + 1)))
        shift, stretch = self._smoothed(near, index, first + low)
        frame = waiting.popleft()
        mean = near[index - first - low, 2]
        offset = (mean + shift - mean * stretch).to(frame.device)
        changed = from_oklab(to_oklab(frame) * stretch.to(frame.device) + offset)
        share: Tensor | float = self.strength
        if (weight := self._weight(index)) is not None:
            share = resized(weight, frame).unsqueeze(-1) * self.strength
        return (frame + share * (changed - frame)).unsqueeze(0)

    def _correction(self, frame: Tensor, index: int) -> Tensor:
        """Return the shift and log stretch from a frame's colours to the source's, and its mean."""
        wanted = self._source[index]
        mean, spread = colour_statistics(frame, self._weight(index))
        stretch = (wanted[1] + LEAST_SPREAD) / (spread + LEAST_SPREAD)
        limited = stretch.clamp(1 / MOST_STRETCH, MOST_STRETCH).log()
        return torch.stack([wanted[0] - mean, limited, mean]).nan_to_num(0.0)

    def _smoothed(self, near: Tensor, index: int, first: int) -> tuple[Tensor, Tensor]:
        """Return shift and stretch of a frame from the corrections of frames from `first` on."""
        lightness = torch.stack(self._source[first : first + len(near)])[:, 0, 0]
        distance = (torch.arange(first, first + len(near)) - index).abs()
        difference = (lightness - lightness[index - first]) / LIGHTNESS_TOLERANCE
        weights = (1 - distance / (REACH + 1)) / (1 + difference**2)
        weights = weights.nan_to_num(0.0).reshape(-1, 1, 1)
        if not weights.sum():  # nothing of this frame counts
            return torch.zeros(3), torch.ones(3)
        shift, stretch = (near[:, :2] * weights).sum(dim=0) / weights.sum()
        return shift, stretch.exp()

    def _weight(self, index: int) -> Tensor | None:
        if self._mask is None:
            return None
        return self._mask[min(index, len(self._mask) - 1)]
