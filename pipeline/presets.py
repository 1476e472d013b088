"""Presets: settings that belong together, for kinds of motion modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal

from .choices import check_types, checked
from .curve import Strength, highest
from .sampling import Sampler, Scheduler, SpeedOptions
from .sampling.windows import context_windows, window_for

if TYPE_CHECKING:
    from .models import Models
    from .sampling.settings import SamplingSettings

# Upper limits of what suits distilled motion modules.
MOST_DISTILLED_STEPS = 8
MOST_DISTILLED_GUIDANCE = 3.0
# Of CFG++, whose paper stays below 1: each step takes on the whole guidance.
MOST_CFG_PP_GUIDANCE = 3.0
# With fewer frames at once, motion modules fail.
FEWEST_FRAMES = 8
LOAD_MORE = (
    "Load more: a smaller select_every_nth_frame, a higher force_rate, or more of the video."
)

Preset = Literal["quality", "turbo", "lightning", "exact", "fast", "draft"]


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Default values of the settings that a preset changes."""

    steps: int
    guidance_scale: Strength
    sampler: Sampler
    scheduler: Scheduler
    speed: SpeedOptions = field(default_factory=SpeedOptions)

    def __post_init__(self) -> None:
        """Refuse values of other types."""
        check_types(self)


PRESETS: dict[Preset, Defaults] = {
    "quality": Defaults(steps=25, guidance_scale=7.0, sampler="euler", scheduler="normal"),
    # For AnimateLCM, or any motion module together with an LCM LoRA.
    "turbo": Defaults(steps=8, guidance_scale=2.2, sampler="lcm", scheduler="sgm_uniform"),
    # For AnimateDiff-Lightning's 4-step module; its 2- and 8-step ones want `steps` set to match.
    "lightning": Defaults(steps=4, guidance_scale=1.0, sampler="euler", scheduler="sgm_uniform"),
}
# The same as quality, whose options for speed are all off.
PRESETS["exact"] = PRESETS["quality"]
PRESETS["fast"] = replace(
    PRESETS["quality"], speed=SpeedOptions(deep_cache_interval=2, reduced_precision=True)
)
# For AnimateLCM or an LCM LoRA: the fewest steps that show what a video will look like.
PRESETS["draft"] = Defaults(
    steps=4,
    guidance_scale=1.0,
    sampler="lcm",
    scheduler="sgm_uniform",
    speed=SpeedOptions(reduced_precision=True),
)


def preset_defaults(preset: Preset) -> Defaults:
    """Return the defaults of a preset.

    Raises:
        AnimateDiffV2VError: unknown name.
    """
    checked("preset", preset, Preset)
    return PRESETS[preset]


def with_preset(preset: Preset, chosen: Defaults) -> Defaults:
    """Return `chosen` with the preset's values for all that equal quality's.

    For forms whose fields always have a value, so that untouched fields cannot be told apart.
    """
    untouched, names = PRESETS["quality"], [each.name for each in fields(Defaults)]
    touched = {
        name: getattr(chosen, name)
        for name in names
        if getattr(chosen, name) != getattr(untouched, name)
    }
    return replace(preset_defaults(preset), **touched)


def unsuitable(num_frames: int, settings: SamplingSettings, models: Models) -> Iterator[str]:
    """Yield warnings of settings that do not suit the video, each other or the networks."""
    yield from mismatches(settings, models)
    for find in (few_frames, idle_devices, repeated_window):
        warning = find(num_frames, settings, models)
        if warning is not None:
            yield warning


def few_frames(num_frames: int, settings: SamplingSettings, models: Models) -> str | None:
    """Return a warning if the motion module sees too few frames at once, else None."""
    if models.motion_family is None:
        return None
    length = settings.context.length if settings.context else num_frames
    return few_frames_at_once(num_frames, length, LOAD_MORE)


def few_frames_at_once(num_frames: int, length: int, remedy: str) -> str | None:
    """Return a warning if a motion module sees too few frames at once, else None.

    Args:
        num_frames: Frames of the video.
        length: Frames of a window.
        remedy: A sentence for a video that is too short.
    """
    if num_frames < FEWEST_FRAMES:
        frames = "1 frame is" if num_frames == 1 else f"{num_frames} frames are"
        return (
            f"{frames} too few for a motion module, which was trained on 16: the "
            f"picture can be blurred or grey. {remedy}"
        )
    if length < FEWEST_FRAMES:
        return (
            f"Windows of {length} frames are short for a motion module, which was trained on 16: "
            "the picture can be blurred or grey. A context length of 16 suits it."
        )
    return None


def idle_devices(num_frames: int, settings: SamplingSettings, models: Models) -> str | None:
    """Return a warning if some of several devices have no window to compute, else None."""
    devices = 1 + len(models.replicas)
    window = window_for(models.unet.max_frames, num_frames, settings.context)
    windows = len(context_windows(num_frames, window))
    if devices == 1 or windows >= devices:
        return None
    some = "a single context window" if windows == 1 else f"{windows} context windows"
    return (
        f"{num_frames} frames are {some}, and there are {devices} devices: the others wait. "
        "More frames, or shorter windows, would keep them busy."
    )


def repeated_window(num_frames: int, settings: SamplingSettings, _models: Models) -> str | None:
    """Return a warning if windows that repeat the first one lose the source, else None."""
    context, start = settings.context, 1 - highest(settings.denoise)
    if context is None or context.memory != "NaiveReuse" or num_frames <= context.length:
        return None
    if not 0 < start < context.memory_end:
        return None
    return (
        "NaiveReuse repeats the first window in all others, which loses what the source shows "
        "later: it is for a denoise of 1. ContextRef keeps the source."
    )


def mismatches(settings: SamplingSettings, models: Models) -> Iterator[str]:
    """Yield warnings of settings that do not suit each other or the networks."""
    guidance = settings.guidance
    if guidance.scale == 1 and not guidance.is_linear:
        option = "guidance_rescale" if guidance.rescale else "guidance_parallel"
        value = guidance.rescale or guidance.parallel
        yield (
            f"{option} is {value:g} and has no effect, because there is no guidance at a scale "
            "of 1."
        )
    is_cfg_pp, scale = settings.sampler.endswith("_cfg_pp"), highest(guidance.scale)
    if is_cfg_pp and scale > MOST_CFG_PP_GUIDANCE:
        yield (
            f"guidance_scale {scale:g} is too strong for the sampler {settings.sampler}: 1 to 2 "
            "suit it."
        )
        return
    family = models.motion_family
    if family is None:
        return
    few_steps = settings.steps <= MOST_DISTILLED_STEPS
    strong = scale > MOST_DISTILLED_GUIDANCE
    if family == "animatelcm" and strong:
        yield (
            f"guidance_scale {scale:g} is too strong for an AnimateLCM motion module: 1 to 2.2 "
            "suit it, as in the preset turbo."
        )
    # Not for v2, which may be a Lightning module, nor with a LoRA, which may be an LCM LoRA.
    elif few_steps and family in ("v1", "v3") and not models.has_loras:
        yield (
            f"{settings.steps} steps are for AnimateDiff-Lightning, AnimateLCM or an LCM LoRA; "
            f"this motion module is an AnimateDiff {family} without a LoRA, and the picture will "
            "be blurred: the preset quality suits it."
        )
    elif settings.sampler == "lcm" and family == "v2" and not models.has_loras:
        yield (
            "The sampler lcm is for AnimateLCM or an LCM LoRA; this motion module is neither, and "
            "the picture may be blurred: the presets quality or lightning suit it."
        )
