"""Context windows, by which a video of any length is sampled in parts."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io

from ..pipeline import ContextOptions
from ..pipeline.ranges import CONTEXT_LENGTH, CONTEXT_OVERLAP, CONTEXT_STRIDE, SHARE
from ..pipeline.sampling import ContextMemory, ContextSchedule, FuseMethod
from .checks import CheckedNode, Problem, problem_of
from .sockets import CATEGORY, Context
from .window_checks import window_problem


class ContextWindows(CheckedNode):
    """Options for cutting a long video into windows."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_ContextOptions",
            display_name="Context Options",
            category=CATEGORY,
            description="How a long video is cut into windows that fit the motion module, and how "
            "they are blended. Without this node, a video that fits the motion module is processed "
            "as a whole, and a longer one in windows of 16 frames that overlap by 4.",
            search_aliases=[
                "context length",
                "context window",
                "sliding window",
                "long video",
                "animatediff",
                "ade",
                "evolved",
                "looped uniform",
                "standard static",
                "freenoise",
                "contextref",
                "drift",
                "consistent",
            ],
            hidden=[io.Hidden.unique_id],
            inputs=[*_window_inputs(), *_memory_inputs()],
            outputs=[Context.Output(display_name="context_options", tooltip="For the Sampler.")],
        )

    @classmethod
    def execute(cls, **options: Any) -> io.NodeOutput:
        """Create the options."""
        return io.NodeOutput(ContextOptions(**options))

    @classmethod
    def find_problem(
        cls, node_id: str, *, length: int | None = None, overlap: int | None = None
    ) -> Problem | None:
        """Find impossible windows, and windows that the motion module does not support."""
        if length is None:
            return None
        found = problem_of(lambda: ContextOptions(length=length, overlap=0), "length")
        if not found and overlap is not None:
            found = problem_of(lambda: ContextOptions(length=length, overlap=overlap), "overlap")
        return found or window_problem(length, node_id=node_id)


def _window_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "length",
            default=16,
            min=CONTEXT_LENGTH.low,
            max=CONTEXT_LENGTH.high,
            tooltip="Frames in a window. Motion modules were trained on 16 and take at most 24 "
            "(v1) or 32; longer windows take more memory.",
        ),
        io.Int.Input(
            "overlap",
            default=4,
            min=CONTEXT_OVERLAP.low,
            max=CONTEXT_OVERLAP.high,
            tooltip="Frames that neighbouring windows share; less than the length. More makes "
            "smoother transitions and takes longer.",
        ),
        io.Int.Input(
            "stride",
            default=1,
            min=CONTEXT_STRIDE.low,
            max=CONTEXT_STRIDE.high,
            tooltip="Uniform schedules only: above 1, windows also take every 2nd, 4th, ... frame, "
            "which ties distant frames together and takes longer.",
        ),
        io.Combo.Input(
            "schedule",
            options=list(get_args(ContextSchedule)),
            tooltip="standard_static: the same windows in every step. standard_uniform: windows "
            "that shift from step to step. looped_uniform: windows that also wrap around the end, "
            "for loops. batched: no overlap.",
        ),
        io.Combo.Input(
            "fuse",
            options=list(get_args(FuseMethod)),
            tooltip="How overlapping windows are blended: pyramid gives the middle of a window the "
            "most weight, flat weighs all frames equally, overlap-linear fades from one window to "
            "the next.",
        ),
        io.Boolean.Input(
            "closed_loop",
            default=False,
            tooltip="looped_uniform only: the last frame leads back to the first.",
        ),
    ]


def _memory_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "memory",
            options=list(get_args(ContextMemory)),
            optional=True,
            tooltip="Keeps later windows like the first one, so that colours and shapes do not "
            "drift. ContextRef: they also see its frames. NaiveReuse: they begin as it does; for a "
            "denoise of 1. FeatureBank: their features are drawn towards those of all windows "
            "before. none: each window sees its own frames.",
        ),
        io.Float.Input(
            "memory_end",
            default=1.0,
            min=SHARE.low,
            max=SHARE.high,
            step=0.05,
            optional=True,
            tooltip="Fraction of the noise schedule at which the memory ends. Has no effect if "
            "memory is none.",
        ),
    ]
