"""FreeInit, which samples a video several times for steadier motion."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io

from ..pipeline import FreeInit
from ..pipeline.ranges import FREE_INIT_ITERATIONS, FREE_INIT_ORDER, SHARE
from ..pipeline.sampling import FrequencyFilter
from .sockets import CATEGORY, FreeInitSocket

FREE_INIT_TOOLTIP = (
    "Sample several times, each time from noise that keeps the slow parts of the last result; "
    "from FreeInit Options."
)


class FreeInitOptions(io.ComfyNode):
    """Rounds of sampling, and the frequencies that are kept between them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_FreeInit",
            display_name="FreeInit Options",
            category=CATEGORY,
            description="Sample a video several times, each time from noise that keeps the slow "
            "parts of the last result (FreeInit): steadier pictures, and as many times slower.",
            search_aliases=[
                "free init",
                "iteration options",
                "animatediff",
                "ade iteration opts",
                "temporal consistency",
                "flicker",
            ],
            inputs=_inputs(),
            outputs=[
                FreeInitSocket.Output(
                    display_name="free_init", tooltip="For the Sampler or Apply AnimateDiff."
                )
            ],
        )

    @classmethod
    def execute(cls, **options: Any) -> io.NodeOutput:
        """Create the options."""
        return io.NodeOutput(FreeInit(**options))


def free_init_input() -> io.Input:
    """Return the socket of FreeInit."""
    return FreeInitSocket.Input("free_init", optional=True, tooltip=FREE_INIT_TOOLTIP)


def _inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "iterations",
            default=2,
            min=FREE_INIT_ITERATIONS.low,
            max=FREE_INIT_ITERATIONS.high,
            tooltip="How often the video is sampled: 1 is off, 2 or 3 is usual. The time grows "
            "with it.",
        ),
        io.Combo.Input(
            "filter",
            options=list(get_args(FrequencyFilter)),
            default="gaussian",
            tooltip="How sharply slow parts are told from fast ones: gaussian softly, ideal at "
            "once, butterworth in between.",
        ),
        _stop("spatial_stop", "in height and width", "shapes"),
        _stop("temporal_stop", "in time", "motion"),
        io.Int.Input(
            "order",
            default=4,
            min=FREE_INIT_ORDER.low,
            max=FREE_INIT_ORDER.high,
            tooltip="butterworth only: a higher order is sharper.",
        ),
    ]


def _stop(name: str, where: str, what: str) -> io.Input:
    return io.Float.Input(
        name,
        default=0.25,
        min=SHARE.low,
        max=SHARE.high,
        step=0.01,
        tooltip=f"Frequency {where} up to which parts count as slow, as a share of the highest "
        f"one. More keeps more of the last result's {what}.",
    )
