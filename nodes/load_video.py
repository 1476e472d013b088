"""Reads the selected frames of a video file, and the sound of the same time span."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import host
from .checks import CheckedNode, Problem
from .fingerprint import file_fingerprint
from .inputs import video_input
from .selection import read_selection, selection_inputs, selection_outputs, selection_problem
from .sockets import CATEGORY


class LoadVideo(CheckedNode):
    """Reads frames, sound and properties of a video."""

    # Files that came after the list, folders, and files of the output folder.
    wider_than_widget = ("video",)

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_LoadVideo",
            display_name="Load Video (every nth frame)",
            category=CATEGORY,
            description="Read the selected frames of a video, by their exact time stamps, with the "
            "sound of the same time span.",
            search_aliases=[
                "import video",
                "video upload",
                "vhs load video",
                "select every nth",
                "animatediff",
                "vhs",
                "load video upload",
                "load video path",
            ],
            inputs=[video_input(), *selection_inputs()],
            outputs=selection_outputs(),
        )

    @classmethod
    def execute(cls, *, video: str, **settings: Any) -> io.NodeOutput:
        """Read the video; `settings` are the values of selection_inputs."""
        return read_selection(host.input_path(video), **settings)

    @classmethod
    def find_problem(
        cls,
        _node_id: str,
        *,
        video: str | None = None,
        skip_first_frames: int | None = None,
        force_rate: float | None = None,
        start_time: float | None = None,
    ) -> Problem | None:
        """Find a missing or unreadable file, or a selection that keeps no frame."""
        return selection_problem(
            video,
            skip_first_frames=skip_first_frames,
            start_time=start_time,
            force_rate=force_rate,
        )

    @classmethod
    def fingerprint_inputs(cls, video: str | None, **_others: object) -> str | None:
        """Read again when the file has changed."""
        return None if video is None else file_fingerprint(host.input_path(video))
