"""A worker process, `python -m animatediff_v2v.api.queue.worker`, started by the server.

Both sides write JSON objects, one per line. The server writes `{"run": ApiJob.as_json(), "output":
PATH}` and, to stop that job, `{"stop": true}`. The worker writes `{"event": NAME, ...}`: first
`ready` or `refused`; for a job any number of `progress` events, then one of `made`, `cancelled`,
`refused` or `failed`; `log` at any time. The worker ends when the server does, even if killed.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .executor import ApiJob, WorkerOptions

if TYPE_CHECKING:  # takes seconds, as it loads PyTorch
    from .rendering import Renderer

# When the server has ended, a job has this long to reach its next step, where it stops.
SECONDS_FOR_LAST_STEP = 3.0
LONGEST_TRACEBACK = 20_000


class Pipes:
    """The pipes to the server and back."""

    def __init__(self) -> None:
        """Take over standard input and output, so that nothing else in this process can use them.

        A library that prints would break the protocol, and a child process could read from it.
        """
        self._reading = os.fdopen(os.dup(0), "r", encoding="utf-8", newline="\n")
        self._writing = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
        self._lock = threading.Lock()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)

    def send(self, event: str, **values: Any) -> None:
        """Write one event; raises OSError when the server has ended."""
        with self._lock:
            self._writing.write(json.dumps({"event": event, **values}) + "\n")
            self._writing.flush()

    def receive(self) -> Any:
        """Wait for a message and return it; None when the server has ended."""
        line = self._reading.readline()
        return json.loads(line) if line.endswith("\n") else None


@dataclass
class Order:
    """A job to run, or None to end."""

    job: ApiJob | None
    output: Path = Path()
    stop: threading.Event = field(default_factory=threading.Event)


class _Inbox:
    """Receives messages of the server in a thread, while the main thread works."""

    def __init__(self, pipes: Pipes) -> None:
        self._pipes = pipes
        self.orders: queue.Queue[Order] = queue.Queue()
        self._has_ended = threading.Event()
        threading.Thread(target=self._receive, name="inbox", daemon=True).start()

    def _receive(self) -> None:
        order = Order(None)
        while (message := self._pipes.receive()) is not None:
            if "stop" in message:
                order.stop.set()
            else:
                order = Order(ApiJob.from_json(message["run"]), Path(message["output"]))
                self.orders.put(order)
        order.stop.set()
        self.orders.put(Order(None))
        if not self._has_ended.wait(SECONDS_FOR_LAST_STEP):
            os._exit(1)  # the next server removes the unfinished file

    def end(self) -> None:
        """Let the process end normally."""
        self._has_ended.set()


class _LogHandler(logging.Handler):
    """Sends log records to the server, which formats them."""

    def __init__(self, pipes: Pipes) -> None:
        super().__init__()
        self._pipes = pipes

    def emit(self, record: logging.LogRecord) -> None:
        self._pipes.send("log", level=record.levelno, message=self.format(record))


def main(arguments: Sequence[str] | None = None) -> int:
    """Work until the server ends; returns the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C and service managers signal both processes; the server then stops its workers.
        signal.signal(number, signal.SIG_IGN)
    options = _parsed(arguments)
    pipes = Pipes()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_LogHandler(pipes)])
    logging.captureWarnings(True)  # otherwise they go to stderr, bypassing the server's log
    inbox = _Inbox(pipes)
    try:
        return _work(options, pipes, inbox)
    except OSError:
        return 1  # the server has ended
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
        pipes.send("refused", sentence=str(error))
        return 2
    pipes.send("ready")
    while True:
        order = inbox.orders.get()
        if order.job is None:
            return 0
        event, values = outcome(order, renderer, pipes.send)
        pipes.send(event, **values)
        if event == "failed":
            return 1  # an unknown error may have damaged more; the server starts another worker


def outcome(
    order: Order, renderer: Renderer, send: Callable[..., None]
) -> tuple[str, dict[str, Any]]:
    """Run a job and return the event that reports its outcome.

    Args:
        order: The job.
        renderer: Runs it.
        send: Called with the name and the values of each event before that, as in `Pipes.send`.
    """
    from ...pipeline.errors import AnimateDiffV2VError, Cancelled  # noqa: PLC0415 - see Renderer

    assert order.job is not None
    try:
        timings = renderer.render(
            order.job,
            order.output,
            on_message=lambda message: send("progress", message=message),
            is_cancelled=order.stop.is_set,
        )
    except Cancelled:
        return "cancelled", {}
    except AnimateDiffV2VError as error:
        return "refused", {"sentence": str(error)}
    except Exception as error:
        values = {"traceback": traceback.format_exc()[-LONGEST_TRACEBACK:]}
        return "failed", values | {"errno": getattr(error, "errno", None)}
    return "made", {"timings": timings}


if __name__ == "__main__":
    sys.exit(main())
