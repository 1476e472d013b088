"""The command `animatediff-v2v` with the commands of the API."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

PACKAGES = ("aiohttp", "pydantic", "yarl")
Handler = Callable[[int, FrameType | None], Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see pipeline.cli.main. SIGTERM ends it as Ctrl-C does."""
    with _handled(signal.SIGINT, _leave):
        from ..pipeline import cli  # noqa: PLC0415 - takes seconds, for PyTorch
    with _handled(signal.SIGTERM, signal.default_int_handler):
        return cli.main(arguments, add_commands=_add_serve)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """End at once: an import that is interrupted may go on, or fail in words of its own."""
    print("animatediff-v2v: interrupted, nothing was written.", file=sys.stderr, flush=True)
    os._exit(130)


@contextmanager
def _handled(number: signal.Signals, handler: Handler) -> Iterator[None]:
    """Handle a signal so that nobody else has taken or silenced."""
    usual = (signal.SIG_DFL, signal.default_int_handler)
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(number) not in usual:
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _add_serve(commands: Any) -> None:
    serve = commands.add_parser(
        "serve",
        help="answer the hosted API without ComfyUI",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description="Answer fal's clients from this machine. Settings are read from api.json in "
        "FOLDER; keys are made with `python -m animatediff_v2v.api.keys --folder FOLDER add NAME`.",
    )
    serve.set_defaults(command=_serve)
    serve.add_argument(
        "folder", type=Path, metavar="FOLDER", help="for requests, uploads, videos, settings"
    )
    serve.add_argument(
        "--models",
        type=Path,
        required=True,
        default=argparse.SUPPRESS,
        help="a folder like ComfyUI's models: checkpoints, animatediff_models, loras, ...",
    )
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    serve.add_argument("--port", type=int, default=8187, help="the port to listen on")
    serve.add_argument(
        "--device",
        action="append",
        help="auto, cuda, cuda:1, mps, cpu; repeat it for several worker processes, each with a "
        "device of its own",
    )
    serve.add_argument("--dtype", default="auto", help="auto, float32, float16, bfloat16")
    serve.add_argument(
        "--max-memory",
        type=float,
        metavar="GB",
        help="the most of each worker's device memory that weights and tensors may take, as in "
        "`animatediff-v2v run`",
    )
    serve.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="the least that is logged",
    )
    serve.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="lines for people, or an object a line",
    )


def _serve(parsed: argparse.Namespace) -> int:
    from ..pipeline import AnimateDiffV2VError  # noqa: PLC0415 - see main

    if not parsed.models.is_dir():
        raise AnimateDiffV2VError(
            f"{parsed.models} is no folder; --models names a folder like ComfyUI's models."
        )
    try:
        from .serve import serve  # noqa: PLC0415 - the other commands need no server
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise AnimateDiffV2VError(
            f"serve needs the Python package {error.name!r}: run "
            "`python -m pip install -r requirements.txt` in the folder of the repository."
        ) from error
    return serve(parsed)


if __name__ == "__main__":
    sys.exit(main())
