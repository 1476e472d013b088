"""The arithmetic of frame selection, without decoding.

The order is: cut out the time span, resample its frames to a constant rate (`force_rate`, or the
video's own rate), skip, keep every nth, stop at the cap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from ..errors import AnimateDiffV2VError
from ..ranges import FORCED_FRAME_RATE, FRAMES, NTH_FRAME, SECONDS

Frame = TypeVar("Frame")

HIGHEST_RATE = int(FORCED_FRAME_RATE.high)
# People write 23.976, 29.97 and 59.94 for 24000/1001, 30000/1001 and 60000/1001.
NTSC_TOLERANCE = Fraction(1, 1000)


def exact_rate(value: int | float | str | Fraction, *, name: str = "frame_rate") -> Fraction:
    """Turn a frame rate in frames per second into an exact fraction; 29.97 means 30000/1001.

    Raises:
        AnimateDiffV2VError: when `value` is not a number, negative, or above 1000.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        rate = Fraction(value)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError):
        raise AnimateDiffV2VError(
            f"{name} is {value!r}, which is not a frame rate; give a number such as 8, 29.97 or"
            " '30000/1001'."
        ) from None
    if not 0 <= rate <= HIGHEST_RATE:
        raise AnimateDiffV2VError(f"{name} is {value} frames per second; give 0 to {HIGHEST_RATE}.")
    if isinstance(value, Fraction | int) or (isinstance(value, str) and "/" in value):
        return rate
    ntsc = Fraction(round(rate * Fraction(1001, 1000)) * 1000, 1001)
    if rate.denominator != 1 and abs(rate - ntsc) < NTSC_TOLERANCE:
        return ntsc
    return rate.limit_denominator(1001)


@dataclass(frozen=True, kw_only=True)
class FrameSelection:
    """The frames of a video to keep.

    Attributes:
        select_every_nth_frame: keep the first frame after the skip and every nth from there, >= 1.
        skip_first_frames: number of frames to skip, counted after `force_rate`, >= 0.
        frame_load_cap: maximum number of frames, 0 for all.
        force_rate: frames per second to convert the video to before anything is counted, by time
            stamps (frames are repeated or dropped, the duration stays the same); 0 for the video's
            own rate.
        start_time_seconds: start of the time span.
        duration_seconds: duration of the time span; 0 reaches to the end.

    Raises:
        AnimateDiffV2VError: for a value out of its range.
    """

    select_every_nth_frame: int = 1
    skip_first_frames: int = 0
    frame_load_cap: int = 0
    force_rate: Fraction = Fraction(0)
    start_time_seconds: float = 0
    duration_seconds: float = 0

    def __post_init__(self) -> None:
        """Check all fields and make the rate exact."""
        NTH_FRAME.check(
            "select_every_nth_frame", self.select_every_nth_frame, hint="1 keeps every frame"
        )
        FRAMES.check("skip_first_frames", self.skip_first_frames, hint="0 skips none")
        FRAMES.check("frame_load_cap", self.frame_load_cap, hint="0 keeps all")
        SECONDS.check("start_time_seconds", self.start_time_seconds, hint="0 is the beginning")
        SECONDS.check("duration_seconds", self.duration_seconds, hint="0 reaches to the end")
        object.__setattr__(self, "force_rate", exact_rate(self.force_rate, name="force_rate"))

    def kept_count(self, frame_count: int) -> int:
        """Return how many of `frame_count` frames (counted after `force_rate`) are kept.

        min(cap, ceil((frame_count - skip) / nth)), never below 0.
        """
        left = max(0, frame_count - self.skip_first_frames)
        kept = -(-left // self.select_every_nth_frame)
        return min(kept, self.frame_load_cap) if self.frame_load_cap else kept

    def grid_rate(self, source_rate: Fraction) -> Fraction:
        """Return the frame rate in which skipped and nth frames are counted."""
        return self.force_rate or source_rate

    def output_rate(self, source_rate: Fraction) -> Fraction:
        """Return the frame rate of the kept frames: (forced rate, or source rate) / nth."""
        return self.grid_rate(source_rate) / self.select_every_nth_frame

    def first_seconds(self, source_rate: Fraction) -> Fraction:
        """Return the time of the first kept frame in the video."""
        skipped = self.skip_first_frames / self.grid_rate(source_rate)
        return Fraction(self.start_time_seconds) + skipped

    def span_seconds(self, video_seconds: Fraction | None) -> Fraction | None:
        """Return the duration of the time span in a video of `video_seconds`; None if unknown.

        Zero or less means that the span starts after the end of the video.
        """
        wanted = Fraction(self.duration_seconds) or None
        if video_seconds is None:
            return wanted
        there = video_seconds - Fraction(self.start_time_seconds)
        return min(wanted, there) if wanted else there

    def is_kept(self, grid_index: int) -> bool:
        """Return whether the frame with this index on the grid is kept, ignoring the cap."""
        after_skip = grid_index - self.skip_first_frames
        return after_skip >= 0 and after_skip % self.select_every_nth_frame == 0


def grid_count(span_seconds: Fraction, *, source_rate: Fraction, rate: Fraction) -> int:
    """Count the times 0, 1/rate, 2/rate ... in a span of a video.

    No new frame starts in the last half frame (of the source or of the grid, whichever is
    shorter), which is closer to the end than to a frame. So 10 frames at 30/s give 10 at 30/s, 5
    at 15/s, 4 at 10/s and 20 at 60/s, and time stamps rounded to milliseconds change nothing.
    """
    if span_seconds <= 0:
        return 0
    last = span_seconds - last_half_frame(source_rate=source_rate, rate=rate)
    return math.floor(max(Fraction(0), last) * rate) + 1


def last_half_frame(*, source_rate: Fraction, rate: Fraction) -> Fraction:
    """Return the seconds before the end of a span in which no new grid time is allowed."""
    return 1 / (2 * max(source_rate, rate))


def nearest_on_grid(
    timed_frames: Iterable[tuple[Fraction, Frame]],
    *,
    rate: Fraction,
    source_rate: Fraction,
    start_seconds: Fraction = Fraction(0),
    span_seconds: Fraction | None = None,
    last_frame_seconds: Fraction | None = None,
) -> Iterator[Frame]:
    """Yield the frame nearest to each grid time start + k / rate; of two, the earlier.

    Example: of frames at 0, 0.1, 0.2 and 0.9 s, a rate of 4 yields 0 (for 0 s), 0.2 (for 0.25 and
    0.5 s) and 0.9 (for 0.75 s).

    Args:
        timed_frames: pairs of seconds (ascending) and frame; read one ahead, never stored.
        start_seconds: the first grid time.
        rate: frames per second of the grid.
        source_rate: frames per second of the source.
        span_seconds: the duration to fill; None for the end of the frames.
        last_frame_seconds: how long the last frame is shown; 1 / source_rate by default.
    """
    count = None
    if span_seconds is not None:
        count = grid_count(span_seconds, source_rate=source_rate, rate=rate)
    index = 0
    held: tuple[Fraction, Frame] | None = None
    for seconds, frame in timed_frames:
        if held is not None:
            middle = (held[0] + seconds) / 2
            while (count is None or index < count) and start_seconds + index / rate <= middle:
                yield held[1]
                index += 1
            if index == count:
                return
        held = (seconds, frame)
    if held is None:
        return
    reached = held[0] + (last_frame_seconds or 1 / source_rate) - start_seconds
    end = grid_count(reached, source_rate=source_rate, rate=rate)
    for _ in range(index, end if count is None else min(end, count)):
        yield held[1]
