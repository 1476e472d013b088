"""Holds the colours of restyled frames to those of their source."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..pipeline import AnimateDiffV2VError
from ..pipeline.source_colours import SourceColours
from . import host
from .inputs import match_source_input
from .sockets import CATEGORY


class MatchSource(io.ComfyNode):
    """Moves brightness and colour of frames to those of other frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_MatchSource",
            display_name="Match Source Colours",
            category=CATEGORY,
            description="Hold brightness and colour of restyled frames to those of the source, "
            "smoothed over time. It corrects darkening by LCM and tints by a VAE.",
            search_aliases=[
                "color match",
                "colour match",
                "color transfer",
                "color correction",
                "histogram",
                "darkening",
                "animatediff",
            ],
            inputs=[
                io.Image.Input(
                    "images", tooltip="The restyled frames, in order, of AnimateDiff V2V Sampler."
                ),
                io.Image.Input(
                    "source",
                    tooltip="The frames that they were made of: one for each, or one for all. They "
                    "may be of another size.",
                ),
                match_source_input("strength", default=1.0),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What counts and what is changed: white fully, black not at all. One "
                    "for each frame, or one for all; with a source_mask, the same.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images", tooltip="The frames in the colours of the source."
                )
            ],
        )

    @classmethod
    def execute(
        cls, *, images: Tensor, source: Tensor, strength: float, mask: Tensor | None = None
    ) -> io.NodeOutput:
        """Correct the frames, one after another."""
        count = len(images)
        masks = None if mask is None else mask.reshape(-1, *mask.shape[-2:])
        _check_counts(count, source=source, mask=masks)
        if strength == 0:
            return io.NodeOutput(images)
        colours = SourceColours(strength, masks)
        for index in range(count):
            host.raise_if_interrupted()
            colours.add(source[min(index, len(source) - 1)][None, ..., :3])
        report = host.NodeProgress()
        made = torch.empty(*images.shape[:3], 3)
        for index, frame in enumerate(colours.matched([images[..., :3]])):
            host.raise_if_interrupted()
            made[index] = frame[0]
            report.share((index + 1) / count)
        return io.NodeOutput(host.as_result(made))


def _check_counts(count: int, **given: Tensor | None) -> None:
    for name, frames in given.items():
        if frames is not None and len(frames) not in (1, count):
            raise AnimateDiffV2VError(
                f"{name} has {len(frames)} frames and images {count}: give one for each frame, or "
                "one for all."
            )
