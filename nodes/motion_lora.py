"""Motion LoRAs, which add camera moves to the motion module."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline.ranges import LORA_STRENGTH
from . import host
from .checks import CheckedNode, Problem
from .fingerprint import file_fingerprint
from .loading import MotionStack
from .model_checks import file_problem
from .sockets import CATEGORY, MotionLoraStackSocket


class MotionLoraStack(CheckedNode):
    """One motion LoRA; stacks can be chained."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_MotionLoraStack",
            display_name="Motion LoRA Stack",
            category=CATEGORY,
            description="Choose a motion LoRA, such as a pan or a zoom, and its strength. Chain "
            "several of these nodes for more.",
            search_aliases=[
                "camera motion",
                "pan",
                "zoom",
                "tilt",
                "roll",
                "motion lora",
                "load animatediff lora",
                "ade",
                "evolved",
            ],
            inputs=[
                io.Combo.Input(
                    "motion_lora",
                    options=host.model_names(host.MOTION_LORAS),
                    tooltip="A motion LoRA from models/animatediff_motion_lora, for example "
                    "v2_lora_ZoomIn. Motion LoRAs are made for v2 motion modules.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=LORA_STRENGTH.low,
                    max=LORA_STRENGTH.high,
                    step=0.05,
                    tooltip="How strongly the camera moves: 0 not at all, 1 as trained, below 0 in "
                    "the opposite direction. 0.6 to 1 is usual.",
                ),
                MotionLoraStackSocket.Input(
                    "motion_lora_stack",
                    optional=True,
                    tooltip="Motion LoRAs that come before this one.",
                ),
            ],
            outputs=[
                MotionLoraStackSocket.Output(
                    display_name="motion_lora_stack", tooltip="For Load AnimateDiff Model."
                )
            ],
        )

    @classmethod
    def execute(
        cls, motion_lora: str, strength: float, motion_lora_stack: MotionStack | None = None
    ) -> io.NodeOutput:
        """Append the chosen LoRA to the incoming stack."""
        return io.NodeOutput([*(motion_lora_stack or ()), (motion_lora, strength)])

    @classmethod
    def find_problem(cls, _node_id: str, *, motion_lora: str | None = None) -> Problem | None:
        """Find a file that is missing or of the wrong kind."""
        return file_problem(motion_lora=(host.MOTION_LORAS, motion_lora))

    @classmethod
    def fingerprint_inputs(cls, motion_lora: str | None, **_others: object) -> str | None:
        """Run again when the file has changed."""
        if motion_lora is None:
            return None
        return file_fingerprint(host.model_path(host.MOTION_LORAS, motion_lora))
