"""Control frames that need no network."""

from __future__ import annotations

from typing import get_args

import torch
from comfy_api.latest import io
from torch import Tensor

from ..pipeline.ranges import CANNY_THRESHOLD, TILE_FACTOR
from ..pipeline.video import ControlFrameOptions, Preprocessor
from . import host
from .checks import CheckedNode, Problem, problem_of
from .sockets import CATEGORY


class ControlFrames(CheckedNode):
    """Makes edges, brightness, or blurred pictures of frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_ControlFrames",
            display_name="Control Frames",
            category=CATEGORY,
            description="Make control frames for a ControlNet: edges, brightness, or the picture "
            "without its details. No model is needed; other kinds come from other packs.",
            search_aliases=[
                "canny",
                "preprocessor",
                "edge detection",
                "luminance",
                "tile",
                "animatediff",
                "controlnet preprocessor",
            ],
            inputs=_inputs(),
            outputs=[
                io.Image.Output(display_name="images", tooltip="One control frame for each frame.")
            ],
        )

    @classmethod
    def execute(
        cls,
        *,
        images: Tensor,
        preprocessor: Preprocessor,
        low_threshold: float,
        high_threshold: float,
        tile_factor: int,
    ) -> io.NodeOutput:
        """Make the control frames, one after another."""
        options = ControlFrameOptions(
            preprocessor=preprocessor,
            low_threshold=low_threshold,
            high_threshold=high_threshold,
            tile_factor=tile_factor,
        )
        report = host.NodeProgress()
        made = torch.empty(*images.shape[:3], 3)
        for index, image in enumerate(images):
            host.raise_if_interrupted()
            frame = (image[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
            made[index] = torch.from_numpy(options.of(frame).copy()) / 255
            report.share((index + 1) / len(images))
        return io.NodeOutput(host.as_result(made))

    @classmethod
    def find_problem(
        cls,
        _node_id: str,
        *,
        low_threshold: float | None = None,
        high_threshold: float | None = None,
    ) -> Problem | None:
        """Find thresholds in the wrong order."""
        if low_threshold is None or high_threshold is None:
            return None
        return problem_of(
            lambda: ControlFrameOptions(low_threshold=low_threshold, high_threshold=high_threshold),
            "low_threshold",
        )


def _inputs() -> list[io.Input]:
    return [
        io.Image.Input("images", tooltip="The frames, in order."),
        io.Combo.Input(
            "preprocessor",
            options=list(get_args(Preprocessor)),
            default="canny",
            tooltip="canny: white edges on black, for control_v11p_sd15_canny. luminance: "
            "brightness without colour, for brightness ControlNets. tile: the picture without its "
            "details, for control_v11f1e_sd15_tile.",
        ),
        *(_threshold(*row) for row in (("low", 100.0, "continues"), ("high", 200.0, "starts"))),
        io.Int.Input(
            "tile_factor",
            default=8,
            min=TILE_FACTOR.low,
            max=TILE_FACTOR.high,
            tooltip="tile only: how many times smaller the picture is made before it is enlarged "
            "again. 1 leaves it unchanged.",
        ),
    ]


def _threshold(which: str, default: float, does: str) -> io.Input:
    return io.Float.Input(
        f"{which}_threshold",
        default=default,
        min=CANNY_THRESHOLD.low,
        max=CANNY_THRESHOLD.high,
        step=1.0,
        tooltip=f"canny only: the change of brightness at which an edge {does}, as in OpenCV. "
        "Lower values find more edges.",
    )
