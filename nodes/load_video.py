"""Reads the selected frames of a video file, and the sound of the same time span."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import host
from .fingerprint import file_fingerprint
from .inputs import video_input
from .selection import check_selection, read_selection, selection_inputs, selection_outputs
from .sockets import CATEGORY


class LoadVideo(io.ComfyNode):
    """Reads frames, sound and properties of a video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_LoadVideo",
            display_name="Load Video (every nth frame)",
            category=CATEGORY,
            description="Read the selected frames of a video, by their exact time stamps, with the "
            "sound of the same time span.",
            search_aliases=["import video", "video upload", "vhs load video", "select every nth"],
            inputs=[video_input(), *selection_inputs()],
            outputs=selection_outputs(),
        )

    @classmethod
    def execute(cls, *, video: str, **settings: Any) -> io.NodeOutput:
        """Read the video; `settings` are the values of selection_inputs."""
        return read_selection(host.input_path(video), **settings)

    @classmethod
    def validate_inputs(
        cls,
        video: str | None,
        skip_first_frames: int | None = 0,
        force_rate: float | None = 0,
        start_time: float | None = 0,
    ) -> bool | str:
        """Refuse a missing or unreadable file, and a selection that keeps no frame."""
        return check_selection(
            video,
            skip_first_frames=skip_first_frames,
            force_rate=force_rate,
            start_time=start_time,
        )

    @classmethod
    def fingerprint_inputs(cls, video: str | None, **_others: object) -> str | None:
        """Read again when the file has changed."""
        return None if video is None else file_fingerprint(host.input_path(video))
