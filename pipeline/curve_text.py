"""The text of a curve: points along frames (`0: 0.2`) or along the noise schedule (`50%: 0.2`)."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple, cast, get_args

from .choices import shown
from .errors import AnimateDiffV2VError
from .prompts.frame_index import Frames, parse_frames

Easing = Literal["linear", "ease", "hold"]

EXAMPLE = "0: 0.2, 24: 1.0"
EXAMPLE_OVER_STEPS = "0%: 1, 100%: 0.2"
_SEPARATORS = re.compile(r"[,，;；\n]")
_QUOTES = "\"'“”„"
_POINT = re.compile(r"(?P<place>[^:：=]+)[:：=](?P<value>.*)", re.DOTALL)
_PERCENT = re.compile(r"(-?[0-9]{1,9}(?:\.[0-9]{1,18})?)\s*[%％]")
_NO_COLON = re.compile(r"\S+\s+-?[0-9.]+(?:\s+[a-z]+)?")
_VALUE = re.compile(r"\(?\s*(?P<number>[^\s()]*)\s*\)?\s*(?P<easing>.*)", re.DOTALL)


class Written(NamedTuple):
    """A point of a curve, as its text has it."""

    place: Frames | float
    """A frame, or a share of the noise schedule."""
    name: str
    """The place, in errors."""
    number: float
    easing: Easing
    """How the number changes from the point before: linear; ease, slowly at both ends; hold, which
    keeps the number of that point and jumps at this place."""


def parts_of(text: str) -> list[str]:
    """Return the texts of the points."""
    inside = text.strip().removeprefix("{").removesuffix("}")
    return [part.strip() for part in _SEPARATORS.split(inside) if part.strip()]


def refused(text: str, what: str) -> AnimateDiffV2VError:
    """Return the error that a curve has a fault."""
    return AnimateDiffV2VError(f"In the curve {shown(' '.join(text.split()))}, {what}.")


@lru_cache(maxsize=64)
def parse_curve(text: str) -> tuple[Written, ...]:
    """Parse the text of a curve; each pass of the UNet asks for it.

    Raises:
        AnimateDiffV2VError: it is not a curve, or some points are frames and some are not.
    """
    parts = parts_of(text)
    if not parts:
        raise AnimateDiffV2VError(
            f"The curve is empty; write `frame: number`, for example `{EXAMPLE}`."
        )
    points = tuple(_point(part, text) for part in parts)
    by_kind = {isinstance(point.place, float): point.name for point in points}
    if len(by_kind) > 1:
        raise refused(
            text,
            f"{by_kind[True]} is a place in the noise schedule and {by_kind[False]} is not; write "
            "all points in percent, or none",
        )
    return points


def _point(part: str, curve: str) -> Written:
    match = _POINT.fullmatch(part)
    if match is None and _is_number(part):
        raise refused(
            curve,
            f"{part!r} stands alone; write `frame: number`, for example `{EXAMPLE}`, or `percent: "
            f"number`, for example `{EXAMPLE_OVER_STEPS}`. Commas separate points, and decimals "
            "have a point, as in 0.5",
        )
    if match is None and _NO_COLON.fullmatch(part):
        raise refused(
            curve, f"{part!r} has no colon; write `frame: number`, for example `{EXAMPLE}`"
        )
    written = match["place"].strip(_QUOTES + " ") if match else ""
    place = _place(written, curve)
    if match is None or place is None:
        raise refused(
            curve,
            f"{part!r} names no frame; write `frame: number`, for example `{EXAMPLE}`, or over the "
            f"steps `percent: number`, for example `{EXAMPLE_OVER_STEPS}`",
        )
    where = written if isinstance(place, float) else f"frame {place.start.text}"
    found = _VALUE.fullmatch(match["value"].strip(_QUOTES + " "))
    assert found is not None  # it matches any text
    try:
        number = float(found["number"])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise refused(curve, f"{found['number']!r} at {where} is not a number")
    easing = found["easing"].strip().lower() or "linear"
    if _POINT.fullmatch(easing):
        word, _, rest = easing.partition(" ")
        next_point = rest if word in get_args(Easing) else easing
        raise refused(curve, f"a comma is missing before {next_point!r}")
    if easing not in get_args(Easing):
        raise refused(
            curve,
            f"the word after the number at {where} is {easing!r}; it can be "
            f"{', '.join(get_args(Easing))}",
        )
    return Written(place, where, number, cast("Easing", easing))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _place(written: str, curve: str) -> Frames | float | None:
    """Return the frame or the share of the noise schedule; None if it names neither."""
    percent = _PERCENT.fullmatch(written)
    if percent is None:
        frames = parse_frames(written)
        return None if frames is None or frames.holds else frames
    share = Fraction(percent[1]) / 100
    if not 0 <= share <= 1:
        raise refused(
            curve, f"{written} is outside of the noise schedule, which goes from 0% to 100%"
        )
    return float(share)
