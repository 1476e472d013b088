"""The command `animatediff-v2v`: what was typed, done, with its exit code."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..pipeline.errors import AnimateDiffV2VError
from . import inspect, install, run, serve
from .console import PROGRAM, complain, say
from .parsing import EXIT_INTERRUPTED, EXIT_WRONG_INPUT, Parser, reworded
from .signals import INTERRUPTED, ending_signals

_PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code.

    0 when done, 2 for wrong input with one sentence on stderr, 130 when interrupted by Ctrl-C, by
    SIGTERM or by a terminal that was closed; 1 when a file that was inspected cannot be used.
    """
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(_InOptions())
    logging.basicConfig(level=logging.WARNING, handlers=[to_stderr])
    with ending_signals():
        try:
            parsed = _parser().parse_args(arguments)
            return int(parsed.command(parsed))
        except AnimateDiffV2VError as error:
            complain(reworded(str(error)))
            return EXIT_WRONG_INPUT
        except KeyboardInterrupt:
            complain(INTERRUPTED)
            return EXIT_INTERRUPTED


def _parser() -> Parser:
    parser = Parser(prog=PROGRAM, description="AnimateDiff video-to-video.")
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="show the version of this program and exit"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for part in (run, inspect, install, serve):
        part.add_command(commands)
    return parser


class _InOptions(logging.Formatter):
    """Names the command's options in warnings of the library."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message alone."""
        return reworded(super().format(record))


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        say(f"{PROGRAM} {_version()}")
        parser.exit()


def _version() -> str:
    """Read the version from the repository, or where there is none, of the installed package."""
    if _PROJECT.is_file():
        found = re.search(r'^version = "(.+)"', _PROJECT.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    try:
        return version(PROGRAM)
    except PackageNotFoundError:
        return "of unknown version"


if __name__ == "__main__":
    sys.exit(main())
