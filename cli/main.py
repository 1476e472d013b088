"""The command `animatediff-v2v`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from ..pipeline.errors import AnimateDiffV2VError
from ..version import package_version
from . import batch, bench, convert, gallery, inspect, install, keys, run, serve, work
from .console import PROGRAM, complain, say
from .parsing import EXIT_INTERRUPTED, EXIT_WRONG_INPUT, Parser, reworded
from .signals import INTERRUPTED, ending_signals

_LINE = f"{PROGRAM}: %(message)s"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0 when done; 2 for wrong input, with one sentence on stderr; 130 when interrupted by Ctrl-C, by
    SIGTERM or by a closed terminal; 1 when `inspect` finds a file that cannot be used.
    """
    to_stderr = logging.StreamHandler(sys.stderr)
    logging.basicConfig(level=logging.WARNING, format=_LINE, handlers=[to_stderr])
    worded: Callable[[str], str] = str
    with ending_signals():
        try:
            parsed = _parser().parse_args(arguments)
            worded = parsed.worded
            to_stderr.setFormatter(WordedLines(worded))
            return int(parsed.command(parsed))
        except AnimateDiffV2VError as error:
            complain(worded(str(error)))
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
    for part in (run, batch, work, gallery, inspect, bench, convert, install, serve, keys):
        part.add_command(commands)
    # Only these have options for the library's fields, so only theirs are reworded.
    parser.set_defaults(worded=str)
    commands.choices["batch"].set_defaults(worded=batch.reworded)
    commands.choices["gallery"].set_defaults(worded=gallery.reworded)
    for name in ("run", "bench", "work"):
        commands.choices[name].set_defaults(worded=reworded)
    return parser


class WordedLines(logging.Formatter):
    """Rewords warnings of the library as the command rewords its errors."""

    def __init__(self, worded: Callable[[str], str]) -> None:
        """Reword messages by the function `worded`."""
        super().__init__(_LINE)
        self._worded = worded

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line; only the message is reworded, not what stands before it."""
        record.message = self._worded(record.message)
        return super().formatMessage(record)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        say(f"{PROGRAM} {package_version()}")
        parser.exit()
