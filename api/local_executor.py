"""Runs requests in this process, one after the other, where there is no ComfyUI."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..pipeline import (
    AnimateDiffV2VError,
    Cancelled,
    ContextOptions,
    FrameSelection,
    Guidance,
    LoraEntry,
    ModelFiles,
    Models,
    Request,
    Result,
    SamplingSettings,
    load_files,
    video_to_video,
)
from ..pipeline.part_folder import remove_abandoned
from ..pipeline.progress import stop_if
from ..pipeline.video import FORMATS, exact_rate
from .executor import Job, Listener, Made, without_folders
from .model_choice import CHECKPOINTS, MOTION_LORAS, MOTION_MODULES

FORMAT = FORMATS["mp4-h264"]
# Takes what a job says, for a person; None is its last word.
Tell = Callable[[str | None], None]
MODEL_SUFFIXES = {".safetensors", ".ckpt", ".pt", ".pth", ".bin"}


class ModelFolders:
    """Model files in the layout of ComfyUI's models folder."""

    def __init__(self, root: Path) -> None:
        """Look below `root`, in checkpoints, animatediff_models, loras and the others."""
        self._root = root

    def names(self, folder: str) -> list[str]:
        """List the model files of a folder and its subfolders."""
        place = self._root / folder
        files = (path for path in place.rglob("*") if path.suffix.lower() in MODEL_SUFFIXES)
        return sorted(path.relative_to(place).as_posix() for path in files if path.is_file())

    def folders(self, folder: str) -> list[Path]:
        """Give the one place of a folder."""
        return [self._root / folder]


@dataclass
class _Ticket:
    """A job's place in the queue; `turn` gets its result when the job may begin."""

    job: Job
    turn: asyncio.Future[None]
    stop: threading.Event = field(default_factory=threading.Event)


class LocalExecutor:
    """A queue of its own, and `video_to_video` in a thread.

    The networks of the last job stay loaded, for the next one that needs the same files.
    """

    def __init__(self, *, input_folder: Path, output_folder: Path, models: Path) -> None:
        """Know the folders: for videos in, videos out, and model files in ComfyUI's layout."""
        self.input_folder, self._output_folder, self._models = input_folder, output_folder, models
        self._waiting: list[_Ticket] = []
        self._running: _Ticket | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="animatediff-v2v")
        self._loaded: tuple[tuple[object, ...], Models] | None = None

    async def start(self) -> None:
        """Make the folders, and remove what a killed process had begun to write."""
        self.input_folder.mkdir(parents=True, exist_ok=True)
        self._output_folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(remove_abandoned, self._output_folder)

    async def stop(self) -> None:
        """Stop the running job and wait for its thread."""
        if self._running is not None:
            self._running.stop.set()
        await asyncio.to_thread(self._thread.shutdown)

    async def run(self, job: Job, listener: Listener) -> Made:
        """Wait for the job's turn and run it; see Executor."""
        ticket = _Ticket(job, asyncio.get_running_loop().create_future())
        self._enqueue(ticket)
        try:
            await ticket.turn
        except asyncio.CancelledError:
            self._leave(ticket)
            raise
        try:
            await listener.started()
            return await self._run(ticket, listener)
        finally:
            self._leave(ticket)

    def left(self, request_id: str) -> Path | None:
        """Find the video of a job; it gets its name when it is whole."""
        path = self._output(request_id)
        return path if path.is_file() else None

    async def cancel(self, request_id: str) -> None:
        """Take a job out of the queue, or stop it at its next step."""
        for ticket in [*self._waiting, *([self._running] if self._running else [])]:
            if ticket.job.request_id == request_id:
                ticket.stop.set()
                if not ticket.turn.done():
                    ticket.turn.set_exception(Cancelled("The job was cancelled."))
                    self._waiting.remove(ticket)

    def ahead(self, request_id: str) -> int | None:
        """How many run or wait before a job that waits."""
        for place, ticket in enumerate(self._waiting):
            if ticket.job.request_id == request_id:
                return place + (self._running is not None)
        return None

    def length(self) -> int:
        """How many run or wait."""
        return len(self._waiting) + (self._running is not None)

    # --- the queue -----------------------------------------------------------------------------

    def _enqueue(self, ticket: _Ticket) -> None:
        self._waiting.append(ticket)
        self._waiting.sort(key=lambda each: (each.job.is_low_priority, each.job.sequence))
        self._call_next()

    def _leave(self, ticket: _Ticket) -> None:
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        if ticket is self._running:
            self._running = None
            self._call_next()

    def _call_next(self) -> None:
        while self._running is None and self._waiting:
            ticket = self._waiting.pop(0)
            if not ticket.turn.done():  # else its task was cancelled a moment ago
                self._running = ticket
                ticket.turn.set_result(None)

    # --- the work ------------------------------------------------------------------------------

    async def _run(self, ticket: _Ticket, listener: Listener) -> Made:
        loop = asyncio.get_running_loop()
        said: asyncio.Queue[str | None] = asyncio.Queue()

        def tell(message: str | None) -> None:
            loop.call_soon_threadsafe(said.put_nowait, message)

        work = loop.run_in_executor(self._thread, self._work, ticket, tell)
        try:
            while (message := await said.get()) is not None:
                await listener.says(message)
            result = await work
        except Cancelled:
            raise
        except AnimateDiffV2VError as error:
            folders = (self._models, self.input_folder, self._output_folder)
            raise AnimateDiffV2VError(without_folders(str(error), folders)) from error
        except asyncio.CancelledError:
            # The thread ends by itself at its next step; the next job waits for it.
            ticket.stop.set()
            raise
        timings = {name: round(seconds, 3) for name, seconds in asdict(result.timings).items()}
        return Made(result.path, timings)

    def _work(self, ticket: _Ticket, tell: Tell) -> Result:
        with _last_word(tell):
            stop_if(ticket.stop.is_set)
            job = ticket.job
            models = self._networks(_model_files(job, self._models), tell)
            return video_to_video(
                _request(job, self._output(job.request_id)),
                models,
                progress=lambda step: tell(step.message),
                is_cancelled=ticket.stop.is_set,
            )

    def _output(self, request_id: str) -> Path:
        return self._output_folder / f"{request_id}{FORMAT.extension}"

    def _networks(self, files: ModelFiles, tell: Tell) -> Models:
        key = _identity(files)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # frees the memory before more is taken
            tell(f"loading {files.checkpoint.name}")
            self._loaded = (key, load_files(files))
        return self._loaded[1]


def _request(job: Job, output: Path) -> Request:
    return Request(
        input=job.video,
        output=output,
        prompt=job.prompt,
        negative_prompt=job.negative_prompt,
        sampling=SamplingSettings(
            seed=job.seed,
            steps=job.steps,
            guidance=Guidance(scale=job.guidance_scale),
            sampler=job.sampler,
            scheduler=job.scheduler,
            denoise=job.denoise,
            context=ContextOptions(),
        ),
        selection=FrameSelection(
            select_every_nth_frame=job.select_every_nth_frame,
            force_rate=exact_rate(job.force_rate),
            duration_seconds=job.duration_seconds,
        ),
        format=FORMAT.name,
        overwrite=True,  # the name is the request's own: an earlier try of the same job
    )


def _model_files(job: Job, models: Path) -> ModelFiles:
    embeddings = models / "embeddings"
    return ModelFiles(
        checkpoint=models / CHECKPOINTS / job.checkpoint,
        motion_module=models / MOTION_MODULES / job.motion_module,
        loras=tuple(
            LoraEntry(models / "loras" / name, model_strength=scale, clip_strength=scale)
            for name, scale in job.loras
        ),
        motion_loras=tuple(
            LoraEntry(models / MOTION_LORAS / name, model_strength=scale)
            for name, scale in job.motion_loras
        ),
        embeddings=embeddings if embeddings.is_dir() else None,
    )


def _identity(files: ModelFiles) -> tuple[object, ...]:
    """Equal for the same files with the same content, as far as size and time tell."""
    entries = [*files.loras, *files.motion_loras]
    paths = [files.checkpoint, files.motion_module, *(entry.path for entry in entries)]
    stats = [path.stat() for path in paths if path is not None]
    return (files, *((stat.st_size, stat.st_mtime_ns) for stat in stats))


@contextmanager
def _last_word(tell: Tell) -> Iterator[None]:
    try:
        yield
    finally:
        tell(None)
