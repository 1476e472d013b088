"""A strength along the frames of a video, or from step to step, for inputs that take a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web
from comfy_api.latest import io

from ..pipeline import AnimateDiffV2VError
from ..pipeline.choices import shown
from ..pipeline.curve import Curve, Strength
from ..pipeline.curve_text import EXAMPLE
from . import host
from .checks import CheckedNode, Problem, problem_of
from .sockets import CATEGORY
from .span_inputs import span_inputs, span_problem

ROUTE = "/animatediff_v2v/curve"
# Frames that a curve is shown over if it names no later one: one window.
SHOWN_FRAMES = 17
# The most that a curve is shown over: an hour at 24 frames a second.
MOST_SHOWN_FRAMES = 24 * 3600


class StrengthCurve(CheckedNode):
    """A strength along the frames of a video, or from step to step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_StrengthCurve",
            display_name="Strength Curve",
            category=CATEGORY,
            description="A strength that changes along the frames of the video, or over the "
            "sampling steps. Connect it to denoise, guidance scale, motion scale or the model "
            "strength of a LoRA, instead of a number.",
            search_aliases=[
                "value schedule",
                "batch value schedule",
                "multival",
                "keyframes",
                "animatediff",
                "ade",
                "evolved",
                "fizznodes",
                "denoise per frame",
                "lora strength per frame",
                "lora strength per step",
                "hook keyframes",
            ],
            inputs=[
                io.String.Input(
                    "curve",
                    multiline=True,
                    default=EXAMPLE,
                    tooltip="`frame: number`, separated by commas or lines. Between two frames the "
                    "number changes evenly; `24: 1.0 ease` changes it softly, `24: 1.0 hold` at "
                    "once at frame 24. Frames refer to the output and start at 0; -1 is the last, "
                    "0.5 is halfway. With percent signs, `0%: 1.0, 50%: 0.2`, the number changes "
                    "over the sampling steps, along the noise schedule: 0% is pure noise. Denoise "
                    "only takes frames.",
                ),
                *span_inputs("a LoRA with this strength"),
            ],
            outputs=[
                io.Float.Output(
                    display_name="strength",
                    tooltip="For inputs of this pack that take a number: denoise, guidance_scale, "
                    "motion_scale, and the model strengths of LoRA Stack.",
                )
            ],
        )

    @classmethod
    def execute(cls, curve: str, start: float = 0.0, end: float = 1.0) -> io.NodeOutput:
        """Parse the curve."""
        return io.NodeOutput(Curve(curve, start=start, end=end))

    @classmethod
    def find_problem(
        cls,
        _node_id: str,
        *,
        curve: str | None = None,
        start: float | None = 0.0,
        end: float | None = 1.0,
    ) -> Problem | None:
        """Find a text that is no curve, or a span that ends before it starts."""
        found = None if curve is None else problem_of(lambda: Curve(curve), "curve")
        return found or span_problem(start, end)


def strength_of(name: str, value: Any) -> Strength:
    """Return the value of an input: a number, a curve, or the curve of a number for each frame.

    Schedules of other packs give a list of numbers, or a pandas Series, as FizzNodes does.

    Raises:
        AnimateDiffV2VError: it is something else.
    """
    if hasattr(value, "tolist"):  # of pandas, NumPy or PyTorch
        value = value.tolist()
    if isinstance(value, Curve | int | float):
        return value
    numbers = [*value] if isinstance(value, list | tuple) else []
    if numbers and all(isinstance(each, int | float) for each in numbers):
        return Curve.of_values(numbers)
    raise AnimateDiffV2VError(
        f"{name} is {shown(value)}; it must be a number, a list of numbers, one for each frame, or "
        "a Strength Curve."
    )


def add_curve_route() -> None:
    """Add the route `GET /animatediff_v2v/curve?curve=...`, for the picture in the node."""
    host.add_get_route(ROUTE, _answer)


async def _answer(request: web.Request) -> web.Response:
    try:
        return web.json_response(describe_curve(request.query))
    except AnimateDiffV2VError as error:
        return web.json_response({"error": str(error)}, status=400)


def describe_curve(query: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of `curve`, and whether it changes over the steps.

    They are those of the frames that it names, or of a window if these are more; over the steps,
    those from 0% to 100% of the noise schedule.

    Raises:
        AnimateDiffV2VError: it is no curve, or too long a one to be shown.
    """
    curve = Curve(query.get("curve", ""))
    if curve.is_over_steps:
        values = [curve.at(percent / 100) for percent in range(101)]
        return {"values": values, "is_over_steps": True}
    count = max(SHOWN_FRAMES, curve.last_frame + 1)
    if count > MOST_SHOWN_FRAMES:
        raise AnimateDiffV2VError(
            f"Frame {curve.last_frame} is too far away to be shown; curves are shown up to frame "
            f"{MOST_SHOWN_FRAMES - 1}."
        )
    return {"values": curve.values(count), "is_over_steps": False}
