"""Context windows: a video of any length, seen by the UNet some frames at a time.

The schedules and weights of AnimateDiff-Evolved, whose windows come from neggles/animatediff-cli
(Apache-2.0). Noise predictions of overlapping windows are averaged in every step.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..choices import check_types, checked, in_range
from ..errors import AnimateDiffV2VError
from ..ranges import CONTEXT_LENGTH, CONTEXT_OVERLAP, CONTEXT_STRIDE, SHARE
from .span import Span

if TYPE_CHECKING:
    from torch import Tensor

    from .noise_schedule import NoiseSchedule

logger = logging.getLogger(__name__)

# Frames in a pass without a motion module, when frames are independent.
BATCHED_FRAMES = 16

ContextSchedule = Literal["standard_static", "standard_uniform", "looped_uniform", "batched"]
FuseMethod = Literal["pyramid", "flat", "overlap-linear"]
ContextMemory = Literal["none", "ContextRef", "NaiveReuse", "FeatureBank"]
Window = list[int]


@dataclass(frozen=True, kw_only=True)
class ContextOptions:
    """Length and overlap of context windows, and how they are blended where they overlap."""

    length: int = 16
    """Frames in a window. Motion modules were trained on 16, and support at most 24 or 32."""
    overlap: int = 4
    """Frames that neighbouring windows share. More is smoother and slower."""
    stride: int = 1
    """Uniform schedules only: up to this many doublings of the distance between frames."""
    schedule: ContextSchedule = "standard_static"
    fuse: FuseMethod = "pyramid"
    closed_loop: bool = False
    """looped_uniform only: windows wrap from the last frame to the first, for looping videos."""
    memory: ContextMemory = "none"
    """How later windows are kept like the first one. ContextRef: they attend to its frames; see
    models.ops.window_memory. NaiveReuse: its prediction is blended in, over and over; see
    naive_reuse. Both as in AnimateDiff-Evolved. FeatureBank: their features are drawn towards
    those of the windows before; see models.ops.feature_bank."""
    memory_end: float = 1.0
    """Share of the noise schedule after which the memory no longer acts."""

    def __post_init__(self) -> None:
        """Refuse values that make no windows."""
        check_types(self)
        checked("schedule", self.schedule, ContextSchedule)
        checked("fuse", self.fuse, FuseMethod)
        checked("context memory", self.memory, ContextMemory)
        SHARE.check("memory_end", self.memory_end)
        CONTEXT_LENGTH.check("context length", self.length)
        CONTEXT_STRIDE.check("context stride", self.stride)
        in_range(
            "context overlap",
            self.overlap,
            CONTEXT_OVERLAP.low,
            self.length - 1,
            hint=f"less than the window's {self.length} frames",
        )

    def memory_at(
        self, sigma: Tensor, schedule: NoiseSchedule, *, num_frames: int
    ) -> ContextMemory:
        """Return the memory that acts at a noise level; a video of one window has none."""
        is_acting = num_frames > self.length and Span(0, self.memory_end).contains(sigma, schedule)
        return self.memory if is_acting else "none"


def window_for(
    limit: int | None, num_frames: int, context: ContextOptions | None
) -> ContextOptions:
    """Return the window options that `num_frames` frames are sampled with.

    Args:
        limit: Most frames that the motion module supports at once; None without one.
        num_frames: Frames of the video.
        context: The requested options; None is one window if the motion module supports that many
            frames, else windows of 16 that overlap by 4.

    Raises:
        AnimateDiffV2VError: windows longer than the module's positional encoding.
    """
    if context is None:
        # Without a motion module, frames are independent and can be cut anywhere.
        if num_frames <= (limit or BATCHED_FRAMES):
            return ContextOptions(length=num_frames, overlap=0)
        if limit is None:
            return ContextOptions(length=BATCHED_FRAMES, overlap=0, schedule="batched")
        length = min(ContextOptions.length, limit)
        overlap = min(ContextOptions.overlap, length // 2)
        logger.info(
            "%d frames are more than the motion module supports at once (%d): using context "
            "windows of %d, overlapping by %d.", num_frames, limit, length, overlap,
        )  # fmt: skip
        return ContextOptions(length=length, overlap=overlap)
    if limit is not None and context.length > limit:
        raise AnimateDiffV2VError(
            f"context length is {context.length}, but this motion module supports at most {limit} "
            f"frames at once: use {limit} or less, 16 is usual."
        )
    return context


def context_windows(num_frames: int, options: ContextOptions, *, step: int = 0) -> list[Window]:
    """Return the windows of a video at a sampling step, each a list of frame indices.

    Every frame is in at least one. A video no longer than a window is one window.

    >>> context_windows(10, ContextOptions(length=6, overlap=2))
    [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 9]]
    """
    if num_frames <= options.length:
        return [list(range(num_frames))]
    if options.schedule == "batched":
        return _batched(num_frames, options.length)
    if options.schedule == "standard_static":
        return _static(num_frames, options.length, options.length - options.overlap)
    windows = _uniform(num_frames, options, step)
    if options.schedule == "standard_uniform":
        windows = _without_wrapping(windows, num_frames, options.length)
    return [*windows, *_uncovered(windows, num_frames, options.length)]


def _batched(num_frames: int, length: int) -> list[Window]:
    starts = range(0, num_frames, length)
    return [list(range(start, min(start + length, num_frames))) for start in starts]


def _static(num_frames: int, length: int, advance: int) -> list[Window]:
    count = 1 + math.ceil((num_frames - length) / advance)
    starts = [min(i * advance, num_frames - length) for i in range(count)]
    return [list(range(start, start + length)) for start in starts]


def _uniform(num_frames: int, options: ContextOptions, step: int) -> list[Window]:
    """Return windows over the video as a ring, shifted in every step so that seams move."""
    shift = _bit_reversed_fraction(step)
    pad = round(num_frames * shift)
    doublings = min(options.stride, math.ceil(math.log2(num_frames / options.length)) + 1)
    wraps = options.closed_loop and options.schedule == "looped_uniform"
    windows = []
    for distance in (2**k for k in range(doublings)):
        span = options.length * distance
        if options.schedule == "standard_uniform" and span - distance >= num_frames:
            break  # the window would wrap more than once, and cannot be moved inside
        end = num_frames + pad - (0 if wraps else options.overlap)
        for start in range(int(shift * distance) + pad, end, span - options.overlap):
            windows.append([frame % num_frames for frame in range(start, start + span, distance)])
    return windows


def _bit_reversed_fraction(step: int) -> float:
    """Return 0, 1/2, 1/4, 3/4, 1/8, ...: the binary digits of `step` mirrored behind the point."""
    return sum(((step >> bit) & 1) / (2 << bit) for bit in range(step.bit_length()))


def _without_wrapping(windows: list[Window], num_frames: int, length: int) -> list[Window]:
    """Move windows that run past the last frame back inside, and drop duplicates.

    If such a window wrapped to the first frames, a window is added for them, unless the next window
    contains the first of them. In 8 frames, with length 4: [[2, 3, 4, 5], [6, 7, 0, 1]] becomes
    [[2, 3, 4, 5], [4, 5, 6, 7], [0, 1, 2, 3]].
    """
    kept: list[Window] = []
    queue = [list(window) for window in windows]
    index = 0
    while index < len(queue):
        window = queue[index]
        wrap = next((i for i in range(1, len(window)) if window[i] < window[i - 1]), None)
        if wrap is not None:
            first_wrapped = window[wrap]
            distances = [(frame - window[0]) % num_frames for frame in window]
            window = [num_frames - 1 - distances[-1] + distance for distance in distances]
            queue[index] = window
            if first_wrapped not in queue[(index + 1) % len(queue)]:
                start = min(first_wrapped, num_frames - length)
                queue.insert(index + 1, list(range(start, start + length)))
        if window not in kept:
            kept.append(window)
        index += 1
    return kept


def _uncovered(windows: list[Window], num_frames: int, length: int) -> list[Window]:
    """Return windows for the frames that a large stride leaves out."""
    extra: list[Window] = []
    covered = {frame for window in windows for frame in window}
    for frame in range(num_frames):
        if frame not in covered:
            start = min(frame, num_frames - length)
            extra.append(list(range(start, start + length)))
            covered.update(extra[-1])
    return extra


def window_weights(window: Window, num_frames: int, options: ContextOptions) -> Tensor:
    """Return the weight of each frame where windows overlap, [len(window)], float32."""
    import torch  # noqa: PLC0415 - the options, which are in this module, need none

    length = len(window)
    if options.fuse == "pyramid":
        ramp = torch.arange(1, length + 1, dtype=torch.float32)
        return torch.minimum(ramp, ramp.flip(0))
    weights = torch.ones(length)
    if options.fuse == "overlap-linear" and options.overlap > 0:
        # Never 0, because frames at the ends of the video may be in one window only.
        ramp = torch.linspace(1e-37, 1, options.overlap)
        overlap = min(options.overlap, length)
        if min(window) > 0:
            weights[:overlap] = ramp[:overlap]
        if max(window) < num_frames - 1:
            weights[-overlap:] = ramp.flip(0)[-overlap:]
    return weights
