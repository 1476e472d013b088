"""The values of a video_info, each at an output of its own."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .sockets import CATEGORY, VideoInfoSocket

_VALUES = {
    "fps": (io.Float, "Frames per second"),
    "frame_count": (io.Int, "Number of frames"),
    "duration": (io.Float, "Seconds"),
    "width": (io.Int, "Width in pixels"),
    "height": (io.Int, "Height in pixels"),
}
_PARTS = {"source": "of the file", "loaded": "of what was loaded"}


class VideoInfo(io.ComfyNode):
    """Takes a video_info apart."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_VideoInfo",
            display_name="Video Info",
            category=CATEGORY,
            description="Frame rates, frame counts, durations and sizes of a video file and of "
            "what was loaded of it, each at an output of its own.",
            search_aliases=["vhs video info", "frame rate", "frame count", "animatediff"],
            inputs=[
                VideoInfoSocket.Input(
                    "video_info", tooltip="From Load Video, or from a loader of VideoHelperSuite."
                )
            ],
            outputs=[
                kind.Output(display_name=f"{part}_{name}", tooltip=f"{what} {of_what}.")
                for part, of_what in _PARTS.items()
                for name, (kind, what) in _VALUES.items()
            ],
        )

    @classmethod
    def execute(cls, video_info: dict[str, Any]) -> io.NodeOutput:
        """Return the values in the order of the outputs."""
        return io.NodeOutput(*(video_info[f"{part}_{name}"] for part in _PARTS for name in _VALUES))
