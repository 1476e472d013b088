"""Writing to the terminal, or to what stands in its place: it may take nothing, or few letters."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from ..pipeline.progress import Progress

PROGRAM = "animatediff-v2v"
_LINES = 10  # that a log gets, besides one for each phase


def complain(sentence: str) -> None:
    """Write a sentence to stderr, where anybody can read it."""
    _write(sys.stderr, f"{PROGRAM}: {sentence}")


def say(text: str) -> None:
    """Write a result to stdout. What it holds is done: where stdout fails, stderr is told."""
    error = _write(sys.stdout, text)
    if error is not None:
        complain(f"the result could not be written to stdout ({error}); it is: {text}")


def _write(stream: TextIO | None, text: str) -> OSError | ValueError | None:
    """Write a line, letters that the stream does not know escaped; return what went wrong."""
    if stream is None:
        return ValueError("there is none")
    encoding = stream.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except (OSError, ValueError) as error:  # full, closed, or a pipe that nobody reads
        _silence(stream)
        return error
    return None


def _silence(stream: TextIO) -> None:
    """Lead a broken stream nowhere: at the end Python would try again, and complain."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def progress_display() -> ProgressBar | ProgressLines:
    """Give what suits stderr: a bar in a terminal, lines in a file, a pipe or a plain terminal."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return ProgressBar() if is_terminal and os.environ.get("TERM") != "dumb" else ProgressLines()


class ProgressBar:
    """A bar on stderr with the time that is left. A context manager."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bar: Any = None

    def __enter__(self) -> ProgressBar:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the bar's line."""
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.close()

    def begin(self, message: str) -> None:
        """Say what goes on before the job can tell how far it is."""
        self._show(message, 0.0)

    def show(self, progress: Progress) -> None:
        """Move the bar to where the job stands."""
        if not progress.is_warning:  # the log shows it
            self._show(progress.message, progress.fraction)

    def _show(self, message: str, fraction: float) -> None:
        with suppress(OSError, ValueError):  # a terminal that was closed
            if self._bar is None:
                self._bar = _bar()
            self._bar.set_description_str(message, refresh=False)
            self._bar.update(fraction * 100.0 - self._bar.n)


def _bar() -> Any:
    from tqdm import tqdm  # noqa: PLC0415 - refusals need no bar

    return tqdm(
        total=100.0,
        unit="%",
        file=sys.stderr,
        # Drawn at each call, what stands still too, compiling for instance.
        mininterval=0.0,
        miniters=0,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left",
    )


class ProgressLines:
    """A line on stderr for each phase and for each tenth of the job. A context manager."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._started = time.monotonic()
        self._phase, self._part = "", 0

    def __enter__(self) -> ProgressLines:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave what was written."""

    def begin(self, message: str) -> None:
        """Say what goes on before the job can tell how far it is."""
        _write(sys.stderr, f"{PROGRAM}: {message}")

    def show(self, progress: Progress) -> None:
        """Write a line where the job has come on since the last one."""
        if progress.is_warning:  # the log shows it
            return
        part = int(progress.fraction * _LINES + 1e-6)  # a third of 0.3 is a little less than 0.1
        if (progress.phase, part) == (self._phase, self._part):
            return
        self._phase, self._part = progress.phase, part
        seconds = time.monotonic() - self._started
        _write(
            sys.stderr,
            f"{PROGRAM}: {progress.fraction:4.0%} {progress.message} ({seconds:.0f} s elapsed)",
        )
