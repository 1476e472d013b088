"""`animatediff-v2v serve`: the hosted API without ComfyUI."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..pipeline.errors import AnimateDiffV2VError
from .engine_options import add_engine, check_engine
from .parsing import Help
from .signals import leaving_at_once

PACKAGES = ("aiohttp", "pydantic", "yarl")


def add_command(commands: Any) -> None:
    """Add this subcommand to argparse's subparsers."""
    serve = commands.add_parser(
        "serve",
        help="serve the hosted API without ComfyUI",
        formatter_class=Help,
        description="Answer fal's clients from this machine. Settings are read from api.json in "
        "FOLDER; create keys with `python -m animatediff_v2v.cli keys --folder FOLDER add NAME`.",
    )
    serve.set_defaults(command=_serve)
    serve.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="folder for requests, uploads, videos and settings",
    )
    serve.add_argument(
        "--models",
        type=Path,
        required=True,
        default=argparse.SUPPRESS,
        help="folder like ComfyUI's models: checkpoints, animatediff_models, loras, ...",
    )
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    serve.add_argument("--port", type=int, default=8187, help="the port to listen on")
    serve.add_argument(
        "--device",
        action="append",
        help="auto, cuda, cuda:1, mps, cpu; repeat for several worker processes, one for each "
        "device",
    )
    add_engine(
        serve,
        workers="with --engine ray: actors; 0 is as many as fit on the GPUs of the cluster with "
        "--max-memory, else one for each GPU",
        local="worker processes on this machine",
    )
    serve.add_argument("--dtype", default="auto", help="auto, float32, float16, bfloat16")
    serve.add_argument(
        "--max-memory",
        type=float,
        metavar="GB",
        help="limit on the memory of each worker's device, as in `animatediff-v2v run`",
    )
    serve.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="lowest level that is logged",
    )
    serve.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="text, or a JSON object per line",
    )


def _serve(parsed: argparse.Namespace) -> int:
    if not parsed.models.is_dir():
        raise AnimateDiffV2VError(
            f"{parsed.models} is not a folder; --models must be a folder like ComfyUI's models."
        )
    _check_engine(parsed)
    try:
        with leaving_at_once():
            from ..api.serve import serve  # noqa: PLC0415 - the other commands need no server
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise AnimateDiffV2VError(
            f"serve needs the Python package {error.name!r}: run "
            "`python -m pip install -r requirements.txt` in the folder of the repository."
        ) from error
    return serve(parsed)


def _check_engine(parsed: argparse.Namespace) -> None:
    check_engine(parsed)
    if parsed.engine == "local" and parsed.workers:
        raise AnimateDiffV2VError(
            f"--workers is {parsed.workers}, which needs --engine ray: leave it out, and repeat "
            "--device for each worker process of this machine."
        )
    devices = parsed.device or []
    if parsed.engine == "ray" and len(devices) > 1:
        raise AnimateDiffV2VError(
            f"--device is {', '.join(devices)}, and Ray gives each worker its GPU: leave it out, "
            "and give --workers."
        )
