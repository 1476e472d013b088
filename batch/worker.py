"""A worker process of the engine for this machine; `local.py` is the other side."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

from ..pipeline.errors import AnimateDiffV2VError
from .outcome import outcome_of
from .run import Result
from .unit import Unit

# When the engine has ended, a unit has this long to reach its next step, where it stops.
SECONDS_FOR_LAST_STEP = 3.0
# A share that is shown changes by at least this much.
_STEP = 0.01

# "failed" is for this unit, "fatal" for all: the disk is full, or the plan is outdated.
MessageKind = Literal["ready", "begun", "progress", "done", "failed", "fatal", "stopped", "log"]


@dataclass(frozen=True)
class Message:
    """A message of a worker to the engine."""

    kind: MessageKind
    unit: str = ""
    text: str = ""
    fraction: float = 0.0
    result: Result | None = None


def work(connection: Connection, device: str) -> None:
    """Render the units that come through a connection, until it is closed.

    The other side sends Units, which may come before the one at hand is done, and None to stop.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C reaches all processes of a terminal; the engine then stops its workers.
        signal.signal(number, signal.SIG_IGN)
    _Worker(connection, device).run()
    os._exit(0)  # PyTorch takes seconds to end


class _Worker:
    def __init__(self, connection: Connection, device: str) -> None:
        # They take seconds, so they are loaded once Ctrl-C is ignored.
        from .render import Renderer  # noqa: PLC0415

        self._connection, self._lock = connection, threading.Lock()
        self._device = device
        self._renderer = Renderer(device)
        self._units: queue.Queue[Unit | None] = queue.Queue()
        self._is_stopped, self._has_ended = threading.Event(), threading.Event()
        self._shown = 0.0
        logging.basicConfig(level=logging.WARNING, handlers=[_Log(self)], force=True)
        threading.Thread(target=self._receive, name="inbox", daemon=True).start()

    def run(self) -> None:
        from ..pipeline.memory.devices import accelerators, resolve_device  # noqa: PLC0415 - as above

        try:
            resolve_device(self._device)
        except AnimateDiffV2VError as error:
            self._say("fatal", text=str(error))
            return
        self._say("ready", text=",".join(accelerators()))
        try:
            while (unit := self._units.get()) is not None:
                self._render(unit)
                if self._is_stopped.is_set():
                    break
        except OSError:
            return  # the engine has ended
        finally:
            self._has_ended.set()

    def _receive(self) -> None:
        with suppress(EOFError, OSError):  # the engine has ended
            while (unit := self._connection.recv()) is not None:
                self._renderer.prepare(unit)
                self._units.put(unit)
        self._is_stopped.set()
        self._units.put(None)
        if not self._has_ended.wait(SECONDS_FOR_LAST_STEP):
            os._exit(1)  # the next run removes the unfinished file

    def _render(self, unit: Unit) -> None:
        self._shown = 0.0
        self._say("begun", unit=unit.name)
        outcome = outcome_of(
            unit.name,
            lambda: self._renderer.render(
                unit,
                progress=lambda fraction, message: self._progress(unit.name, fraction, message),
                is_cancelled=self._is_stopped.is_set,
            ),
        )
        self._say(outcome.kind, unit=unit.name, text=outcome.sentence, result=outcome.result)

    def _progress(self, name: str, fraction: float, message: str) -> None:
        if fraction - self._shown >= _STEP:
            self._shown = fraction
            self._say("progress", unit=name, fraction=fraction, text=message)

    def _say(self, kind: MessageKind, **values: Any) -> None:
        with self._lock:
            self._connection.send(Message(kind, **values))


class _Log(logging.Handler):
    """Sends log records to the engine."""

    def __init__(self, worker: _Worker) -> None:
        super().__init__()
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        self._worker._say("log", text=self.format(record))
