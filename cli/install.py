"""`animatediff-v2v demo`: installs the miniature model into a ComfyUI."""

from __future__ import annotations

import argparse
from typing import Any

from ..demo.install import checked_comfyui, install_models
from .console import say
from .signals import leaving_at_once


def add_command(commands: Any) -> None:
    """Add this subcommand to argparse's subparsers."""
    demo = commands.add_parser(
        "demo",
        help="copy the miniature model into a ComfyUI",
        description="Copy the miniature's model files and its video (miniature_clip.mp4) into a "
        "ComfyUI, so that the templates run without a download.",
    )
    demo.set_defaults(command=_install)
    demo.add_argument(
        "--install-models",
        required=True,
        metavar="COMFYUI_DIR",
        help="the folder that holds ComfyUI's models and input folders",
    )
    demo.add_argument(
        "--native",
        action="store_true",
        help="also write the files for the templates 08 Style Image, 10 Native nodes and "
        "11 Apply AnimateDiff (KSampler): the miniature at the sizes that ComfyUI's own loaders "
        "accept, 2 GB",
    )
    demo.add_argument(
        "--overwrite",
        action="store_true",
        help="replace existing files of the same name that differ; otherwise they are an error",
    )


def _install(parsed: argparse.Namespace) -> int:
    checked_comfyui(parsed.install_models)
    if parsed.native:
        with leaving_at_once():
            from ..demo import widened_files  # noqa: F401, PLC0415 - loads PyTorch, which takes seconds

    written = install_models(
        parsed.install_models, native=parsed.native, overwrite=parsed.overwrite
    )
    for path in written:
        say(str(path))
    return 0
