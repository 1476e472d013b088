"""Reads frames of a native VIDEO, with the same outputs as Load Video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comfy_api.latest import InputImpl, io

from ..pipeline import AnimateDiffV2VError
from ..pipeline.video import FORMATS
from . import host
from .encode_video import write_video
from .selection import read_selection, selection_inputs, selection_outputs
from .sockets import CATEGORY

LOSSLESS = FORMATS["mkv-ffv1"]


class SelectFrames(io.ComfyNode):
    """Reads frames, sound and properties of a VIDEO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_SelectFrames",
            display_name="Select Frames (every nth)",
            category=CATEGORY,
            description="Read the selected frames of a VIDEO, by their exact time stamps, with the "
            "sound of the same time span. The video is streamed: only the kept frames take memory.",
            search_aliases=[
                "get video components",
                "video to images",
                "select every nth",
                "animatediff",
                "vhs",
                "select every nth image",
                "split images",
            ],
            inputs=[
                io.Video.Input(
                    "video", tooltip="A VIDEO, for example from ComfyUI's own Load Video."
                ),
                *selection_inputs(),
            ],
            outputs=selection_outputs(),
        )

    @classmethod
    def execute(cls, *, video: Any, **settings: Any) -> io.NodeOutput:
        """Read the video; `settings` are the values of selection_inputs."""
        window = host.trim_window(video) if is_file(video) else (0.0, 0.0)
        with video_file(video) as path:
            return read_selection(path, **within(window, **settings))


def within(
    window: tuple[float, float], *, start_time: float = 0, duration: float = 0, **others: Any
) -> dict[str, Any]:
    """Shift start_time and duration into the trimmed range of a VIDEO.

    >>> within((10.0, 5.0), start_time=2, duration=9)
    {'start_time': 12.0, 'duration': 3.0}

    Args:
        window: start and duration of the range in seconds of its file; duration 0 means to the end.
        start_time: seconds to skip within the range.
        duration: seconds to read; 0 means to the end of the range.
        **others: returned unchanged.

    Raises:
        AnimateDiffV2VError: when the range ends before start_time.
    """
    start, length = window
    if length and start_time >= length:
        raise AnimateDiffV2VError(
            f"start_time is {start_time:g} s, and the trimmed video ends after {length:g} s; "
            "lower it."
        )
    left = length - start_time if length else 0.0
    ends = [seconds for seconds in (duration, left) if seconds]
    return {"start_time": start + start_time, "duration": min(ends, default=0.0), **others}


def is_file(video: Any) -> bool:
    """Return whether a VIDEO is an unchanged file, not made of tensors or cropped."""
    if not isinstance(video, InputImpl.VideoFromFile):
        return False
    whole = InputImpl.VideoFromFile(video.get_stream_source())
    return bool(whole.get_dimensions() == video.get_dimensions())


@contextmanager
def video_file(video: Any) -> Iterator[Path]:
    """Yield the path of a VIDEO's file, which may be temporary."""
    source = video.get_stream_source() if is_file(video) else None
    if isinstance(source, str):
        yield Path(source)
        return
    with host.temporary_folder() as folder:
        if source is None:
            path = folder / f"video{LOSSLESS.extension}"
            _write_components(video.get_components(), path)
        else:
            path = folder / "video"
            path.write_bytes(source.getbuffer())
        yield path


def _write_components(components: Any, path: Path) -> None:
    write_video(
        components.images,
        path,
        LOSSLESS,
        fps=components.frame_rate,
        audio=components.audio,
        pingpong=False,
        loop_count=0,
    )
