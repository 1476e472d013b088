"""The executor of a server without ComfyUI: one queue for several worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...pipeline.errors import AnimateDiffV2VError, Cancelled
from ...pipeline.part_folder import remove_abandoned
from ...pipeline.video.formats import FORMATS
from .executor import ApiJob, JobResult, Listener, Worker, without_folders

FORMAT = FORMATS["mp4-h264"]
MODEL_SUFFIXES = {".safetensors", ".ckpt", ".pt", ".pth", ".bin"}


class ModelFolders:
    """The model files in a folder laid out like ComfyUI's `models`."""

    def __init__(self, root: Path) -> None:
        """Look in the subfolders of `root`: checkpoints, animatediff_models, loras and so on."""
        self._root = root

    def names(self, folder: str) -> list[str]:
        """Return the model files of a folder and its subfolders, sorted."""
        top = self._root / folder
        files = (path for path in top.rglob("*") if path.suffix.lower() in MODEL_SUFFIXES)
        return sorted(path.relative_to(top).as_posix() for path in files if path.is_file())

    def folders(self, folder: str) -> list[Path]:
        """Return the one folder on disk."""
        return [self._root / folder]


@dataclass(eq=False)
class _Ticket:
    """A queued job; `turn` resolves to its worker when the job may start."""

    job: ApiJob
    turn: asyncio.Future[Worker]
    is_cancelled: bool = False


class LocalExecutor:
    """Queues jobs and gives the next to a free worker, preferably one with the same networks."""

    def __init__(
        self, *, input_folder: Path, output_folder: Path, models: Path, workers: Sequence[Worker]
    ) -> None:
        """Use these folders and workers; `start` starts the workers."""
        self.input_folder, self.output_folder, self._models = input_folder, output_folder, models
        self._waiting: list[_Ticket] = []
        # The worker that has been idle for longest comes first.
        self._workers = list(workers)
        self._running: dict[Worker, _Ticket] = {}

    async def start(self) -> None:
        """Create the folders, remove unfinished files of a killed process, start the workers.

        Raises AnimateDiffV2VError when a worker cannot run any job.
        """
        self.input_folder.mkdir(parents=True, exist_ok=True)
        self.output_folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(remove_abandoned, self.output_folder)
        starts = [asyncio.create_task(worker.start(self._call_next)) for worker in self._workers]
        try:
            await asyncio.gather(*starts)
        except BaseException:  # one failed: end the others as well
            for each in starts:
                each.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the workers and their jobs."""
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        await asyncio.to_thread(remove_abandoned, self.output_folder)

    async def run(self, job: ApiJob, listener: Listener) -> JobResult:
        """Wait for the job's turn and run it; see Executor."""
        ticket = _Ticket(job, asyncio.get_running_loop().create_future())
        self._enqueue(ticket)
        try:
            worker = await ticket.turn
            await listener.started()
            if ticket.is_cancelled:
                raise Cancelled("The job was cancelled.")
        except BaseException:
            self._leave(ticket)
            raise
        try:
            return await self._follow(ticket, worker, listener)
        except Cancelled:
            raise
        except AnimateDiffV2VError as error:
            brought_in = {Path(name).parent for name, _ in job.loras if Path(name).is_absolute()}
            folders = (self._models, self.input_folder, self.output_folder, *brought_in)
            raise AnimateDiffV2VError(without_folders(str(error), folders)) from error

    def recover_output(self, request_id: str) -> Path | None:
        """Return the video of a job, or None; the file gets its name only when complete."""
        path = self._output(request_id)
        return path if path.is_file() else None

    async def cancel(self, request_id: str) -> None:
        """Remove a job from the queue, or stop it at its next step."""
        for ticket in self._waiting:
            if ticket.job.request_id == request_id:
                self._waiting.remove(ticket)
                if not ticket.turn.done():
                    ticket.turn.set_exception(Cancelled("The job was cancelled."))
                return
        for worker, ticket in self._running.items():
            if ticket.job.request_id == request_id:
                ticket.is_cancelled = True
                worker.stop_job()

    def queue_position(self, request_id: str) -> int | None:
        """Return the number of jobs ahead of a waiting job; None if it is not waiting."""
        for index, ticket in enumerate(self._waiting):
            if ticket.job.request_id == request_id:
                return index + len(self._running)
        return None

    def length(self) -> int:
        """Return the number of jobs that run or wait."""
        return len(self._waiting) + len(self._running)

    # --- the queue -------------------------------------------------------------------------------

    def _enqueue(self, ticket: _Ticket) -> None:
        self._waiting.append(ticket)
        self._waiting.sort(key=_order)
        self._call_next()

    def _leave(self, ticket: _Ticket) -> None:
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        for worker, running in list(self._running.items()):
            if running is ticket:
                self._free(worker)

    def _free(self, worker: Worker) -> None:
        del self._running[worker]
        self._workers.remove(worker)
        self._workers.append(worker)
        self._call_next()

    def _call_next(self) -> None:
        while self._waiting:
            free = [each for each in self._workers if each not in self._running and each.is_ready]
            if not free:
                return
            ticket = self._waiting.pop(0)
            if not ticket.turn.done():  # otherwise its task has just been cancelled
                worker = next((each for each in free if each.models == ticket.job.models), free[0])
                self._running[worker] = ticket
                ticket.turn.set_result(worker)

    # --- running a job ---------------------------------------------------------------------------

    async def _follow(self, ticket: _Ticket, worker: Worker, listener: Listener) -> JobResult:
        job, messages = ticket.job, asyncio.Queue[str | None]()
        output = self._output(job.request_id)
        work = asyncio.create_task(worker.run(job, output, messages.put_nowait))

        def end(work: asyncio.Task[dict[str, float]]) -> None:
            messages.put_nowait(None)
            self._free(worker)
            if not work.cancelled():
                work.exception()  # read it, or asyncio logs it as never retrieved

        work.add_done_callback(end)
        try:
            while (message := await messages.get()) is not None:
                await listener.on_message(message)
            return JobResult(output, await work)
        finally:
            if not work.done():  # its worker is free again once the job ends, at its next step
                worker.stop_job()

    def _output(self, request_id: str) -> Path:
        return self.output_folder / f"{request_id}{FORMAT.extension}"


def _order(ticket: _Ticket) -> tuple[bool, int, int]:
    return ticket.job.is_low_priority, ticket.job.round, ticket.job.sequence
