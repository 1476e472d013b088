"""Prompts that change over the frames, for ComfyUI's own samplers."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..pipeline import prompts
from ..pipeline.ranges import SOME_FRAMES
from .checks import CheckedNode, Problem
from .prompt_schedule import PromptSchedule, schedule_inputs
from .sockets import CATEGORY


class PromptTravel(CheckedNode):
    """A CONDITIONING with a row for each frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_PromptTravel",
            display_name="Prompt Travel (CONDITIONING)",
            category=CATEGORY,
            description="Encode a prompt schedule as a CONDITIONING with a row for each frame, for "
            "KSampler and ComfyUI's other samplers behind Apply AnimateDiff.",
            search_aliases=[
                "batch prompt schedule",
                "fizznodes",
                "animatediff",
                "prompt scheduling",
                "ade prompt scheduling latents",
                "keyframes",
            ],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder, from a checkpoint loader."),
                *schedule_inputs(),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=SOME_FRAMES.low,
                    max=SOME_FRAMES.high,
                    tooltip="Number of frames, as many as latents; not used if latents are "
                    "connected.",
                ),
                io.Latent.Input(
                    "latents",
                    optional=True,
                    tooltip="The latents of the video, whose number is that of the frames.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="For the positive input of a sampler."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        *,
        clip: Any,
        schedule: str,
        frames: int,
        pre_text: str = "",
        app_text: str = "",
        latents: dict[str, Tensor] | None = None,
    ) -> io.NodeOutput:
        """Encode each keyframe and blend between them."""
        count = frames if latents is None else len(latents["samples"])
        keyframes = prompts.PromptSchedule(schedule, pre_text, app_text).keyframes(count)
        pooled: list[Any] = []

        def encode(text: str) -> Tensor:
            tokens = clip.tokenize(text)
            encoded: Tensor
            encoded, last = clip.encode_from_tokens(tokens, return_pooled=True)
            pooled.append(last)
            return encoded.float().cpu()

        track = prompts.encode_schedule(keyframes, encode)
        return io.NodeOutput([[track.at(range(count)), {"pooled_output": pooled[0]}]])

    @classmethod
    def find_problem(
        cls,
        node_id: str,
        *,
        schedule: str | None = None,
        pre_text: str | None = None,
        app_text: str | None = None,
    ) -> Problem | None:
        """Find lines that are not keyframes."""
        return PromptSchedule.find_problem(
            node_id, schedule=schedule, pre_text=pre_text, app_text=app_text
        )
