"""Prompts that change over the course of the video."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from ..pipeline import prompts
from .checks import CheckedNode, Problem, problem_of
from .sockets import CATEGORY, Schedule


class PromptSchedule(CheckedNode):
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
                "animatediff",
                "ade",
                "evolved",
                "fizznodes",
                "prompt scheduling",
            ],
            inputs=schedule_inputs(),
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
    def find_problem(
        cls,
        _node_id: str,
        *,
        schedule: str | None = None,
        pre_text: str | None = None,
        app_text: str | None = None,
    ) -> Problem | None:
        """Find lines that are not keyframes."""
        if schedule is None:
            return None
        found = problem_of(lambda: prompts.PromptSchedule(schedule), "schedule")
        for name, texts in (("pre_text", (pre_text, "")), ("app_text", (pre_text, app_text))):
            before, after = (each or "" for each in texts)
            found = found or problem_of(
                partial(prompts.PromptSchedule, schedule, before, after), name
            )
        return found


def schedule_inputs() -> list[io.Input]:
    """Return the texts of a schedule."""
    return [
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
    ]
