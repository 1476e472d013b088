"""Strengths along the frames of a video: a number, or a curve such as `0: 0.2, 24: 1.0`."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast, get_args

from .choices import check_types, in_range, shown
from .errors import AnimateDiffV2VError
from .prompts.frame_index import Frames, parse_frames
from .ranges import SHARE, Range

Easing = Literal["linear", "ease", "hold"]

EXAMPLE = "0: 0.2, 24: 1.0"
_SEPARATORS = re.compile(r"[,，;；\n]")
_QUOTES = "\"'“”„"
_POINT = re.compile(r"(?P<frame>[^:：=]+)[:：=](?P<value>.*)", re.DOTALL)
_VALUE = re.compile(r"\(?\s*(?P<number>[^\s()]*)\s*\)?\s*(?P<easing>.*)", re.DOTALL)


class Point(NamedTuple):
    """A point of a curve."""

    frame: int
    number: float
    easing: Easing
    """How the number changes from the point before: linear; ease, slowly at both ends; hold, which
    keeps the number of that point and jumps at this frame."""


class _Written(NamedTuple):
    frames: Frames
    number: float
    easing: Easing


@dataclass(frozen=True)
class Curve:
    """A strength along the frames of a video, as text.

    >>> Curve("0: 0.5, 4: 1.5").values(6)
    (0.5, 0.75, 1.0, 1.25, 1.5, 1.5)

    Points are `frame: number`, separated by commas, semicolons or line breaks; brackets and quotes
    as in JSON and FizzNodes are ignored. Frames are those of the output as in prompt schedules: -1
    is the last, 0.5 is halfway, max_f is their number. A word after a number says how the curve
    reaches it: `linear` (the default), `ease` or `hold`; see Point.easing. Before the first point
    and after the last one the number stays the same.
    """

    text: str
    is_cut: bool = False
    """True leaves out points beyond the last frame, which are an error otherwise."""
    start: float = 0.0
    """LoRAs only: the share of the noise schedule before which the strength is 0."""
    end: float = 1.0
    """The share after which it is 0."""

    def __post_init__(self) -> None:
        """Raise AnimateDiffV2VError, quoting the part, if the text is not a curve."""
        check_types(self)
        SHARE.check("start", self.start)
        in_range("end", self.end, self.start, 1)
        points = self._written()
        if not any(point.frames.is_relative for point in points):
            self._placed(points, num_frames=None)

    @classmethod
    def of_values(cls, numbers: Sequence[float]) -> Curve:
        """Return the curve with a number for each frame, and the last one for all frames after.

        Raises:
            AnimateDiffV2VError: there are no numbers.
        """
        points = [f"{frame}: {float(number)!r}" for frame, number in enumerate(numbers)]
        return cls(", ".join(points), is_cut=True)

    def __str__(self) -> str:
        """Return the text, on one line."""
        return ", ".join(part.strip() for part in self._parts())

    def __format__(self, spec: str) -> str:
        """Return the text whatever the format is, since a curve stands where a number can."""
        return str(self)

    @property
    def is_whole(self) -> bool:
        """True if it acts in all of the noise schedule."""
        return (self.start, self.end) == (0.0, 1.0)

    @property
    def numbers(self) -> tuple[float, ...]:
        """The numbers of the points; all values lie between the lowest and the highest."""
        return tuple(point.number for point in self._written())

    @property
    def last_frame(self) -> int:
        """The last frame that is named by its number; 0 if all depend on the video's length."""
        frames = [point.frames for point in self._written()]
        return max((each.start.frame(1) for each in frames if not each.is_relative), default=0)

    def values(self, num_frames: int) -> tuple[float, ...]:
        """Return the number of each frame of a video.

        Raises:
            AnimateDiffV2VError: a point lies beyond the last frame, or before the one in front.
        """
        points = self._placed(self._written(), num_frames=num_frames)
        frames = [point.frame for point in points]
        return tuple(
            _between(points, bisect_right(frames, frame), frame) for frame in range(num_frames)
        )

    def _parts(self) -> list[str]:
        inside = self.text.strip().removeprefix("{").removesuffix("}")
        return [part for part in _SEPARATORS.split(inside) if part.strip()]

    def _written(self) -> list[_Written]:
        parts = self._parts()
        if not parts:
            raise AnimateDiffV2VError(
                f"The curve is empty; write `frame: number`, for example `{EXAMPLE}`."
            )
        return [self._point(part.strip()) for part in parts]

    def _point(self, part: str) -> _Written:
        match = _POINT.fullmatch(part)
        frames = parse_frames(match["frame"].strip(_QUOTES + " ")) if match else None
        if match is None or frames is None or frames.holds:
            raise self._wrong(
                f"{part!r} names no frame; write `frame: number`, for example `{EXAMPLE}`"
            )
        found = _VALUE.fullmatch(match["value"].strip(_QUOTES + " "))
        assert found is not None  # it matches any text
        try:
            number = float(found["number"])
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self._wrong(f"{found['number']!r} at frame {frames.start.text} is not a number")
        easing = found["easing"].strip().lower() or "linear"
        if easing not in get_args(Easing):
            raise self._wrong(
                f"the easing at frame {frames.start.text} is {easing!r}; it can be "
                f"{', '.join(get_args(Easing))}"
            )
        return _Written(frames, number, cast(Easing, easing))

    def _placed(self, written: Sequence[_Written], *, num_frames: int | None) -> list[Point]:
        """Return the points with frame numbers; None is a video of unknown length."""
        points: list[Point] = []
        for point in written:
            text = point.frames.start.text
            try:
                frame = point.frames.start.frame(num_frames or 1)
            except (ValueError, ArithmeticError):
                raise self._wrong(
                    f"frame {text} is not in a video of {num_frames} frames"
                ) from None
            if points and frame <= points[-1].frame:
                raise self._wrong(
                    f"frame {text} comes after frame {points[-1].frame}; give each frame once, in "
                    "ascending order"
                )
            if num_frames is not None and frame >= num_frames and not self.is_cut:
                raise self._wrong(
                    f"frame {text} is beyond the video, whose {num_frames} frames are counted from "
                    f"0 to {num_frames - 1}; the last one can be written as -1"
                )
            points.append(Point(frame, point.number, point.easing))
        return points

    def _wrong(self, what: str) -> AnimateDiffV2VError:
        return AnimateDiffV2VError(f"In the curve {shown(str(self))}, {what}.")


# A strength that may change along the video.
Strength = float | Curve


def check_strength(
    limits: Range[float], name: str, value: Strength, *, hint: str = "", whole: bool = True
) -> None:
    """Raise AnimateDiffV2VError unless a number, or every number of a curve, is within limits.

    Args:
        limits: The limits.
        name: The name of the setting.
        value: Its value.
        hint: Appended to the error sentence.
        whole: Refuse a curve with a start or an end in the noise schedule.
    """
    for number in value.numbers if isinstance(value, Curve) else (value,):
        limits.check(name, number, hint=hint)
    if whole and isinstance(value, Curve) and not value.is_whole:
        raise AnimateDiffV2VError(
            f"{name} is a curve that acts from {value.start:g} to {value.end:g} of the noise "
            "schedule, which only LoRAs can: leave out start and end."
        )


def highest(value: Strength) -> float:
    """Return the number, or the highest of a curve."""
    return max(value.numbers) if isinstance(value, Curve) else value


def values_of(value: Strength, num_frames: int) -> tuple[float, ...]:
    """Return the number of each frame; raise AnimateDiffV2VError if a curve does not fit."""
    return value.values(num_frames) if isinstance(value, Curve) else (value,) * num_frames


def _between(points: Sequence[Point], following: int, frame: int) -> float:
    """Return the number at a frame; `following` is the index of the first point after it."""
    if following in (0, len(points)):
        return points[max(following - 1, 0)].number
    start, end = points[following - 1], points[following]
    if end.easing == "hold":
        return start.number
    share = (frame - start.frame) / (end.frame - start.frame)
    if end.easing == "ease":
        share = share * share * (3 - 2 * share)
    return start.number + share * (end.number - start.number)
