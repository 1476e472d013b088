"""A worker in a child process that is replaced when it dies; worker.py is the child's side."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...pipeline.errors import AnimateDiffV2VError, Cancelled
from .executor import ApiJob, WorkerDied, WorkerOptions

logger = logging.getLogger(__name__)

LONGEST_LINE = 2**20
# Longer than SECONDS_FOR_LAST_STEP of worker.py.
SECONDS_TO_END = 5.0
LONGEST_PAUSE_SECONDS = 60.0


class ProcessWorker:
    """A child process that computes on one device, so that a crash does not end the server."""

    def __init__(self, options: WorkerOptions) -> None:
        """Set the options; `start` starts the process."""
        self._options = options
        self._process: Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._runs_job = False
        self.models: tuple[object, ...] | None = None

    @property
    def is_ready(self) -> bool:
        """True while the process runs."""
        return self._process is not None and self._process.returncode is None

    async def start(self, when_ready: Callable[[], None]) -> None:
        """Start the process and wait until it is ready; see Worker."""
        try:
            self._process = await self._started()
        except WorkerDied as error:
            raise AnimateDiffV2VError(f"{error} Its last log lines are above.") from error
        self._keeping = asyncio.create_task(self._keep(self._process, when_ready))

    async def stop(self) -> None:
        """Stop the process; kill it if it is still running after some seconds."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None:
            await _ended(process)

    async def run(
        self, job: ApiJob, output: Path, on_message: Callable[[str], None]
    ) -> dict[str, float]:
        """Run a job in the process; see Worker."""
        process = self._process
        if process is None:
            raise WorkerDied("The worker has ended.")
        self.models, self._runs_job = job.models, True
        try:
            _tell(process, {"run": job.as_json(), "output": str(output)})
            while (message := await self._next_event(process))["event"] == "progress":
                on_message(message["message"])
        finally:
            self._runs_job = False
        return timings(message)

    def stop_job(self) -> None:
        """Tell the process to stop its job."""
        if self._runs_job and self._process is not None:
            _tell(self._process, {"stop": True})

    async def _keep(self, process: Process, when_ready: Callable[[], None]) -> None:
        """Replace the process whenever it ends."""
        while True:
            await process.wait()
            self._process = self.models = None
            logger.warning(
                "The worker on device %s %s; a new one is started.",
                self._options.device, _ending(process),
            )  # fmt: skip
            self._process = process = await self._started_again()
            when_ready()

    async def _started_again(self) -> Process:
        pause_seconds = 1.0
        while True:
            try:
                return await self._started()
            except (AnimateDiffV2VError, WorkerDied, OSError) as error:
                logger.error("%s Trying again in %g seconds.", error, pause_seconds)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    async def _started(self) -> Process:
        """Start a process and wait until it is ready; raises AnimateDiffV2VError or WorkerDied."""
        process = await asyncio.create_subprocess_exec(
            *self._command(), stdin=PIPE, stdout=PIPE, limit=LONGEST_LINE
        )
        try:
            message = await self._next_event(process)
            if message["event"] == "refused":
                raise AnimateDiffV2VError(message["sentence"])
        except BaseException:
            await asyncio.shield(_ended(process))
            raise
        return process

    def _command(self) -> list[str]:
        options = self._options
        command = [sys.executable, "-m", f"{__package__}.worker", "--models", str(options.models)]
        command += ["--device", options.device, "--dtype", options.dtype]
        if options.max_memory_gb is not None:
            command += ["--max-memory", str(options.max_memory_gb)]
        return command

    async def _next_event(self, process: Process) -> Any:
        """Return the next event, writing log events to the log meanwhile; raises WorkerDied."""
        assert process.stdout is not None
        while (line := await process.stdout.readline()).endswith(b"\n"):
            message = json.loads(line)
            if message["event"] != "log":
                return message
            logger.log(message["level"], "%s", message["message"])
        await process.wait()
        raise WorkerDied(f"The worker on device {self._options.device} {_ending(process)}.")


def timings(message: Any) -> dict[str, float]:
    """Return the timings of a job that is done, or raise the exception of one that is not."""
    event = message["event"]
    if event == "cancelled":
        raise Cancelled("The job was cancelled.")
    if event == "refused":
        raise AnimateDiffV2VError(message["sentence"])
    if event == "failed":
        told = f"In the worker:\n{message['traceback']}"
        raise RuntimeError(told) if message["errno"] is None else OSError(message["errno"], told)
    seconds: dict[str, float] = message["timings"]
    return seconds


def _tell(process: Process, message: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")


async def _ended(process: Process) -> None:
    """Wait until a process that is no longer needed ends; kill it after SECONDS_TO_END."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), SECONDS_TO_END)
    except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _ending(process: Process) -> str:
    code = process.returncode
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
