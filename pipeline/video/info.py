"""Properties of a video, and the timing of its frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from .container import ByteRange
from .geometry import NO_CROPPING, Cropping
from .orientation import Orientation
from .selection import HIGHEST_RATE, exact_rate

# Phones and screen recorders jitter; up to this fraction of a frame, a rate counts as constant.
RATE_TOLERANCE = Fraction(1, 5)


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """The properties of a video as it is displayed.

    Attributes:
        width: in pixels, after rotation and with square pixels.
        height: in pixels, after rotation and with square pixels.
        stored_width: in pixels, as in the file.
        stored_height: in pixels, as in the file.
        frame_rate: frames per second, exact; the mean if the rate varies.
        frame_count: None if only decoding can tell.
        duration_seconds: of the video stream; 0 if unknown.
        start_seconds: the time stamp of the first frame, which all times are relative to.
        last_frame_seconds: how long the last frame is shown.
        orientation: from the stored to the displayed picture.
        cropping: pixels to remove from the stored picture at its left, top, right and bottom.
        has_time_stamps: False if frames can only be counted.
        colour_transfer: ffmpeg's number of the transfer function (16 is PQ, 18 is HLG).
        byte_range: the part of the file with the video; None for all of it.
        parts: the videos in a file of several joined ones; empty otherwise.
    """

    path: Path
    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    stored_width: int
    stored_height: int
    pixel_aspect: Fraction
    orientation: Orientation
    cropping: Cropping = NO_CROPPING
    frame_rate: Fraction
    variable_frame_rate: bool
    frame_count: int | None
    duration_seconds: float
    start_seconds: Fraction
    last_frame_seconds: Fraction
    has_time_stamps: bool
    has_audio: bool
    has_alpha: bool
    colour_transfer: int
    byte_range: ByteRange | None = None
    parts: tuple[VideoInfo, ...] = ()

    @property
    def rotation_degrees(self) -> int:
        """Return 0, 90, 180 or 270, counter-clockwise from the stored to the displayed picture."""
        return 90 * self.orientation.quarter_turns

    @property
    def duration(self) -> Fraction | None:
        """Return the duration in seconds, as exactly as it is known; None if it is unknown."""
        if self.frame_count is not None and not self.variable_frame_rate:
            return self.frame_count / self.frame_rate
        return Fraction(self.duration_seconds) if self.duration_seconds else None


def joined_info(parts: Sequence[VideoInfo]) -> VideoInfo:
    """Return the properties of joined videos; the first one determines size and colours."""
    first = parts[0]
    if len(parts) == 1:
        return first
    lengths = [each.duration or Fraction(0) for each in parts]
    counts = [each.frame_count for each in parts]
    count = None if None in counts else sum(each or 0 for each in counts)
    alike = all(each.frame_rate == first.frame_rate for each in parts)
    return replace(
        first,
        frame_count=count,
        duration_seconds=float(sum(lengths)),
        variable_frame_rate=not alike or any(each.variable_frame_rate for each in parts),
        last_frame_seconds=parts[-1].last_frame_seconds,
        has_audio=any(each.has_audio for each in parts),
        byte_range=None,
        parts=tuple(parts),
    )


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The timing of the frames of a video, in seconds of the file's time stamps.

    Attributes:
        start: the time of the first frame; None for its own time stamp.
    """

    frame_rate: Fraction
    variable: bool
    frame_count: int | None
    duration: Fraction
    start: Fraction | None
    last_frame: Fraction

    @staticmethod
    def constant(
        *, frame_rate: Fraction, frame_count: int, start: Fraction = Fraction(0)
    ) -> Timing:
        """Return the timing of frames of equal duration."""
        return Timing(
            frame_rate=frame_rate,
            variable=False,
            frame_count=frame_count,
            duration=frame_count / frame_rate,
            start=start,
            last_frame=1 / frame_rate,
        )


def timing_from_times(
    times: Sequence[Fraction], *, rates: Sequence[Fraction], last_frame: Fraction, tick: Fraction
) -> Timing:
    """Return the timing of frames shown at `times` (ascending seconds, at least one).

    Args:
        times: the time stamps.
        rates: the rates in the header; the first one that matches the times is used.
        last_frame: how long the last frame is shown, 0 if unknown.
        tick: the precision of the file's time stamps in seconds.
    """
    start, span, count = times[0], times[-1] - times[0], len(times)
    length = span + last_frame if last_frame else span * Fraction(count, max(1, count - 1))
    candidates = [
        each for rate in rates if 0 < rate <= HIGHEST_RATE for each in rate_readings(rate)
    ]
    if span > 0:
        candidates.append(_rate_within_reason((count - 1) / span))
    elif last_frame and count == 1:
        candidates.append(_rate_within_reason(1 / last_frame))
    for rate in candidates:
        if _is_constant(times, rate, tick=tick):
            return Timing.constant(frame_rate=rate, frame_count=count, start=start)
    mean = _rate_within_reason(count / length) if length else Fraction(25)
    return Timing(
        frame_rate=mean,
        variable=True,
        frame_count=count,
        duration=length or count / mean,
        start=start,
        last_frame=last_frame or 1 / mean,
    )


def rate_readings(rate: Fraction) -> list[Fraction]:
    """Return the exact rates that a header's rate may stand for: 19001/317 may mean 60000/1001."""
    exact = _rate_within_reason(rate)
    return [rate] if rate.denominator <= 10 or rate.denominator == 1001 else [exact, rate]


def _rate_within_reason(rate: Fraction) -> Fraction:
    """Make a rate exact, and clamp a rate from damaged times to 0.001 to 1000."""
    return exact_rate(min(float(HIGHEST_RATE), max(0.001, float(rate))))


def _is_constant(times: Sequence[Fraction], rate: Fraction, *, tick: Fraction) -> bool:
    # Floats are precise enough here and a hundred times faster than fractions.
    start, step = float(times[0]), float(1 / rate)
    allowed = float(max(tick, RATE_TOLERANCE / rate))
    return all(abs(float(time) - start - i * step) <= allowed for i, time in enumerate(times))
