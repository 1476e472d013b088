"""Reading and writing videos: exact frames, correct colours, sound in sync."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..on_demand import on_demand

if TYPE_CHECKING:
    from .audio import Audio, AudioSpan, read_audio
    from .control_frames import ControlFrameOptions, Preprocessor
    from .formats import FORMATS, FormatName, OutputFormat
    from .geometry import Fit
    from .info import VideoInfo
    from .probe import probe_video
    from .reader import VideoReader
    from .selection import FrameSelection, exact_rate
    from .thumbnails import thumbnails
    from .writer import VideoWriter

__all__ = [
    "FORMATS",
    "Audio",
    "AudioSpan",
    "ControlFrameOptions",
    "Fit",
    "FormatName",
    "FrameSelection",
    "OutputFormat",
    "Preprocessor",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "exact_rate",
    "probe_video",
    "read_audio",
    "thumbnails",
]

on_demand(
    __name__,
    {
        "audio": (
            "Audio",
            "AudioSpan",
            "read_audio",
        ),
        "control_frames": (
            "ControlFrameOptions",
            "Preprocessor",
        ),
        "formats": (
            "FORMATS",
            "FormatName",
            "OutputFormat",
        ),
        "geometry": ("Fit",),
        "info": ("VideoInfo",),
        "probe": ("probe_video",),
        "reader": ("VideoReader",),
        "selection": (
            "FrameSelection",
            "exact_rate",
        ),
        "thumbnails": ("thumbnails",),
        "writer": ("VideoWriter",),
    },
)
