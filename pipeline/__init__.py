"""Restyle videos with AnimateDiff: the whole job, and its parts, without ComfyUI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .on_demand import on_demand

if TYPE_CHECKING:
    from .curve import Curve
    from .errors import AnimateDiffV2VError, Cancelled
    from .files import LoraEntry
    from .keyframe_files import KeyframeFiles
    from .models import Models, load_models
    from .progress import Progress
    from .request import ControlFile, ModelFiles, Request, Result, StyleFile, Timings
    from .sampling import (
        Conditioning,
        ContextOptions,
        Control,
        FreeInit,
        Guidance,
        Guides,
        Keyframes,
        SamplingSettings,
        SpeedOptions,
        sample_latents,
    )
    from .video import FrameSelection
    from .video_to_video import load_files, video_to_video

__all__ = [
    "AnimateDiffV2VError",
    "Cancelled",
    "Conditioning",
    "ContextOptions",
    "Control",
    "ControlFile",
    "Curve",
    "FrameSelection",
    "FreeInit",
    "Guidance",
    "Guides",
    "KeyframeFiles",
    "Keyframes",
    "LoraEntry",
    "ModelFiles",
    "Models",
    "Progress",
    "Request",
    "Result",
    "SamplingSettings",
    "SpeedOptions",
    "StyleFile",
    "Timings",
    "load_files",
    "load_models",
    "sample_latents",
    "video_to_video",
]

on_demand(
    __name__,
    {
        "curve": ("Curve",),
        "errors": (
            "AnimateDiffV2VError",
            "Cancelled",
        ),
        "files": ("LoraEntry",),
        "keyframe_files": ("KeyframeFiles",),
        "models": (
            "Models",
            "load_models",
        ),
        "progress": ("Progress",),
        "request": (
            "ControlFile",
            "ModelFiles",
            "Request",
            "Result",
            "StyleFile",
            "Timings",
        ),
        "sampling": (
            "Conditioning",
            "ContextOptions",
            "Control",
            "FreeInit",
            "Guidance",
            "Guides",
            "Keyframes",
            "SamplingSettings",
            "SpeedOptions",
            "sample_latents",
        ),
        "video": ("FrameSelection",),
        "video_to_video": (
            "load_files",
            "video_to_video",
        ),
    },
)
