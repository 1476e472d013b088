"""The options of `animatediff-v2v run`, one for each input of the nodes."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from ..pipeline.presets import Preset
from ..pipeline.request import NEGATIVE_PROMPT, Dtype
from ..pipeline.sampling import (
    BetaScheduleChoice,
    ContextMemory,
    ContextSchedule,
    FrequencyFilter,
    FuseMethod,
    NoiseType,
    Sampler,
    Scheduler,
)
from ..pipeline.video import FORMATS, Fit
from .arguments import LORA, MOTION_LORA
from .parsing import STRENGTH, strength

Group = argparse._ArgumentGroup


def _named(choices: Any) -> str:
    return ", ".join(get_args(choices))


PRESET_HELP = (
    "defaults for steps, guidance scale, sampler and scheduler: "
    "quality (25, 7, euler, normal), turbo (8, 2.2, lcm, sgm_uniform; AnimateLCM or an LCM "
    "LoRA), lightning (4, 1, euler, sgm_uniform; AnimateDiff-Lightning), exact (the same as "
    "quality), fast (as quality, with --deep-cache 2 and --fast), draft (4, 1, lcm, sgm_uniform, "
    f"with --fast; AnimateLCM or an LCM LoRA); {_named(Preset)}"
)


def add_model_files(files: Group) -> None:
    """Add the options for model files and devices."""
    files.add_argument("--checkpoint", required=True, help="Stable Diffusion 1.5 checkpoint")
    files.add_argument(
        "--motion-module",
        required=True,
        help="AnimateDiff motion module, or the word none to restyle each frame on its own",
    )
    files.add_argument(
        "--vae",
        help="VAE to use instead of the checkpoint's own; with TAESD's decoder, taesd_decoder, it "
        "decodes drafts in a fraction of the time",
    )
    files.add_argument("--text-encoder", help="text encoder to use instead of the checkpoint's own")
    files.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar=LORA.form,
        help="LoRA; SCALE defaults to 1, and TEXT_SCALE, for the text encoder, to SCALE; it acts "
        "between START and END, fractions of the noise schedule. SCALE can be a curve along the "
        'frames of the output, "FILE:0=0.2,24=1.0", or over the steps, "FILE:0%%=1,50%%=0.2", and '
        "TEXT_SCALE is then 0 by default. Repeat for several",
    )
    files.add_argument(
        "--motion-lora",
        action="append",
        default=[],
        metavar=MOTION_LORA.form,
        help="motion LoRA to merge into the motion module; repeat for several",
    )
    files.add_argument(
        "--embeddings",
        metavar="FOLDER",
        help="folder of the embeddings that prompts name as embedding:NAME",
    )
    files.add_argument(
        "--motion-scale",
        type=strength,
        default=1.0,
        metavar=STRENGTH,
        help="above 1 more motion, below 1 less",
    )
    files.add_argument(
        "--motion-effect",
        type=strength,
        default=1.0,
        metavar=STRENGTH,
        help="share of the motion module's change that is used, from 0 to 1",
    )
    files.add_argument(
        "--clip-skip",
        type=int,
        default=1,
        help="layer of the text encoder to use: 1 the last, 2 the one before it",
    )
    _add_devices(files)


def _add_devices(files: Group) -> None:
    files.add_argument("--device", default="auto", help="auto, cuda, cuda:1, mps, cpu")
    files.add_argument(
        "--devices",
        metavar="DEVICE,...",
        help="devices of this machine that share the context windows of each video, such as "
        "cuda:0,cuda:1, instead of --device. Each has a copy of the UNet. The result stays the "
        "same, on GPUs of different models up to rounding. It cannot be combined with --compile",
    )
    files.add_argument("--dtype", default="auto", help=_named(Dtype))
    files.add_argument(
        "--max-memory",
        type=float,
        metavar="GB",
        help="limit on the memory of each device for weights and tensors, in 10^9 bytes; no limit "
        "by default. Idle networks are kept in main memory, and less is processed at a time. The "
        "driver and the workspaces of kernels need more on top. On a CPU nothing is moved, all "
        "networks count, and only the batches of the UNet get smaller. The result stays the same, "
        "on a GPU up to rounding",
    )


def add_picture(picture: Group) -> None:
    """Add the options for prompts and sampling."""
    picture.add_argument(
        "--prompt",
        help='what the video should show, "" to leave it open; required without --prompt-schedule',
    )
    picture.add_argument(
        "--prompt-schedule",
        metavar="FILE|TEXT",
        help="instead of --prompt: a text file, or text, with one keyframe per line, such as "
        '"0: a forest in spring" and "24: a forest in winter"',
    )
    picture.add_argument("--pre-text", default="", help="text before every prompt of the schedule")
    picture.add_argument("--app-text", default="", help="text after every prompt of the schedule")
    picture.add_argument(
        "--negative-prompt", default=NEGATIVE_PROMPT, help="what the video should not show"
    )
    picture.add_argument(
        "--preset",
        default="quality",
        help=PRESET_HELP,
    )
    picture.add_argument("--steps", type=int, help="denoising steps")
    _add_guidance(picture)
    picture.add_argument(
        "--denoise",
        type=strength,
        default=0.7,
        metavar=STRENGTH,
        help="how much the video is changed, from 0 to 1; or a curve along the frames of the "
        'output: "0: 0.2, 24: 1.0" rises evenly, with "24: 1.0 ease" softly, with "24: 1.0 hold" '
        "at once",
    )
    picture.add_argument("--seed", type=int, help="0 to 2^64-1, as in ComfyUI; random if absent")
    picture.add_argument("--sampler", help=_named(Sampler))
    picture.add_argument("--scheduler", help=_named(Scheduler))
    picture.add_argument(
        "--noise-type",
        default="default",
        help=f"initial noise: {_named(NoiseType)}; unsample inverts the source to noise, which "
        "keeps its structure",
    )
    picture.add_argument(
        "--beta-schedule",
        default="autoselect",
        help="noise schedule that the networks were trained on; autoselect chooses by the motion "
        f"module: {_named(BetaScheduleChoice)}",
    )


def _add_guidance(picture: Group) -> None:
    picture.add_argument(
        "--guidance-scale",
        type=strength,
        metavar=STRENGTH,
        help="how strictly the prompt is followed; or a curve, as with --denoise, or over the "
        'steps: "0%%: 9, 100%%: 4" falls from 9 in pure noise to 4 where none is left. A denoise '
        "of 0.5 begins at about 50%%",
    )
    picture.add_argument(
        "--guidance-rescale",
        type=float,
        default=0.0,
        help="0 to 1: brings the contrast back to that of the prompt alone (CFG rescale); 0.7 is "
        "usual, 0 is off",
    )
    picture.add_argument(
        "--guidance-parallel",
        type=float,
        default=1.0,
        help="0 to 1: how much of the part of guidance that oversaturates colours is kept; 0 is "
        "adaptive projected guidance (APG)",
    )

    add_free_init(picture)


def add_free_init(picture: Group) -> None:
    """Add the options of FreeInit."""
    picture.add_argument(
        "--free-init",
        type=int,
        metavar="ITERATIONS",
        help="sample this many times, each time from noise that keeps the slow parts of the last "
        "result (FreeInit): steadier, and as many times slower; 2 or 3 is usual",
    )
    picture.add_argument(
        "--free-init-filter",
        help=f"what counts as slow: {_named(FrequencyFilter)}; default gaussian",
    )
    picture.add_argument(
        "--free-init-spatial-stop",
        type=float,
        help="stop frequency of the filter in height and width, 0 to 1, default 0.25",
    )
    picture.add_argument(
        "--free-init-temporal-stop",
        type=float,
        help="stop frequency of the filter in time, 0 to 1, default 0.25",
    )
    picture.add_argument(
        "--free-init-order", type=int, help="butterworth: steepness, 1 to 100, default 4"
    )


def add_frames(frames: Group) -> None:
    """Add the options for the selection and size of frames."""
    frames.add_argument(
        "--select-every-nth-frame", type=int, default=2, help="keep every nth frame"
    )
    frames.add_argument(
        "--skip-first-frames",
        type=int,
        default=0,
        help="frames to skip at the beginning, counted after --force-rate",
    )
    frames.add_argument(
        "--frame-load-cap", type=int, default=0, help="maximum number of frames, 0 for all"
    )
    frames.add_argument(
        "--force-rate",
        default="0",
        metavar="FPS",
        help="resample the video to this frame rate before frames are counted, for example 8, "
        "29.97 or 30000/1001; 0 keeps its own rate",
    )
    frames.add_argument(
        "--start-time",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="start of the part to restyle",
    )
    frames.add_argument(
        "--duration",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="length of the part to restyle; 0 reaches to the end",
    )
    frames.add_argument(
        "--width",
        type=int,
        default=0,
        help="pixels, rounded to a multiple of 8; 0 follows --height and the source's aspect "
        "ratio; if both are 0, the source's size is kept, with a longer side of at most 768",
    )
    frames.add_argument(
        "--height",
        type=int,
        default=0,
        help="pixels, rounded to a multiple of 8; 0 follows --width and the source's aspect ratio",
    )
    frames.add_argument(
        "--fit",
        default="crop",
        help=f"if the aspect ratio changes: {_named(Fit)}; crop keeps the centre, pad adds black "
        "bars, stretch distorts",
    )


def add_windows(windows: Group) -> None:
    """Add the options for context windows."""
    windows.add_argument(
        "--context-length", type=int, default=16, help="frames that the UNet processes together"
    )
    windows.add_argument(
        "--context-overlap", type=int, default=4, help="frames shared by neighbouring windows"
    )
    windows.add_argument(
        "--context-stride",
        type=int,
        default=1,
        help="uniform schedules: above 1, windows also take every 2nd, 4th, ... frame",
    )
    windows.add_argument(
        "--context-schedule", default="standard_static", help=_named(ContextSchedule)
    )
    windows.add_argument(
        "--context-fuse",
        default="pyramid",
        help=f"weighting where windows overlap: {_named(FuseMethod)}",
    )
    windows.add_argument(
        "--closed-loop",
        action="store_true",
        help="looped_uniform: join the last frame to the first",
    )
    windows.add_argument(
        "--context-memory",
        default="none",
        help=f"{_named(ContextMemory)}: what keeps later windows like the first one. ContextRef: "
        "they also see its frames. NaiveReuse: they begin as it does, which suits --denoise 1. "
        "FeatureBank: their features are drawn towards those of all windows before",
    )
    windows.add_argument(
        "--context-memory-end",
        type=float,
        metavar="FRACTION",
        help="fraction of the noise schedule at which the memory ends, from 0 to 1; 1 by default, "
        "with which NaiveReuse repeats the first window, whatever the source shows later. "
        "AnimateDiff-Evolved's defaults are 0.25 for ContextRef and 0.15 for NaiveReuse",
    )


def add_output(output: Group) -> None:
    """Add the options for the output file."""
    output.add_argument(
        "--format", help=f"{', '.join(FORMATS)}; by default chosen by the suffix of OUTPUT"
    )
    output.add_argument(
        "--crf",
        type=int,
        help="quality: 0 is best and largest; the default depends on the format",
    )
    output.add_argument("--no-audio", action="store_true", help="write no sound")
    output.add_argument(
        "--pingpong", action="store_true", help="play the frames forwards and then backwards"
    )
    output.add_argument(
        "--loop-count",
        type=int,
        default=0,
        help="number of repetitions; 0 repeats gif and webp forever",
    )
    output.add_argument(
        "--hardware-encoder",
        action="store_true",
        help="encode on the graphics card if possible: faster, but larger at the same quality",
    )
    output.add_argument(
        "--restore-frames",
        action="store_true",
        help="make the frames between the kept ones too, from these and the motion of the source: "
        "OUTPUT has the frame rate of INPUT",
    )


def add_speed(speed: Group) -> None:
    """Add the options that trade quality for speed or memory."""
    speed.add_argument(
        "--deep-cache",
        type=int,
        metavar="N",
        help="run the UNet's deep layers only in every Nth call; 2 or 3 suit 20 steps and more, 1 "
        "is off; by default the preset's",
    )
    speed.add_argument(
        "--guidance-interval",
        metavar="START:END",
        help="fractions of the noise schedule between which guidance acts; steps outside take "
        "half the time; 0:1 by default",
    )
    speed.add_argument(
        "--fp8-weights",
        action="store_true",
        help="store the UNet's weights in 8 bits: half the memory of float16",
    )
    speed.add_argument(
        "--fast",
        action="store_true",
        help="compute less exactly where the device is faster so: NVIDIA cards sum up in float16, "
        "as with ComfyUI's --fast, and with --fp8-weights multiply in 8 bits from the RTX 40 on; "
        "CPUs with AVX512-BF16 or AMX compute in bfloat16 unless --dtype names another",
    )
    speed.add_argument(
        "--compile",
        action="store_true",
        help="compile the UNet's layers, which takes minutes once and is cached on disk; the "
        "result is equal up to rounding. For AMD and Intel GPUs, where it was not measured; slower "
        "on NVIDIA GPUs with Triton and on a CPU. It cannot be combined with --max-memory",
    )


def add_max_ram(speed: Group) -> None:
    """Add the option for the main memory of a long video."""
    speed.add_argument(
        "--max-ram",
        type=float,
        metavar="GB",
        help="main memory for the latents of a video and what a sampler keeps of them, in 10^9 "
        "bytes; more wait in files beside OUTPUT, with the same result. A quarter of the machine's "
        "by default",
    )
