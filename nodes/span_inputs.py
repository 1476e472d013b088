"""Inputs for the part of the noise schedule in which something acts."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline.ranges import SHARE
from ..pipeline.sampling import Span
from .checks import Problem, problem_of


def span_inputs(what: str) -> list[io.Input]:
    """Return the two inputs of a span, `start` and `end`.

    Args:
        what: the thing that acts between them, for the tooltips, such as "the ControlNet".
    """
    return [
        io.Float.Input(
            "start",
            default=0.0,
            min=SHARE.low,
            max=SHARE.high,
            step=0.01,
            tooltip=f"Fraction of the noise schedule at which {what} starts to act, like ComfyUI's "
            "start_percent: 0 is the noisiest level, whatever the denoise.",
        ),
        io.Float.Input(
            "end",
            default=1.0,
            min=SHARE.low,
            max=SHARE.high,
            step=0.01,
            tooltip=f"Fraction of the noise schedule at which {what} stops acting, like ComfyUI's "
            "end_percent; 0.5 to 0.8 leaves the last details free.",
        ),
    ]


def span_problem(start: float | None, end: float | None) -> Problem | None:
    """Return the problem of a span that ends before it starts; None is a linked input."""
    if start is None or end is None:
        return None
    return problem_of(lambda: Span(start, end), "end")
