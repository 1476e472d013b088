"""Makes the frames between restyled ones, from the motion of the source."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..pipeline import AnimateDiffV2VError
from ..pipeline.ranges import NTH_FRAME
from ..pipeline.restore.stream import is_other_aspect, restore_frames
from ..pipeline.video.source_frame import SourceFrame
from . import host
from .sockets import CATEGORY, OpticalFlow


class RestoreFrames(io.ComfyNode):
    """Brings back the frames that were not kept."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_RestoreFrames",
            display_name="Restore Frames",
            category=CATEGORY,
            description="Make the frames between restyled ones, so that a video of every nth frame "
            "gets the frame rate of its source. The motion is measured on the source, not guessed. "
            "Where two restyled frames differ a lot, those between them fade from one to the "
            "other.",
            search_aliases=[
                "frame interpolation",
                "rife",
                "film vfi",
                "optical flow",
                "animatediff",
                "smooth video",
                "ebsynth",
            ],
            inputs=[
                io.Image.Input(
                    "source_frames",
                    tooltip="All frames of the source, from a Load Video with "
                    "select_every_nth_frame at 1 and otherwise the same values.",
                ),
                io.Image.Input(
                    "images", tooltip="The restyled frames, one for each frame that was kept."
                ),
                io.Int.Input(
                    "select_every_nth_frame",
                    default=2,
                    min=NTH_FRAME.low,
                    max=NTH_FRAME.high,
                    tooltip="Which frames were kept: the first and every nth from there, as in the "
                    "Load Video before the sampler.",
                ),
                OpticalFlow.Input(
                    "optical_flow",
                    optional=True,
                    tooltip="RAFT, from ComfyUI's Load Optical Flow Model, to measure the motion "
                    "with. If nothing is connected, a method that needs no model is used.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    tooltip="A restyled frame for each frame of the source. Give Encode Video the "
                    "fps of the Load Video that reads all frames.",
                ),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="1 where the motion was not trusted, and the nearer restyled frame "
                    "prevails: what was hidden, or is beyond a cut. 0 elsewhere.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        *,
        source_frames: Tensor,
        images: Tensor,
        select_every_nth_frame: int,
        optical_flow: Any = None,
    ) -> io.NodeOutput:
        """Restore the frames, one after another, on ComfyUI's device."""
        count = len(source_frames)
        _check(source_frames, images, select_every_nth_frame)
        device = host.unet_device()
        frames = restore_frames(
            _source(source_frames, select_every_nth_frame),
            (image[..., :3].to(device, torch.float32) for image in images),
            **({} if optical_flow is None else {"find_flow": host.RaftFlow(optical_flow)}),
        )
        made = torch.empty(count, *images.shape[1:3], 3)
        mask = torch.empty(made.shape[:3])
        report = host.NodeProgress()
        for index, frame in enumerate(frames):
            host.raise_if_interrupted()
            made[index], mask[index] = frame.picture, frame.untrusted
            report.share((index + 1) / count)
        return io.NodeOutput(host.as_result(made), host.as_result(mask))


def _source(frames: Tensor, nth: int) -> Iterator[SourceFrame]:
    for index, frame in enumerate(frames):
        picture = (frame[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        yield SourceFrame(Fraction(index), picture, kept=int(index % nth == 0))


def _check(source: Tensor, images: Tensor, nth: int) -> None:
    """Raise AnimateDiffV2VError for images that cannot have been made of the source."""
    kept = -(-len(source) // nth)
    if len(images) != kept:
        raise AnimateDiffV2VError(
            f"source_frames has {len(source)} frames, of which select_every_nth_frame {nth} keeps "
            f"{kept}, and images has {len(images)}: give all frames of the source, the frames that "
            "were made of them, and the number with which they were kept."
        )
    (height, width), (source_height, source_width) = images.shape[1:3], source.shape[1:3]
    if is_other_aspect((height, width), (source_height, source_width)):
        raise AnimateDiffV2VError(
            f"source_frames are {source_width}x{source_height} pixels and images {width}x{height}, "
            "which is another aspect ratio: read the source with the same width, height and fit."
        )
