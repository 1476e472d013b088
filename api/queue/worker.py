"""A worker process: `python -m animatediff_v2v.api.queue.worker`, which the server starts.

Both sides write JSON, one object a line. The server writes `{"run": ApiJob.as_json(), "output":
PATH}` and, while that job runs, `{"stop": true}`. The worker writes `{"event": NAME, ...}`: first
`ready` or `refused`; for a job any number of `progress` events, then one of `made`, `cancelled`,
`refused` or `failed`; `log` at any time. When the server ends, however it ends, so does the worker.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .executor import ApiJob, WorkerOptions

if TYPE_CHECKING:  # takes seconds, for PyTorch
    from .rendering import Renderer

# The job of a server that has ended is stopped at its next step, but not waited for any longer.
SECONDS_FOR_LAST_STEP = 3.0
LONGEST_TRACEBACK = 20_000


class Pipes:
    """The way to the server and back."""

    def __init__(self) -> None:
        """Take standard input and output away from everybody else in this process.

        A library that prints would break the protocol, and a process of its own could read.
        """
        self._reading = os.fdopen(os.dup(0), "r", encoding="utf-8", newline="\n")
        self._writing = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
        self._lock = threading.Lock()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    def tell(self, event: str, **values: Any) -> None:
        """Write one event; raises OSError when the server has ended."""
        with self._lock:
            self._writing.write(json.dumps({"event": event, **values}) + "\n")
            self._writing.flush()

    def hear(self) -> Any:
        """Wait for a message; None when the server has ended."""
        line = self._reading.readline()
        return json.loads(line) if line.endswith("\n") else None


@dataclass
class _Order:
    """A job to run, or None to end."""

    job: ApiJob | None
    output: Path = Path()
    stop: threading.Event = field(default_factory=threading.Event)


class _Inbox:
    """Hears the server while the main thread works."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes
        self.orders: queue.Queue[_Order] = queue.Queue()
        self._has_ended = threading.Event()
        threading.Thread(target=self._hear, name="inbox", daemon=True).start()

    def _hear(self) -> None:
        order = _Order(None)
        while (message := self._pipes.hear()) is not None:
            if "stop" in message:
                order.stop.set()
            else:
                order = _Order(ApiJob.from_json(message["run"]), Path(message["output"]))
                self.orders.put(order)
        order.stop.set()
        self.orders.put(_Order(None))
        if not self._has_ended.wait(SECONDS_FOR_LAST_STEP):
            os._exit(1)  # the next server removes what it has begun to write

    def end(self) -> None:
        """Let the process end by itself."""
        self._has_ended.set()


class _LogHandler(logging.Handler):
    """Hands records to the server, which has a format of its own for them."""

    def __init__(self, pipes: Pipes) -> None:
        super().__init__()
        self._pipes = pipes

    def emit(self, record: logging.LogRecord) -> None:
        self._pipes.tell("log", level=record.levelno, message=self.format(record))


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until the server ends; returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C and service managers signal both; the server then ends its workers tidily.
        signal.signal(number, signal.SIG_IGN)
    options = _parsed(arguments)
    pipes = Pipes()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_LogHandler(pipes)])
    logging.captureWarnings(True)  # else Python writes them on stderr, beside the server's log
    inbox = _Inbox(pipes)
    try:
        return _work(options, pipes, inbox)
    except OSError:
        return 1  # the server has ended, and what it would be told is lost
    finally:
        inbox.end()


def _parsed(arguments: Sequence[str] | None) -> WorkerOptions:
    parser = argparse.ArgumentParser(prog="animatediff-v2v worker")
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--max-memory", type=float)
    parsed = parser.parse_args(arguments)
    return WorkerOptions(
        models=parsed.models,
        device=parsed.device,
        dtype=parsed.dtype,
        max_memory_gb=parsed.max_memory,
    )


def _work(options: WorkerOptions, pipes: Pipes, inbox: _Inbox) -> int:
    from ...pipeline.errors import AnimateDiffV2VError  # noqa: PLC0415 - see Renderer
    from .rendering import Renderer  # noqa: PLC0415 - once Ctrl-C is ignored

    try:
        renderer = Renderer(options)
    except AnimateDiffV2VError as error:
        pipes.tell("refused", sentence=str(error))
        return 2
    pipes.tell("ready")
    while True:
        order = inbox.orders.get()
        if order.job is None:
            return 0
        event, values = _outcome(order, renderer, pipes)
        pipes.tell(event, **values)
        if event == "failed":
            return 1  # whatever it was may have damaged more; the server starts another worker


def _outcome(order: _Order, renderer: Renderer, pipes: Pipes) -> tuple[str, dict[str, Any]]:
    """Run a job and word what became of it."""
    from ...pipeline.errors import AnimateDiffV2VError, Cancelled  # noqa: PLC0415 - see Renderer

    assert order.job is not None
    try:
        timings = renderer.render(
            order.job,
            order.output,
            on_message=lambda message: pipes.tell("progress", message=message),
            is_cancelled=order.stop.is_set,
        )
    except Cancelled:
        return "cancelled", {}
    except AnimateDiffV2VError as error:
        return "refused", {"sentence": str(error)}
    except Exception as error:
        told = {"traceback": traceback.format_exc()[-LONGEST_TRACEBACK:]}
        return "failed", told | {"errno": getattr(error, "errno", None)}
    return "made", {"timings": timings}


if __name__ == "__main__":
    sys.exit(main())
