"""The options of `animatediff-v2v run` that guide the picture besides the prompts."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from ..pipeline.request import RefineUpscale
from ..pipeline.sampling import Arrangement
from .arguments import CONTROL, IP_ADAPTER, SPARSECTRL

Group = argparse._ArgumentGroup


def _named(choices: Any) -> str:
    return ", ".join(get_args(choices))


def add_controls(guides: Group) -> None:
    """Add the options for ControlNets."""
    guides.add_argument(
        "--control",
        action="append",
        default=[],
        metavar=CONTROL.form,
        help="ControlNet that preserves structure; STRENGTH defaults to 1; START and END are "
        "fractions of the noise schedule; repeat for several",
    )
    guides.add_argument(
        "--control-source",
        action="append",
        default=[],
        metavar="VIDEO|canny|luminance|tile",
        help="input of the ControlNet: a preprocessor, canny by default, or a video, folder or "
        "picture of control frames; one for all, or one for each --control in order",
    )
    guides.add_argument(
        "--control-mask",
        action="append",
        default=[],
        metavar="VIDEO|PICTURE",
        help="where the ControlNet acts: white fully, black not at all; one for all, or one for "
        "each --control in order",
    )
    guides.add_argument(
        "--repeat-last-control",
        action="store_true",
        help="repeat the last control frame if there are too few",
    )
    guides.add_argument(
        "--canny-low",
        type=float,
        help="canny: low threshold, 0 to 2040, default 100",
    )
    guides.add_argument(
        "--canny-high",
        type=float,
        help="canny: high threshold, 0 to 2040, default 200",
    )
    guides.add_argument(
        "--tile-factor",
        type=int,
        help="tile: downscaling factor, 1 to 64, default 8",
    )


def add_keyframes(guides: Group) -> None:
    """Add the options for keyframes."""
    guides.add_argument(
        "--keyframe",
        action="append",
        default=[],
        metavar="FRAME:PICTURE",
        help="picture that the output shows at this frame, and that guides the frames around it; "
        "frames count from 0 without those that --restore-frames adds, and --keyframe=-1:PICTURE "
        "is the last one; repeat for several. It needs a v3 motion module",
    )
    guides.add_argument(
        "--sparsectrl",
        metavar=SPARSECTRL.form,
        help="SparseCtrl model of --keyframe: v3_sd15_sparsectrl_rgb for pictures, "
        "v3_sd15_sparsectrl_scribble for drawings; STRENGTH defaults to 1; START and END are "
        "fractions of the noise schedule",
    )
    guides.add_argument(
        "--keyframe-mask",
        metavar="VIDEO|PICTURE",
        help="where keyframes act: white fully, black not at all",
    )


def add_styles(guides: Group) -> None:
    """Add the options for IP-Adapters."""
    guides.add_argument(
        "--ip-adapter",
        action="append",
        default=[],
        metavar=IP_ADAPTER.form,
        help="IP-Adapter that applies the style of --style-image; WEIGHT defaults to 0.8; START "
        "and END are fractions of the noise schedule; repeat for several. It cannot be combined "
        "with --max-memory",
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
        help="picture for --ip-adapter, cropped to its central square; repeat for several",
    )
    guides.add_argument(
        "--style-arrangement",
        help=f"use of several pictures: {_named(Arrangement)}; default average",
    )
    guides.add_argument(
        "--style-weights",
        metavar="TEXT",
        help='factors of the weight at keyframes: "0: 1; 24: 0" fades the style out',
    )


def add_refining(output: Group) -> None:
    """Add the options of the second pass."""
    output.add_argument(
        "--refine",
        type=float,
        default=1.0,
        metavar="TIMES",
        help="enlarge the frames so many times, 1.25 to 2, and denoise them again at that size, in "
        "tiles if --max-memory or the card is too small for whole frames; 1 leaves this out",
    )
    output.add_argument(
        "--refine-denoise",
        type=float,
        help="how much --refine changes, from 0 to 1, default 0.35; 0.2 to 0.5 is usual",
    )
    output.add_argument(
        "--refine-upscale",
        help=f"what --refine enlarges: {_named(RefineUpscale)}; default image; latent saves "
        "decoding and encoding the frames, and needs a --refine-denoise of about 0.5 to be sharp",
    )


def add_source(guides: Group) -> None:
    """Add the options that preserve the source."""
    guides.add_argument(
        "--source-mask",
        metavar="VIDEO|PICTURE",
        help="where the video is restyled: white fully, black keeps the source",
    )
    guides.add_argument(
        "--source-blend",
        type=float,
        default=0.0,
        help="fraction of the source that is blended into each step's result, 0 to 1",
    )
    guides.add_argument(
        "--source-blend-end",
        type=float,
        help="fraction of the noise schedule up to which --source-blend acts, default 0.5",
    )
    guides.add_argument(
        "--source-prompt",
        help="what the source shows, for --noise-type unsample; by default the prompt; an empty "
        "text lets the video change most",
    )
    guides.add_argument(
        "--match-source",
        type=float,
        default=0.0,
        metavar="STRENGTH",
        help="hold brightness and colour of each frame to those of the source: 0 not at all, 1 "
        "fully. It corrects darkening by LCM and tints by a VAE; with --source-mask, where that is "
        "white",
    )
