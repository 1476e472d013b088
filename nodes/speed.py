"""Options that trade exactness, or time in the first run, for speed or memory."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..pipeline import SpeedOptions, models
from ..pipeline.ranges import DEEP_CACHE_INTERVAL, SHARE
from . import host
from .checks import CheckedNode, Problem, problem_of
from .sockets import CATEGORY, SpeedSocket

SPEED_TOOLTIP = (
    "Options that change the result to save time or memory, from Speed Options. If nothing is "
    "connected, the result is exact."
)


class Speed(CheckedNode):
    """Options that save time or memory and may change the result."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_Speed",
            display_name="Speed Options",
            category=CATEGORY,
            description="Save time or memory, for a result that is not quite the same. By default "
            "everything is off and nothing changes.",
            search_aliases=[
                "deepcache",
                "faster sampling",
                "fp8",
                "guidance interval",
                "low vram",
                "torch compile",
                "animatediff",
            ],
            inputs=_inputs(),
            outputs=[
                SpeedSocket.Output(
                    display_name="speed",
                    tooltip="For the Sampler, or for AnimateDiff Video to Video.",
                )
            ],
        )

    @classmethod
    def execute(cls, **options: Any) -> io.NodeOutput:
        """Create the options."""
        return io.NodeOutput(SpeedOptions(**options))

    @classmethod
    def find_problem(
        cls,
        _node_id: str,
        *,
        guidance_start: float | None = None,
        guidance_end: float | None = None,
        compile: bool | None = None,
    ) -> Problem | None:
        """Find guidance that ends before it starts, or compiling where it is not possible."""
        found = None
        if guidance_start is not None and guidance_end is not None:
            found = problem_of(
                lambda: SpeedOptions(guidance_start=guidance_start, guidance_end=guidance_end),
                "guidance_end",
            )
        if compile and not found:
            found = problem_of(lambda: models.check_can_compile(host.unet_device()), "compile")
        return found


def _inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "deep_cache_interval",
            default=1,
            min=DEEP_CACHE_INTERVAL.low,
            max=DEEP_CACHE_INTERVAL.high,
            tooltip="Run the whole UNet only in every nth step; the steps between reuse its deep "
            "layers (DeepCache). 1 is off, 2 leaves about 0.6 of the work, 3 about half. For 20 "
            "steps or more; takes up to 4 GB of main memory.",
        ),
        io.Float.Input(
            "guidance_start",
            default=0.0,
            min=SHARE.low,
            max=SHARE.high,
            step=0.01,
            tooltip="Fraction of the noise schedule at which guidance starts. Before it the scale "
            "is 1, which takes half the time. If the Sampler limits guidance too, both limits "
            "apply.",
        ),
        io.Float.Input(
            "guidance_end",
            default=1.0,
            min=SHARE.low,
            max=SHARE.high,
            step=0.01,
            tooltip="Fraction of the noise schedule at which guidance ends. Fractions refer to the "
            "whole schedule: at a denoise of 0.5, sampling begins in its second half.",
        ),
        io.Boolean.Input(
            "fp8_weights",
            default=False,
            tooltip="Store the UNet's weights in 8 bits: 1.3 GB on the graphics card instead of "
            "2.6 GB. The precision of the computation stays the same; it is a little slower.",
        ),
        io.Boolean.Input(
            "compile",
            default=False,
            optional=True,
            tooltip="Compile the UNet's layers: this takes minutes in the first run, and the "
            "compiled code is kept on disk. The result is the same up to rounding. Meant for AMD "
            "and Intel graphics cards, where the gain has not been measured; slower on NVIDIA "
            "cards with Triton, where the layers are fused anyway, and on CPUs.",
        ),
        io.Boolean.Input(
            "reduced_precision",
            default=False,
            optional=True,
            tooltip="On NVIDIA cards, sum up matrix products of float16 in float16, as ComfyUI's "
            "--fast fp16_accumulation does for all models: faster on consumer cards, less exact. "
            "With fp8_weights, cards from the RTX 40 on also multiply in 8 bits, as with --fast "
            "fp8_matrix_mult. No effect elsewhere.",
        ),
    ]
