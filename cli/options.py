"""The options of `animatediff-v2v run`: one for every setting that a node has."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from ..pipeline.presets import Preset
from ..pipeline.request import NEGATIVE_PROMPT, Dtype
from ..pipeline.sampling import (
    Arrangement,
    BetaScheduleChoice,
    ContextSchedule,
    FuseMethod,
    NoiseType,
    Sampler,
    Scheduler,
)
from ..pipeline.video import FORMATS, Fit
from .arguments import CONTROL, IP_ADAPTER, LORA, MOTION_LORA

Group = argparse._ArgumentGroup


def _named(choices: Any) -> str:
    return ", ".join(get_args(choices))


def add_model_files(files: Group) -> None:
    """Where the networks come from, and where they run."""
    files.add_argument("--checkpoint", required=True, help="Stable Diffusion 1.5 checkpoint")
    files.add_argument(
        "--motion-module",
        required=True,
        help="AnimateDiff motion module; none restyles each frame by itself",
    )
    files.add_argument("--vae", help="VAE to use instead of the checkpoint's own")
    files.add_argument("--text-encoder", help="text encoder to use instead of the checkpoint's own")
    files.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar=LORA.form,
        help="LoRA to merge, scale 1 unless given; TEXT_SCALE is for the text encoder, SCALE "
        "unless given; repeat for several",
    )
    files.add_argument(
        "--motion-lora",
        action="append",
        default=[],
        metavar=MOTION_LORA.form,
        help="motion LoRA to merge into the motion module; repeat for several",
    )
    files.add_argument("--embeddings", metavar="FOLDER", help="folder for embedding:name")
    files.add_argument(
        "--motion-scale",
        type=float,
        default=1.0,
        help="above 1 more motion, below 1 less; 1 is as trained",
    )
    files.add_argument(
        "--clip-skip",
        type=int,
        default=1,
        help="layer of the text encoder that is read: 1 the last, 2 the one before it",
    )
    files.add_argument("--device", default="auto", help="auto, cuda, cuda:1, mps, cpu")
    files.add_argument("--dtype", default="auto", help=_named(Dtype))
    files.add_argument(
        "--max-memory",
        type=float,
        metavar="GB",
        help="the most of the device's memory that weights and tensors may take, in 10^9 bytes; no "
        "bound unless given: networks wait in main memory while others work, and less goes "
        "through them at a time; what the driver and the kernels' workspaces take comes on top; "
        "on a CPU, whose main memory is the device's, nothing moves, all networks count, and only "
        "what goes through the UNet at a time gets less; the result stays the same, on a GPU but "
        "for rounding",
    )


def add_picture(picture: Group) -> None:
    """What the video shows, and how it is sampled."""
    picture.add_argument("--prompt", help="what the video should show")
    picture.add_argument(
        "--prompt-schedule",
        metavar="FILE|TEXT",
        help="instead of --prompt: a text file, or text, with a prompt for each keyframe, "
        '"0: a forest in spring" and "24: a forest in winter" on lines of their own',
    )
    picture.add_argument("--pre-text", default="", help="put before every prompt of the schedule")
    picture.add_argument("--app-text", default="", help="put after every prompt of the schedule")
    picture.add_argument(
        "--negative-prompt", default=NEGATIVE_PROMPT, help="what the video should not show"
    )
    picture.add_argument(
        "--preset",
        default="quality",
        help="defaults for steps, guidance scale, sampler and scheduler: "
        "quality (25, 7, euler, normal), turbo (8, 2.2, lcm, sgm_uniform; AnimateLCM or an LCM "
        f"LoRA), lightning (4, 1, euler, sgm_uniform; AnimateDiff-Lightning); {_named(Preset)}",
    )
    picture.add_argument("--steps", type=int, help="denoising steps")
    picture.add_argument("--guidance-scale", type=float, help="how strictly the prompt is followed")
    picture.add_argument(
        "--denoise", type=float, default=0.7, help="how much is made new, from 0 to 1"
    )
    picture.add_argument("--seed", type=int, help="0 to 2^64-1, as in ComfyUI; random if absent")
    picture.add_argument("--sampler", help=_named(Sampler))
    picture.add_argument("--scheduler", help=_named(Scheduler))
    picture.add_argument(
        "--noise-type",
        default="default",
        help=f"the noise that sampling begins with: {_named(NoiseType)}; unsample takes the noise "
        "that the source would come from, which keeps its structure",
    )
    picture.add_argument(
        "--beta-schedule",
        default="autoselect",
        help="noise schedule that the networks were trained on; autoselect goes by the motion "
        f"module: {_named(BetaScheduleChoice)}",
    )


def add_guides(guides: Group) -> None:
    """ControlNets, IP-Adapters, and what of the source stays."""
    guides.add_argument(
        "--control",
        action="append",
        default=[],
        metavar=CONTROL.form,
        help="ControlNet that holds the structure, strength 1 unless given, acting between two "
        "shares of the schedule; repeat for several",
    )
    guides.add_argument(
        "--control-source",
        action="append",
        default=[],
        metavar="VIDEO|canny|luminance|tile",
        help="what the ControlNet sees: canny unless given, a preprocessor's name, or a video, a "
        "folder or a picture of control frames; one for all, or one for each --control in order",
    )
    guides.add_argument(
        "--control-mask",
        action="append",
        default=[],
        metavar="VIDEO|PICTURE",
        help="where the ControlNet acts: white wholly, black not at all; one for all, or one for "
        "each --control in order",
    )
    guides.add_argument(
        "--repeat-last-control",
        action="store_true",
        help="let the last control frame serve for those that are missing at the end",
    )
    guides.add_argument(
        "--canny-low",
        type=float,
        help="canny: where an edge goes on, 0 to 2040, 100 unless given",
    )
    guides.add_argument(
        "--canny-high",
        type=float,
        help="canny: where an edge begins, 0 to 2040, 200 unless given",
    )
    guides.add_argument(
        "--tile-factor",
        type=int,
        help="tile: how many times smaller, 1 to 64, 8 unless given",
    )
    guides.add_argument(
        "--ip-adapter",
        action="append",
        default=[],
        metavar=IP_ADAPTER.form,
        help="IP-Adapter: the video takes on the style of --style-image, weight 0.8 unless given, "
        "acting between two shares of the schedule; repeat for several. It cannot be combined with "
        "--max-memory",
    )
    guides.add_argument(
        "--clip-vision",
        metavar="FILE",
        help="CLIP vision model of --ip-adapter, usually CLIP-ViT-H-14-laion2B-s32B-b79K",
    )
    guides.add_argument(
        "--style-image",
        action="append",
        default=[],
        metavar="PICTURE",
        help="picture for --ip-adapter, its middle square; repeat for several",
    )
    guides.add_argument(
        "--style-arrangement",
        help=f"what several pictures do: {_named(Arrangement)}; average unless given",
    )
    guides.add_argument(
        "--style-weights",
        metavar="TEXT",
        help='factors of the weight along the video: "0: 1; 24: 0" fades the style out',
    )
    guides.add_argument(
        "--source-mask",
        metavar="VIDEO|PICTURE",
        help="what is restyled: white wholly, black stays the source",
    )
    guides.add_argument(
        "--source-blend",
        type=float,
        default=0.0,
        help="share of the source that each step's result is given back, 0 to 1",
    )
    guides.add_argument(
        "--source-blend-end",
        type=float,
        help="share of the noise schedule up to which --source-blend acts, 0.5 unless given",
    )
    guides.add_argument(
        "--source-prompt",
        help="what the source shows, for --noise-type unsample; the prompt unless given, and an "
        "empty one lets the video change most",
    )


def add_frames(frames: Group) -> None:
    """Which frames of the input are kept, and how large."""
    frames.add_argument(
        "--select-every-nth-frame", type=int, default=2, help="keep every nth frame"
    )
    frames.add_argument(
        "--skip-first-frames",
        type=int,
        default=0,
        help="frames to leave out at the beginning, counted after --force-rate",
    )
    frames.add_argument(
        "--frame-load-cap", type=int, default=0, help="the most frames to keep, 0 for all"
    )
    frames.add_argument(
        "--force-rate",
        default="0",
        metavar="FPS",
        help="frames per second to put the video on before frames are counted, for example 8, "
        "29.97 or 30000/1001; 0 keeps its own",
    )
    frames.add_argument(
        "--start-time",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="leave out the beginning",
    )
    frames.add_argument(
        "--duration", type=float, default=0.0, metavar="SECONDS", help="0 reaches to the end"
    )
    frames.add_argument(
        "--width",
        type=int,
        default=0,
        help="pixels, rounded to a multiple of 8; 0 follows --height in the source's aspect, and "
        "where both are 0 the source's size is kept, its longer side scaled down to 768 at most",
    )
    frames.add_argument(
        "--height",
        type=int,
        default=0,
        help="pixels, rounded to a multiple of 8; 0 follows --width, as --width follows it",
    )
    frames.add_argument(
        "--fit",
        default="crop",
        help=f"where the shape changes: {_named(Fit)}; crop cuts the middle out, pad adds black "
        "bars, stretch distorts",
    )


def add_windows(windows: Group) -> None:
    """How a long video is cut into windows."""
    windows.add_argument(
        "--context-length", type=int, default=16, help="frames that the UNet sees at once"
    )
    windows.add_argument(
        "--context-overlap", type=int, default=4, help="frames that neighbouring windows share"
    )
    windows.add_argument(
        "--context-stride",
        type=int,
        default=1,
        help="uniform schedules: above 1 windows also take every 2nd, 4th, ... frame",
    )
    windows.add_argument(
        "--context-schedule", default="standard_static", help=_named(ContextSchedule)
    )
    windows.add_argument(
        "--context-fuse", default="pyramid", help=f"where windows overlap: {_named(FuseMethod)}"
    )
    windows.add_argument(
        "--closed-loop",
        action="store_true",
        help="looped_uniform: the last frame leads back to the first",
    )


def add_output(output: Group) -> None:
    """How the result is written."""
    output.add_argument(
        "--format", help=f"{', '.join(FORMATS)}; chosen by the suffix of OUTPUT unless given"
    )
    output.add_argument(
        "--crf",
        type=int,
        help="quality: 0 is best and largest; the format's usual value unless given",
    )
    output.add_argument("--no-audio", action="store_true", help="leave the sound out")
    output.add_argument(
        "--pingpong", action="store_true", help="play the frames forwards and then backwards"
    )
    output.add_argument(
        "--loop-count",
        type=int,
        default=0,
        help="how often the video is repeated; gif and webp repeat for ever at 0",
    )
    output.add_argument(
        "--hardware-encoder",
        action="store_true",
        help="encode on the graphics card where it can; faster, and larger for the same quality",
    )


def add_speed(speed: Group) -> None:
    """What changes the result for speed or memory."""
    speed.add_argument(
        "--deep-cache",
        type=int,
        default=1,
        metavar="N",
        help="run the UNet's deep layers in every Nth call only; 2 or 3 suit 20 steps and more",
    )
    speed.add_argument(
        "--guidance-interval",
        default="0:1",
        metavar="START:END",
        help="shares of the noise schedule between which guidance acts; outside a step takes half "
        "the time",
    )
    speed.add_argument(
        "--fp8-weights",
        action="store_true",
        help="store the UNet's weights in 8 bits: half the memory of float16",
    )
    speed.add_argument(
        "--compile",
        action="store_true",
        help="compile the UNet's layers, which takes minutes and is kept on disk; the result stays "
        "equal to rounding. For GPUs of AMD and Intel, where it was not measured; slower on "
        "NVIDIA's with Triton and on a CPU. It cannot be combined with --max-memory",
    )
