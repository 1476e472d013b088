"""What the frontend shows before a run: the number of windows, and the time it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..pipeline import AnimateDiffV2VError, ContextOptions, Guidance, SamplingSettings
from ..pipeline.presets import Defaults, with_preset
from .run_times import Work, expected_seconds

# Of the motion modules v2 and v3; with v1, 25 to 32 frames take windows, too.
FITTING_FRAMES = 32


def describe_forecast(
    query: Mapping[str, str], *, frame_count: int, width: int, height: int
) -> dict[str, Any]:
    """Describe a run over frames of a size.

    Args:
        query: `steps`, `guidance_scale`, `preset` and `denoise` of a node; `context`, the Context
            Options as JSON, empty for their defaults; `windows`, which is "fitting" if a video
            that fits the motion module is one window; and `checkpoint`, a file's name.
        frame_count: frames of the video.
        width: in pixels.
        height: in pixels.

    Returns:
        The number of `windows`, the `checkpoint`, and the expected `seconds`; None if nothing was
        measured with it yet.

    Raises:
        AnimateDiffV2VError: for a wrong value.
    """
    try:
        options = json.loads(query.get("context") or "{}")
        chosen = Defaults(
            steps=int(query["steps"]),
            guidance_scale=float(query["guidance_scale"]),
            sampler="euler",
            scheduler="normal",
        )
        preset: Any = query.get("preset", "quality")
        defaults = with_preset(preset, chosen)
        settings = SamplingSettings(
            seed=0,
            steps=defaults.steps,
            guidance=Guidance(scale=defaults.guidance_scale),
            denoise=float(query.get("denoise", 0.7)),
        )
        context = ContextOptions(**options)
    except (ValueError, TypeError, KeyError) as error:
        raise AnimateDiffV2VError(f"The settings cannot be read: {error}") from error
    if not options and query.get("windows") == "fitting" and frame_count <= FITTING_FRAMES:
        context = ContextOptions(length=frame_count, overlap=0)
    work = Work.of(frame_count, width=width, height=height, settings=settings, context=context)
    checkpoint = query.get("checkpoint", "")
    return {
        "windows": work.windows,
        "checkpoint": checkpoint,
        "seconds": expected_seconds(checkpoint, work),
    }
