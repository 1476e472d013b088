"""Prompts that change over the course of the video."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline import AnimateDiffV2VError, prompts
from .sockets import CATEGORY, Schedule


class PromptSchedule(io.ComfyNode):
    """Prompts that change over the course of the video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_PromptSchedule",
            display_name="Prompt Schedule",
            category=CATEGORY,
            description="A prompt for each keyframe; between keyframes, the prompts are blended.",
            search_aliases=[
                "prompt travel",
                "batch prompt schedule",
                "keyframes",
                "animate prompt",
            ],
            inputs=[
                io.String.Input(
                    "schedule",
                    multiline=True,
                    default="0: a forest in spring\n24: a forest in winter, snow",
                    tooltip="One line for each keyframe, `frame: prompt`, or the text of another "
                    "pack's schedule node. Frame numbers refer to the output and start at 0: with "
                    "every 2nd frame kept, frame 24 is the source's 48th.",
                ),
                io.String.Input(
                    "pre_text",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="Text to put before every prompt, with a space between: what stays the "
                    "same throughout the video.",
                ),
                io.String.Input(
                    "app_text",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="Text to put after every prompt, with a space between.",
                ),
            ],
            outputs=[
                Schedule.Output(
                    display_name="positive_schedule",
                    tooltip="For the Sampler, instead of its positive prompt.",
                )
            ],
        )

    @classmethod
    def execute(cls, schedule: str, pre_text: str = "", app_text: str = "") -> io.NodeOutput:
        """Parse the keyframes."""
        return io.NodeOutput(prompts.PromptSchedule(schedule, pre_text, app_text))

    @classmethod
    def validate_inputs(
        cls, schedule: str | None, pre_text: str | None = "", app_text: str | None = ""
    ) -> bool | str:
        """Refuse lines that are not keyframes."""
        try:
            if schedule is not None:
                prompts.PromptSchedule(schedule, pre_text or "", app_text or "")
        except AnimateDiffV2VError as error:
            return str(error)
        return True
