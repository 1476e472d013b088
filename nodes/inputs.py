"""Widgets that several nodes share."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ..pipeline import models
from ..pipeline.presets import Preset
from ..pipeline.ranges import (
    FORCED_FRAME_RATE,
    FRAMES,
    GUIDANCE_SCALE,
    MOTION_SCALE,
    NTH_FRAME,
    SECONDS,
    SEED,
    SHARE,
    SIDE,
    STEPS,
)
from ..pipeline.request import NEGATIVE_PROMPT
from ..pipeline.sampling import Sampler as SamplerName
from ..pipeline.sampling import Scheduler
from . import host
from .checks import Problem, problem_of
from .sockets import Context, ControlSocket, StyleSocket

MOTION_MODULE_TOOLTIP = (
    "Makes the frames move as one video. Files belong in models/animatediff_models: mm_sd_v15_v2, "
    "v3_sd15_mm, mm_sd_v15, AnimateLCM_sd15_t2v, AnimateDiff-Lightning."
)
LORA_STACK_TOOLTIP = (
    "LoRAs to merge into the networks, from a LoRA Stack node of this pack or another one."
)
MOTION_LORA_STACK_TOOLTIP = (
    "Motion LoRAs (camera moves) to merge into the motion module, from a Motion LoRA Stack. They "
    "are made for v2 modules."
)


# A slider up to STEPS.high would have its useful values in a few pixels.
MOST_STEPS_OF_WIDGET = 150

NTH_TOOLTIP = (
    "Keep every nth frame: 2 halves the frames, the work and the frame rate. The duration stays "
    "the same."
)


def prompt_inputs(positive: str, negative: str) -> list[io.Input]:
    """Return the inputs of the two prompts, under the names that a node gives them."""
    return [
        io.String.Input(
            positive,
            multiline=True,
            dynamic_prompts=True,
            default="",
            tooltip="What the video should show. (word:1.2) weighs more, (word:0.8) less; "
            "embedding:name uses a file in models/embeddings.",
        ),
        io.String.Input(
            negative,
            multiline=True,
            dynamic_prompts=True,
            default=NEGATIVE_PROMPT,
            tooltip="What the video should not show. Has no effect at a guidance scale of 1.",
        ),
    ]


def steps_input(name: str) -> io.Input:
    """Return the input of the number of denoising steps."""
    return io.Int.Input(
        name,
        default=25,
        min=STEPS.low,
        max=MOST_STEPS_OF_WIDGET,
        tooltip="Denoising steps. More give a finer result and take proportionally longer; 20 to "
        "30 is usual, 4 to 8 with AnimateLCM or Lightning.",
    )


def steps_problem(name: str, steps: int | None) -> Problem | None:
    """Return the problem of a number of steps that no widget and no API call may have."""
    return None if steps is None else problem_of(lambda: STEPS.check(name, steps), name)


def guidance_input() -> io.Input:
    """Return the input of the guidance scale."""
    return io.Float.Input(
        "guidance_scale",
        default=7.0,
        min=GUIDANCE_SCALE.low,
        max=GUIDANCE_SCALE.high,
        step=0.1,
        tooltip="How strongly the prompt is followed; 7 is usual, above 12 colours become "
        "oversaturated. 1 takes half the time and ignores the negative prompt. A Strength Curve "
        "can be connected.",
    )


def seed_input(*, control_after_generate: bool = True) -> io.Input:
    """Return the input of the seed, which the page changes after each run if it is to."""
    return io.Int.Input(
        "seed",
        default=0,
        min=SEED.low,
        max=SEED.high,
        control_after_generate=control_after_generate,
        tooltip="Determines the noise. The same seed and settings give the same video.",
    )


def method_inputs(**more: Any) -> list[io.Input]:
    """Return sampler and scheduler; `more` options are for both inputs."""
    return [
        io.Combo.Input(
            "sampler",
            options=list(get_args(SamplerName)),
            default="euler",
            **more,
            tooltip="How noise is removed, as in KSampler. euler is reliable; dpmpp_2m needs fewer "
            "steps; lcm is for AnimateLCM and LCM LoRAs; those in cfg_pp want a guidance scale of "
            "1 to 2.",
        ),
        io.Combo.Input(
            "scheduler",
            options=list(get_args(Scheduler)),
            default="normal",
            **more,
            tooltip="How the noise levels are spaced over the steps, as in KSampler. normal is "
            "reliable; karras suits the dpmpp samplers; sgm_uniform is for lcm and Lightning; "
            "align_your_steps is for about 10 steps.",
        ),
    ]


def denoise_input(**more: Any) -> io.Input:
    """Return the input of denoise."""
    return io.Float.Input(
        "denoise",
        default=0.7,
        min=SHARE.low,
        max=SHARE.high,
        step=0.01,
        **more,
        tooltip="How much is changed: 0 returns the source, 0.5 keeps shapes, 0.7 keeps the "
        "composition, 1 keeps nothing. A Strength Curve can be connected.",
    )


def preset_input() -> io.Input:
    """Return the input of the preset."""
    return io.Combo.Input(
        "preset",
        options=list(get_args(Preset)),
        default="quality",
        optional=True,
        tooltip="Values for steps, guidance scale, sampler and scheduler, used where these are "
        "left at their defaults. quality: 25, 7, euler, normal. turbo, for AnimateLCM or an LCM "
        "LoRA: 8, 2.2, lcm, sgm_uniform. lightning, for AnimateDiff-Lightning's 4-step module: 4, "
        "1, euler, sgm_uniform. exact: the same as quality. fast: as quality, with DeepCache 2 and "
        "reduced precision. draft, for AnimateLCM or an LCM LoRA: 4, 1, lcm, sgm_uniform. Speed "
        "Options that are connected replace those of fast and draft.",
    )


def guidance_limit_input(name: str, default: float) -> io.Input:
    """Return the widget for the start or the end of guidance, as a fraction of the schedule."""
    return io.Float.Input(
        f"guidance_{name}",
        default=default,
        min=SHARE.low,
        max=SHARE.high,
        step=0.01,
        optional=True,
        advanced=True,
        tooltip=f"Fraction of the noise schedule at which guidance {name}s; outside start and end "
        "the scale is 1, which takes half the time.",
    )


def nth_input() -> io.Input:
    """Return the input of select_every_nth_frame."""
    return io.Int.Input(
        "select_every_nth_frame",
        default=2,
        min=NTH_FRAME.low,
        max=NTH_FRAME.high,
        tooltip=NTH_TOOLTIP,
    )


def rate_input(**more: Any) -> io.Input:
    """Return the input of force_rate."""
    return io.Float.Input(
        "force_rate",
        default=0.0,
        min=FORCED_FRAME_RATE.low,
        max=FORCED_FRAME_RATE.high,
        step=0.01,
        **more,
        tooltip="Frame rate to convert the video to first, by repeating or dropping frames; the "
        "duration stays the same. 0 keeps the video's own rate.",
    )


def duration_input() -> io.Input:
    """Return the input of the duration."""
    return _seconds_input(
        "duration", "Seconds of the video to read, counted from start_time; 0 reads to the end."
    )


def size_input(name: str, *, otherwise: str, **more: Any) -> io.Input:
    """Return the input of a side; `otherwise` says what another aspect ratio than its own does."""
    return io.Int.Input(
        name,
        default=0,
        min=SIDE.low,
        max=SIDE.high,
        step=8,
        **more,
        tooltip=f"Pixels; the {name} is rounded to a multiple of 8. If the aspect ratio is not "
        f"that of the video, {otherwise}. 0 keeps the video's own aspect ratio; if both are 0, a "
        "video with a side longer than 768 is scaled down to 768.",
    )


def frame_cap_input(tooltip: str, **more: Any) -> io.Input:
    """Return the input of frame_load_cap."""
    return io.Int.Input(
        "frame_load_cap", default=0, min=FRAMES.low, max=FRAMES.high, **more, tooltip=tooltip
    )


def guide_inputs() -> list[io.Input]:
    """Return the sockets of ControlNets with keyframes, and of IP-Adapters."""
    return [
        ControlSocket.Input(
            "control",
            optional=True,
            tooltip="ControlNets that keep the structure, from ControlNet for AnimateDiff, and "
            "keyframes, from Keyframes for AnimateDiff.",
        ),
        style_input(),
    ]


def style_input() -> io.Input:
    """Return the socket of IP-Adapters."""
    return StyleSocket.Input(
        "style",
        optional=True,
        tooltip="Images that give the video their style, from IP-Adapter for AnimateDiff.",
    )


def _seconds_input(name: str, tooltip: str) -> io.Input:
    return io.Float.Input(
        name,
        default=0.0,
        min=SECONDS.low,
        max=SECONDS.high,
        step=0.01,
        optional=True,
        advanced=True,
        tooltip=tooltip,
    )


def match_source_input(name: str, *, default: float = 0.0, **more: Any) -> io.Input:
    """Return the input of the strength with which colours are held to the source's."""
    return io.Float.Input(
        name,
        default=default,
        min=SHARE.low,
        max=SHARE.high,
        step=0.05,
        **more,
        tooltip="How far brightness and colour of each frame are held to those of the source: 0 "
        "not at all, 1 fully. It corrects darkening by LCM and tints by a VAE; a prompt that "
        "changes the colours needs less.",
    )


def prefix_input(**more: Any) -> io.Input:
    """Return the input of the file name prefix."""
    return io.String.Input(
        "filename_prefix",
        default="video/AnimateDiffV2V",
        **more,
        tooltip="Beginning of the file name, below ComfyUI's output folder; a number follows. "
        "%year%, %month%, %day%, %width% and %height% are filled in.",
    )


def video_input() -> io.Input:
    """Return the combo of uploaded videos."""
    return io.Combo.Input(
        "video",
        options=host.input_videos(),
        upload=io.UploadType.video,
        tooltip="A video or a folder of pictures in ComfyUI's input folder. Drop a file on the "
        "node, or use its button.",
    )


def motion_scale_input() -> io.Input:
    """Return the widget that scales the attention between frames."""
    return io.Float.Input(
        "motion_scale",
        optional=True,
        default=1.0,
        min=MOTION_SCALE.low,
        max=MOTION_SCALE.high,
        step=0.05,
        tooltip="Sharpens the attention between frames: above 1 gives more motion, below 1 less. "
        "1 is as trained. A Strength Curve can be connected.",
    )


def motion_effect_input() -> io.Input:
    """Return the socket for the share of the motion modules' change that is used."""
    return io.Float.Input(
        "motion_effect",
        optional=True,
        force_input=True,
        min=SHARE.low,
        max=SHARE.high,
        tooltip="How much of what the motion module changes is used, from 0 to 1: a number, or a "
        "Strength Curve. 1 is as trained; at 0 each frame is restyled by itself.",
    )


def motion_mask_inputs() -> list[io.Input]:
    """Return the sockets of the masks by which a motion module acts from pixel to pixel."""
    one_or_each = "One mask for all frames, or one for each."
    return [
        io.Mask.Input(
            "motion_scale_mask",
            optional=True,
            tooltip="Multiplies motion_scale in each pixel: white keeps it; black is a scale of 0, "
            f"with which all frames count alike. {one_or_each}",
        ),
        io.Mask.Input(
            "motion_effect_mask",
            optional=True,
            tooltip="Where the motion module acts: as set at white, not at all at black, where "
            f"each frame is restyled by itself. It multiplies motion_effect. {one_or_each}",
        ),
    ]


def motion_masks(scale: Tensor | None, effect: Tensor | None) -> models.MotionMasks:
    """Return the values of motion_mask_inputs; raise AnimateDiffV2VError if one is no mask."""
    return models.MotionMasks.of(
        *(None if each is None else _shaped(each) for each in (scale, effect))
    )


def _shaped(mask: Tensor) -> Tensor:
    """Return a mask with its frames in front, as it may come without or with a channel."""
    return mask.reshape(-1, *mask.shape[-2:])


def context_input() -> io.Input:
    """Return the socket for the options of context windows."""
    return Context.Input(
        "context_options",
        optional=True,
        tooltip="How a long video is cut into windows. If nothing is connected, a video that fits "
        "the motion module (24 or 32 frames) is processed as a whole, and a longer one in windows "
        "of 16 that overlap by 4.",
    )
