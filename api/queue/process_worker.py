"""A worker in a process of its own on this machine, replaced when it dies; see worker.py."""

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
# More than a worker takes for its last step.
SECONDS_TO_END = 5.0
LONGEST_PAUSE_SECONDS = 60.0


class ProcessWorker:
    """A child process with a device; if it crashes, the server does not."""

    def __init__(self, options: WorkerOptions) -> None:
        """Know what it works with; nothing runs yet."""
        self._options = options
        self._process: Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._runs_job = False
        self.models: tuple[object, ...] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    async def start(self, when_ready: Callable[[], None]) -> None:
        """Start the process and wait for its word; see Worker."""
        try:
            self._process = await self._started()
        except WorkerDied as error:
            raise AnimateDiffV2VError(f"{error} Its last words are above.") from error
        self._keeping = asyncio.create_task(self._keep(self._process, when_ready))

    async def stop(self) -> None:
        """End the process, by force after some seconds."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None:
            await _ended(process)

    async def run(
        self, job: ApiJob, output: Path, on_message: Callable[[str], None]
    ) -> dict[str, float]:
        """Have the process run a job; see Worker."""
        process = self._process
        if process is None:
            raise WorkerDied("The worker has ended.")
        self.models, self._runs_job = job.models, True
        try:
            _tell(process, {"run": job.as_json(), "output": str(output)})
            while (message := await self._heard(process))["event"] == "progress":
                on_message(message["message"])
        finally:
            self._runs_job = False
        return _timings(message)

    def stop_job(self) -> None:
        """Tell the process that nobody wants the job any more."""
        if self._runs_job and self._process is not None:
            _tell(self._process, {"stop": True})

    async def _keep(self, process: Process, when_ready: Callable[[], None]) -> None:
        """Replace the process whenever it ends."""
        while True:
            await process.wait()
            self._process = self.models = None
            logger.warning(
                "The worker on device %s %s; another one takes its place.",
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
                logger.error("%s It is tried again in %g seconds.", error, pause_seconds)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    async def _started(self) -> Process:
        """Start a process that is ready; raises AnimateDiffV2VError when it refuses, WorkerDied."""
        process = await asyncio.create_subprocess_exec(
            *self._command(), stdin=PIPE, stdout=PIPE, limit=LONGEST_LINE
        )
        try:
            message = await self._heard(process)
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

    async def _heard(self, process: Process) -> Any:
        """Wait for the next event but those for the log; raises WorkerDied."""
        assert process.stdout is not None
        while (line := await process.stdout.readline()).endswith(b"\n"):
            message = json.loads(line)
            if message["event"] != "log":
                return message
            logger.log(message["level"], "%s", message["message"])
        await process.wait()
        raise WorkerDied(f"The worker on device {self._options.device} {_ending(process)}.")


def _timings(message: Any) -> dict[str, float]:
    """Give what a job made, or raise what became of it instead."""
    event = message["event"]
    if event == "cancelled":
        raise Cancelled("The job was cancelled.")
    if event == "refused":
        raise AnimateDiffV2VError(message["sentence"])
    if event == "failed":
        told = f"In the worker:\n{message['traceback']}"
        raise RuntimeError(told) if message["errno"] is None else OSError(message["errno"], told)
    timings: dict[str, float] = message["timings"]
    return timings


def _tell(process: Process, message: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")


async def _ended(process: Process) -> None:
    """Wait for the end of a process that is not needed any more, and kill it if it takes long."""
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
