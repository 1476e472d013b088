"""Strengths that change: a number, or a curve such as `0: 0.2, 24: 1.0` or `0%: 1, 50%: 0.2`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .choices import check_types, in_range, shown
from .curve_text import Easing, Written, parse_curve, parts_of, refused
from .errors import AnimateDiffV2VError
from .prompts.frame_index import Frames
from .ranges import SHARE, Range

# A noise level that is meant to be that of a point may miss it by rounding; this is a hundredth of
# a training step.
_ROUNDING = 1e-5


class Point(NamedTuple):
    """A point of a curve."""

    place: float
    """A frame, or a share of the noise schedule."""
    number: float
    easing: Easing
    """How the number changes from the point before; see `Written`."""


@dataclass(frozen=True)
class Curve:
    """A strength along the frames of a video or along the noise schedule, as text.

    >>> Curve("0: 0.5, 4: 1.5").values(6)
    (0.5, 0.75, 1.0, 1.25, 1.5, 1.5)
    >>> Curve("0%: 1, 50%: 0.5").at(0.25)
    0.75

    Points are `frame: number`, separated by commas, semicolons or line breaks; brackets and quotes
    as in JSON and FizzNodes are ignored. Frames are those of the output as in prompt schedules: -1
    is the last, 0.5 is halfway, max_f is their number. Points may all be `percent: number` instead:
    places in the noise schedule as in Span, so that the strength changes from step to step and is
    the same in all frames. A word after a number says how the curve reaches it: `linear` (the
    default), `ease` or `hold`; see Written.easing. Before the first point and after the last one
    the number stays the same.
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
        if not any(frames.is_relative for frames in self._frames()):
            self._placed(num_frames=None)

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
        return ", ".join(parts_of(self.text))

    def __format__(self, spec: str) -> str:
        """Return the text whatever the format is, since a curve stands where a number can."""
        return str(self)

    @property
    def is_whole(self) -> bool:
        """True if it acts in all of the noise schedule."""
        return (self.start, self.end) == (0.0, 1.0)

    @property
    def is_over_steps(self) -> bool:
        """True if it changes along the noise schedule instead of the frames."""
        return isinstance(parse_curve(self.text)[0].place, float)

    @property
    def numbers(self) -> tuple[float, ...]:
        """The numbers of the points; all values lie between the lowest and the highest."""
        return tuple(point.number for point in parse_curve(self.text))

    @property
    def last_frame(self) -> int:
        """The last frame that is named by its number; 0 if all depend on the video's length."""
        named = (each.start.frame(1) for each in self._frames() if not each.is_relative)
        return max(named, default=0)

    def values(self, num_frames: int) -> tuple[float, ...]:
        """Return the number of each frame of a video.

        Raises:
            AnimateDiffV2VError: a point lies beyond the last frame, or before the one in front, or
                the curve changes over the steps.
        """
        if self.is_over_steps:
            raise self._wrong("points are places in the noise schedule, not frames")
        points = self._placed(num_frames=num_frames)
        places = [point.place for point in points]
        return tuple(
            _between(points, bisect_right(places, frame), frame) for frame in range(num_frames)
        )

    def at(self, share: float) -> float:
        """Return the number at a share of the noise schedule, where 0 is pure noise.

        Raises:
            AnimateDiffV2VError: the curve changes along the frames.
        """
        if not self.is_over_steps:
            raise self._wrong("points are frames, not places in the noise schedule")
        points = self._placed(num_frames=None)
        places = [point.place for point in points]
        return _between(points, bisect_right(places, share + _ROUNDING), share)

    def changes_after(self, share: float) -> bool:
        """Return True if the number ever differs from that at a share of the noise schedule.

        Raises:
            AnimateDiffV2VError: the curve changes along the frames.
        """
        now = self.at(share)
        later = (each for each in self._placed(num_frames=None) if each.place > share)
        return any(each.number != now for each in later)

    def _frames(self) -> list[Frames]:
        return [each.place for each in parse_curve(self.text) if isinstance(each.place, Frames)]

    def _placed(self, *, num_frames: int | None) -> list[Point]:
        """Return the points in order; None is a video of unknown length."""
        points: list[Point] = []
        for written in parse_curve(self.text):
            is_share = isinstance(written.place, float)
            place, named = self._place(written, num_frames), written.name
            if points and place <= points[-1].place:
                last = points[-1].place
                before = f"{100 * last:g}%" if is_share else f"frame {last}"
                relation = "comes after" if place < last else "is the same as"
                fault = (
                    f"{named} {relation} {before}" if named != before else f"{named} is given twice"
                )
                once = f"give each {'place' if is_share else 'frame'} once, in ascending order"
                raise self._wrong(f"{fault}; {once}")
            points.append(Point(place, written.number, written.easing))
        return points

    def _place(self, point: Written, num_frames: int | None) -> float:
        """Return the share of the noise schedule, or the frame if the video has it."""
        if isinstance(point.place, float):
            return point.place
        try:
            frame = point.place.start.frame(num_frames or 1)
        except (ValueError, ArithmeticError):
            raise self._wrong(f"{point.name} is not in a video of {num_frames} frames") from None
        if num_frames is not None and frame >= num_frames and not self.is_cut:
            raise self._wrong(
                f"{point.name} is beyond the video, whose {num_frames} frames are counted from 0 "
                f"to {num_frames - 1}; the last one can be written as -1"
            )
        return frame

    def _wrong(self, what: str) -> AnimateDiffV2VError:
        return refused(self.text, what)


# A strength that may change along the video, or from step to step.
Strength = float | Curve


def check_strength(
    limits: Range[float],
    name: str,
    value: Strength,
    *,
    hint: str = "",
    whole: bool = True,
    over_steps: bool = True,
) -> None:
    """Raise AnimateDiffV2VError unless a number, or every number of a curve, is within limits.

    Args:
        limits: The limits.
        name: The name of the setting.
        value: Its value.
        hint: Appended to the error sentence.
        whole: Refuse a curve with a start or an end in the noise schedule.
        over_steps: Take a curve along the noise schedule.
    """
    if not isinstance(value, Curve):
        limits.check(name, value, hint=hint)
        return
    for point in parse_curve(value.text):
        limits.check(name, point.number, hint=hint, place=point.name)
    if whole and not value.is_whole:
        raise AnimateDiffV2VError(
            f"{name} is a curve that acts from {value.start:g} to {value.end:g} of the noise "
            "schedule, which only LoRAs can: leave out start and end."
        )
    if not over_steps and value.is_over_steps:
        raise AnimateDiffV2VError(
            f"{name} is the curve {shown(str(value))}, which changes from step to step, but is "
            "fixed before the first step: write frames in place of percent."
        )


def check_frames(value: Strength, num_frames: int) -> None:
    """Raise AnimateDiffV2VError if a curve names a frame beyond the video."""
    if isinstance(value, Curve) and not value.is_over_steps:
        value.values(num_frames)


def highest(value: Strength) -> float:
    """Return the number, or the highest of a curve."""
    return max(value.numbers) if isinstance(value, Curve) else value


def values_of(value: Strength, num_frames: int) -> tuple[float, ...]:
    """Return the number of each frame; raise AnimateDiffV2VError if a curve does not fit."""
    return value.values(num_frames) if isinstance(value, Curve) else (value,) * num_frames


def _between(points: Sequence[Point], following: int, place: float) -> float:
    """Return the number at a place; `following` is the index of the first point after it."""
    if following in (0, len(points)):
        return points[max(following - 1, 0)].number
    start, end = points[following - 1], points[following]
    if end.easing == "hold":
        return start.number
    share = max(0.0, (place - start.place) / (end.place - start.place))
    if end.easing == "ease":
        share = share * share * (3 - 2 * share)
    return start.number + share * (end.number - start.number)
