"""Weights that change over the frames, as text: a line for each keyframe, `frame: weight`."""

from __future__ import annotations

from ..errors import AnimateDiffV2VError
from .schedule import parse_schedule


def parse_weights(text: str) -> dict[int, float] | None:
    r"""Parse a line for each keyframe, `frame: weight`; return None if there is no line.

    >>> parse_weights("0: 1\n24: 0.3")
    {0: 1.0, 24: 0.3}

    Raises:
        AnimateDiffV2VError: names the text that is not a frame or not a number.
    """
    if not text.strip():
        return None
    weights = {}
    for frame, value in parse_schedule(text, kind="weight", example="24: 0.5").items():
        try:
            weights[frame] = float(value.strip().removesuffix(",").strip("() "))
        except ValueError:
            raise AnimateDiffV2VError(
                f"The weight at frame {frame} is {value!r}; it must be a number, for example 0.5."
            ) from None
    return weights
