"""`animatediff-v2v bench`: the speed of this machine, and what a job will take."""

from __future__ import annotations

import argparse
import json
from typing import Any, get_args

from ..pipeline.choices import checked
from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.request import Dtype
from .console import complain, say
from .parsing import Help
from .signals import leaving_at_once

# Beyond a context window, a video takes as long as its windows together.
MOST_FRAMES = 32
MOST_PIXELS = 2048


def add_command(commands: Any) -> None:
    """Add this subcommand to argparse's subparsers."""
    bench = commands.add_parser(
        "bench",
        help="measure this machine, and predict how long jobs will take",
        formatter_class=Help,
        description="Measure matrix products, copies and slices of the networks with random "
        "weights, in about a minute and without model files. Print how long usual jobs will take, "
        "what slows this machine down, and the one setting that helps most.",
    )
    bench.set_defaults(command=_bench)
    bench.add_argument("--device", default="auto", help="auto, cuda, cuda:1, mps, cpu")
    bench.add_argument("--dtype", default="auto", help=", ".join(get_args(Dtype)))
    bench.add_argument("--width", type=int, default=512, help="pixels, a multiple of 8")
    bench.add_argument("--height", type=int, default=512, help="pixels, a multiple of 8")
    bench.add_argument(
        "--frames", type=int, default=16, help=f"frames of a context window, 1 to {MOST_FRAMES}"
    )
    bench.add_argument("--json", action="store_true", help="print a JSON object")


def _bench(parsed: argparse.Namespace) -> int:
    checked("--dtype", parsed.dtype, Dtype)
    for option, side in (("--width", parsed.width), ("--height", parsed.height)):
        if side % 8 or not 64 <= side <= MOST_PIXELS:
            raise AnimateDiffV2VError(
                f"{option} is {side}; it must be a multiple of 8 from 64 to {MOST_PIXELS}."
            )
    if not 1 <= parsed.frames <= MOST_FRAMES:
        raise AnimateDiffV2VError(
            f"--frames is {parsed.frames}; it must be from 1 to {MOST_FRAMES}: longer videos take "
            "as long as their windows together."
        )
    complain("loading PyTorch")
    with leaving_at_once():
        from ..pipeline.bench.report import bench, described  # noqa: PLC0415 - takes seconds
        from ..pipeline.memory.devices import resolve_device, resolve_dtype  # noqa: PLC0415
    device = resolve_device(parsed.device)
    result = bench(
        device,
        resolve_dtype(parsed.dtype, device),
        width=parsed.width,
        height=parsed.height,
        frames=parsed.frames,
        report=lambda message: complain(f"measuring {message}"),
    )
    say(json.dumps(result.as_json(), indent=1) if parsed.json else "\n".join(described(result)))
    return 0
