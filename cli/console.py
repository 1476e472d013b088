"""Output to stdout and stderr, which may be closed, full, or limited to a few characters."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from ..pipeline.progress import Progress

PROGRAM = "animatediff-v2v"
_LINES = 10  # progress lines of a job, in addition to one for each phase


def complain(sentence: str) -> None:
    """Write a sentence to stderr."""
    _write(sys.stderr, f"{PROGRAM}: {sentence}")


def say(text: str) -> None:
    """Write a result to stdout, or to stderr if stdout fails."""
    error = _write(sys.stdout, text)
    if error is not None:
        complain(f"the result could not be written to stdout ({error}); it is: {text}")


def _write(stream: TextIO | None, text: str) -> OSError | ValueError | None:
    """Write a line, escaping characters that the stream cannot encode; return the error."""
    if stream is None:
        return ValueError("it is closed")
    encoding = stream.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
    except (OSError, ValueError) as error:  # full, closed, or a pipe that nobody reads
        _silence(stream)
        return error
    return None


def _silence(stream: TextIO) -> None:
    """Redirect a broken stream to the null device: Python would fail to flush it at exit."""
    with suppress(OSError, ValueError):
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, stream.fileno())
        os.close(null_device)


def progress_display() -> ProgressBar | ProgressLines:
    """Return a progress bar if stderr is a terminal, else progress lines."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return ProgressBar() if is_terminal and os.environ.get("TERM") != "dumb" else ProgressLines()


class ProgressBar:
    """A progress bar on stderr with the remaining time. A context manager."""

    def __init__(self) -> None:
        """Prepare; nothing is shown yet."""
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
        """Show a message before the job reports progress."""
        self._show(message, 0.0)

    def show(self, progress: Progress) -> None:
        """Move the bar to the job's progress."""
        if not progress.is_warning:  # the log shows it
            self._show(progress.message, progress.fraction)

    def _show(self, message: str, fraction: float) -> None:
        with suppress(OSError, ValueError):  # the terminal was closed
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
        # Redrawn at each call, also without progress, as while compiling.
        mininterval=0.0,
        miniters=0,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left",
    )


class ProgressLines:
    """A line on stderr for each phase and for each tenth of the job. A context manager."""

    def __init__(self) -> None:
        """Prepare; nothing is shown yet."""
        self._started = time.monotonic()
        self._phase, self._part = "", 0

    def __enter__(self) -> ProgressLines:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the lines stay."""

    def begin(self, message: str) -> None:
        """Show a message before the job reports progress."""
        _write(sys.stderr, f"{PROGRAM}: {message}")

    def show(self, progress: Progress) -> None:
        """Write a line if the phase or the tenth of the job has changed."""
        if progress.is_warning:  # the log shows it
            return
        # 1e-6 absorbs rounding: 0.3 / 3 is less than 0.1.
        part = int(progress.fraction * _LINES + 1e-6)
        if (progress.phase, part) == (self._phase, self._part):
            return
        self._phase, self._part = progress.phase, part
        seconds = time.monotonic() - self._started
        _write(
            sys.stderr,
            f"{PROGRAM}: {progress.fraction:4.0%} {progress.message} ({seconds:.0f} s elapsed)",
        )
