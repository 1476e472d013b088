"""The display of `animatediff-v2v batch`: a live table, or lines without a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..batch.run import Event
from ..batch.summary import Summary
from .console import complain
from .parsing import reworded


def batch_display(summary: Callable[[float], Summary]) -> BatchTable | BatchLines:
    """Return a table if stderr is a terminal, else lines.

    Args:
        summary: Returns how far the batch is, given when the display began.
    """
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return (BatchTable if is_terminal and os.environ.get("TERM") != "dumb" else BatchLines)(summary)


class BatchLines:
    """A line on stderr when a clip begins, is done, or has failed. A context manager."""

    def __init__(self, summary: Callable[[float], Summary]) -> None:
        """Prepare; nothing is shown yet."""
        self._summary, self._began = summary, time.time()

    def __enter__(self) -> BatchLines:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: the lines stay."""

    def say(self, message: str) -> None:
        """Show what goes on before the first unit."""
        complain(message)

    def show(self, event: Event) -> None:
        """Write a line if the event changes the state of a unit."""
        if event.kind == "worker lost":
            complain(f"{event.sentence} Another one is started.")
        elif event.unit is not None and event.unit.kind != "source":
            name = event.unit.name
            if event.kind == "begun":
                complain(f"joining {name}" if event.unit.kind == "join" else f"restyling {name}")
            elif event.kind == "done":
                complain(f"{name} is done ({self._summary(self._began).sentence()})")
            elif event.kind == "again":
                complain(f"{name} is tried again: {reworded(event.sentence)}")
            elif event.kind == "put aside":
                complain(f"{name} is put aside: {reworded(event.sentence)}")


class BatchTable:
    """Bars on stderr: one for the batch, one for each worker. A context manager."""

    def __init__(self, summary: Callable[[float], Summary]) -> None:
        """Prepare; nothing is shown yet."""
        self._summary, self._began = summary, time.time()
        self._total: Any = None
        self._workers: dict[str, Any] = {}

    def __enter__(self) -> BatchTable:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the workers' lines; the last line of the batch stays."""
        with suppress(OSError, ValueError):
            for bar in reversed(self._workers.values()):
                bar.leave = False
                bar.close()
            if self._total is not None:
                self._total.close()

    def say(self, message: str) -> None:
        """Show what goes on before the first unit."""
        with suppress(OSError, ValueError):  # the terminal was closed
            self._line(message, 0.0)

    def show(self, event: Event) -> None:
        """Move the bars."""
        with suppress(OSError, ValueError):
            if event.kind == "worker lost":
                self._drop(event.worker)
            elif event.unit is not None:
                self._show_worker(event)
            if event.sentence and event.kind in ("again", "put aside", "worker lost"):
                name = f"{event.unit.name}: " if event.unit else ""
                self._total.write(f"{name}{reworded(event.sentence)}", file=sys.stderr)
            summary = self._summary(self._began)
            share = summary.frames_done / summary.frames if summary.frames else 0.0
            self._line(summary.sentence(), share)

    def _line(self, message: str, share: float) -> None:
        if self._total is None:
            self._total = _bar(0, "{desc} {percentage:3.0f}%|{bar:20}| {elapsed} elapsed")
        self._total.set_description_str(message, refresh=False)
        self._total.update(100 * share - self._total.n)

    def _show_worker(self, event: Event) -> None:
        assert event.unit is not None
        bar = self._workers.get(event.worker)
        if bar is None:
            bar = _bar(len(self._workers) + 1, "  {desc} {percentage:3.0f}%|{bar:20}|")
            self._workers[event.worker] = bar
        activity = f": {event.sentence}" if event.kind == "progress" else ""
        bar.set_description_str(f"{event.worker}  {event.unit.name}{activity}", refresh=False)
        bar.update(100 * (1.0 if event.kind == "done" else event.fraction) - bar.n)

    def _drop(self, worker: str) -> None:
        bar = self._workers.pop(worker, None)
        if bar is not None:
            bar.leave = False
            bar.close()


def _bar(position: int, form: str) -> Any:
    from tqdm import tqdm  # noqa: PLC0415 - lines need no bar

    return tqdm(
        total=100.0, position=position, bar_format=form, file=sys.stderr,
        mininterval=0.0, miniters=0, dynamic_ncols=True,
    )  # fmt: skip
