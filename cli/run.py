"""`animatediff-v2v run`: restyles a video."""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.job_files import check_devices, check_files, check_kinds, check_memory_bound
from ..pipeline.output_file import check_output
from ..pipeline.presets import preset_defaults
from ..pipeline.prompts import PromptSchedule
from ..pipeline.ranges import DRAWN_SEED
from ..pipeline.request import ModelFiles, Request
from ..pipeline.sampling import ContextOptions, FreeInit, Guidance, SpeedOptions
from ..pipeline.sampling.settings import SamplingSettings
from ..pipeline.video import FrameSelection
from ..pipeline.video.formats import FORMATS, format_by_suffix, suffixes
from ..pipeline.video.target import check_target
from . import guide_options, options
from .arguments import (
    LORA,
    MOTION_LORA,
    control_files,
    device_names,
    interval,
    keyframe_files,
    lora_entry,
    prompt_schedule,
    style_files,
    style_weights,
)
from .companions import check_companions
from .console import progress_display, say
from .parsing import Help
from .signals import leaving_at_once


def add_command(commands: Any) -> None:
    """Add this subcommand to argparse's subparsers."""
    run = commands.add_parser(
        "run",
        help="restyle a video",
        formatter_class=Help,
        description="Restyle INPUT according to a prompt and write OUTPUT.",
    )
    run.set_defaults(command=_run)
    run.add_argument("input", metavar="INPUT", help="video or folder of pictures to restyle")
    run.add_argument(
        "output",
        metavar="OUTPUT",
        help=f"file to write: {suffixes()}, or a name without a suffix for a folder of pictures",
    )
    run.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it exists")
    run.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    add_job_options(run)


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe a job, but for its files."""
    options.add_model_files(parser.add_argument_group("model files"))
    options.add_picture(parser.add_argument_group("picture"))
    guides = parser.add_argument_group("guides")
    guide_options.add_controls(guides)
    guide_options.add_keyframes(guides)
    guide_options.add_styles(guides)
    guide_options.add_source(guides)
    options.add_frames(parser.add_argument_group("frames"))
    options.add_windows(parser.add_argument_group("context windows"))
    guide_options.add_refining(parser.add_argument_group("second pass"))
    options.add_output(parser.add_argument_group("output"))
    speed = parser.add_argument_group("speed and memory, at a cost")
    options.add_speed(speed)
    options.add_max_ram(speed)


def _run(parsed: argparse.Namespace) -> int:
    check_companions(parsed)
    request, files = request_of(parsed), model_files(parsed)
    check_target(request.output, FORMATS[request.format])
    check_output(request.output, inputs=request.inputs, overwrite=request.overwrite)
    check_memory_bound(request, has_bound=files.max_memory_gb is not None)
    check_devices(request, are_several=len(files.devices) > 1)
    check_files(request, files)
    check_kinds(request, files)
    with progress_display() as display:
        display.begin("loading PyTorch")
        with leaving_at_once():
            from ..pipeline.memory.devices import job_devices  # noqa: PLC0415 - takes seconds
            from ..pipeline.video_to_video import video_to_video  # noqa: PLC0415 - takes seconds
        job_devices(files)  # raises if one of them is not there
        display.begin("loading the models")
        result = video_to_video(request, files, max_ram_gb=parsed.max_ram, progress=display.show)
    if parsed.json:
        say(json.dumps(result.as_json()))
    else:
        say(f"{result.path}: {result.frame_count} frames, seed {result.seed}")
    return 0


def request_of(parsed: argparse.Namespace) -> Request:
    """Return the request that the options of `run` describe."""
    return Request(
        input=parsed.input,
        output=parsed.output,
        prompt=parsed.prompt or "",
        prompt_schedule=_schedule(parsed),
        negative_prompt=parsed.negative_prompt,
        sampling=_sampling(parsed),
        selection=FrameSelection(
            select_every_nth_frame=parsed.select_every_nth_frame,
            skip_first_frames=parsed.skip_first_frames,
            frame_load_cap=parsed.frame_load_cap,
            force_rate=parsed.force_rate,
            start_time_seconds=parsed.start_time,
            duration_seconds=parsed.duration,
        ),
        width=parsed.width,
        height=parsed.height,
        fit=parsed.fit,
        crf=parsed.crf,
        controls=control_files(
            parsed.control,
            parsed.control_source,
            parsed.control_mask,
            repeat_last=parsed.repeat_last_control,
            **_given(
                low_threshold=parsed.canny_low,
                high_threshold=parsed.canny_high,
                tile_factor=parsed.tile_factor,
            ),
        ),
        keyframes=keyframe_files(parsed.keyframe, parsed.sparsectrl, parsed.keyframe_mask),
        styles=style_files(
            parsed.ip_adapter,
            images=parsed.style_image,
            vision_model=parsed.clip_vision,
            weights=style_weights(parsed.style_weights),
            **_given(arrangement=parsed.style_arrangement),
        ),
        overwrite=parsed.overwrite,
        source_prompt=parsed.source_prompt,
        source_blend=parsed.source_blend,
        source_mask=parsed.source_mask,
        match_source=parsed.match_source,
        refine=parsed.refine,
        audio=not parsed.no_audio,
        pingpong=parsed.pingpong,
        loop_count=parsed.loop_count,
        hardware_encoder=parsed.hardware_encoder,
        restore_frames=parsed.restore_frames,
        **_given(
            format=parsed.format or format_by_suffix(Path(parsed.output)),
            source_blend_end=parsed.source_blend_end,
            refine_denoise=parsed.refine_denoise,
            refine_upscale=parsed.refine_upscale,
        ),
    )


def _given(**fields: Any) -> dict[str, Any]:
    """Return the fields that were given; the others keep the library's defaults."""
    return {name: value for name, value in fields.items() if value is not None}


def _schedule(parsed: argparse.Namespace) -> PromptSchedule | None:
    given = [each is not None for each in (parsed.prompt, parsed.prompt_schedule)]
    if all(given):
        raise AnimateDiffV2VError("--prompt and --prompt-schedule are both given; give one.")
    if not any(given):
        raise AnimateDiffV2VError(
            '--prompt is missing: say what the video should show ("" leaves it open), or give '
            "--prompt-schedule."
        )
    if parsed.prompt_schedule is None:
        if parsed.pre_text or parsed.app_text:
            raise AnimateDiffV2VError(
                "--pre-text and --app-text are for --prompt-schedule; put the words into --prompt."
            )
        return None
    return prompt_schedule(
        parsed.prompt_schedule, pre_text=parsed.pre_text, app_text=parsed.app_text
    )


def model_files(parsed: argparse.Namespace) -> ModelFiles:
    """Return the model files that the options of `add_model_files` name."""
    return ModelFiles(
        checkpoint=parsed.checkpoint,
        motion_module=None if parsed.motion_module == "none" else parsed.motion_module,
        vae=parsed.vae,
        text_encoder=parsed.text_encoder,
        motion_loras=tuple(lora_entry(text, MOTION_LORA) for text in parsed.motion_lora),
        loras=tuple(lora_entry(text, LORA) for text in parsed.lora),
        embeddings=parsed.embeddings,
        device=parsed.device,
        devices=device_names(parsed.devices),
        dtype=parsed.dtype,
        max_memory_gb=parsed.max_memory,
        motion_scale=parsed.motion_scale,
        motion_effect=parsed.motion_effect,
        clip_skip=parsed.clip_skip,
    )


def _sampling(parsed: argparse.Namespace) -> SamplingSettings:
    defaults = preset_defaults(parsed.preset)

    def chosen(value: Any, default: Any) -> Any:
        return default if value is None else value

    return SamplingSettings(
        seed=chosen(parsed.seed, random.SystemRandom().randint(DRAWN_SEED.low, DRAWN_SEED.high)),
        steps=chosen(parsed.steps, defaults.steps),
        guidance=Guidance(
            scale=chosen(parsed.guidance_scale, defaults.guidance_scale),
            rescale=parsed.guidance_rescale,
            parallel=parsed.guidance_parallel,
        ),
        sampler=chosen(parsed.sampler, defaults.sampler),
        scheduler=chosen(parsed.scheduler, defaults.scheduler),
        denoise=parsed.denoise,
        beta_schedule=parsed.beta_schedule,
        noise_type=parsed.noise_type,
        context=ContextOptions(
            length=parsed.context_length,
            overlap=parsed.context_overlap,
            stride=parsed.context_stride,
            schedule=parsed.context_schedule,
            fuse=parsed.context_fuse,
            closed_loop=parsed.closed_loop,
            memory=parsed.context_memory,
            **_given(memory_end=parsed.context_memory_end),
        ),
        speed=_speed(parsed, defaults.speed),
        free_init=_free_init(parsed),
    )


def _free_init(parsed: argparse.Namespace) -> FreeInit | None:
    if parsed.free_init is None:
        return None
    return FreeInit(
        iterations=parsed.free_init,
        **_given(
            filter=parsed.free_init_filter,
            spatial_stop=parsed.free_init_spatial_stop,
            temporal_stop=parsed.free_init_temporal_stop,
            order=parsed.free_init_order,
        ),
    )


def _speed(parsed: argparse.Namespace, preset: SpeedOptions) -> SpeedOptions:
    """Return the preset's options with those that were given."""
    given = _given(
        deep_cache_interval=parsed.deep_cache,
        fp8_weights=parsed.fp8_weights or None,
        compile=parsed.compile or None,
        reduced_precision=parsed.fast or None,
    )
    if parsed.guidance_interval is not None:
        given["guidance_start"], given["guidance_end"] = interval(parsed.guidance_interval)
    return replace(preset, **given)
