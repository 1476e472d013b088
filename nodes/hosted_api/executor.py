"""Runs requests through ComfyUI's own queue, each as a graph of this pack's nodes."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...api.queue.executor import ApiJob, JobResult, Listener, without_folders
from ...pipeline import AnimateDiffV2VError, Cancelled
from .graph import OUTPUT_FOLDER, OUTPUT_NODE, graph
from .keyframe_pictures import crop_keyframes

logger = logging.getLogger(__name__)

INPUT_FOLDER = "animatediff_v2v_api"
SECONDS_BETWEEN_CHECKS = 2.0
# Failed look-ups before a prompt counts as gone: its final event may still be under way.
CHECKS_BEFORE_GONE = 2
EVENTS = (
    "said",
    "execution_start",
    "executed",
    "execution_success",
    "execution_interrupted",
    "execution_error",
)

Hear = Callable[[str, Mapping[str, Any]], None]


class ComfyQueue(Protocol):
    """The interface of ComfyUI's queue; nodes/host/queue.py implements it."""

    @property
    def folders(self) -> list[Path]:
        """Folders of files, whose paths must not appear in responses."""

    def input_folder(self, name: str) -> Path:
        """Return a folder in the input folder."""

    def output_folder(self, name: str) -> Path:
        """Return a folder in the output folder."""

    def shown_file(self, shown: Mapping[str, str]) -> Path:
        """Return the path of a file that a node told the frontend to show."""

    async def submit(
        self,
        prompt: Mapping[str, Any],
        *,
        prompt_id: str,
        client_id: str,
        is_low_priority: bool,
        before: str | None,
    ) -> Mapping[str, Any] | None:
        """Queue a prompt, in front of another one if given; return the errors if it is refused."""

    def running(self) -> list[str]:
        """Return the ids of the running prompts."""

    def waiting(self) -> list[str]:
        """Return the ids of the waiting prompts, the next one first."""

    def remove(self, prompt_id: str) -> bool:
        """Remove a waiting prompt; return whether it was waiting."""

    def interrupt(self, prompt_id: str) -> bool:
        """Stop a prompt if it is running, and return whether it was."""

    def history(self, prompt_id: str) -> Mapping[str, Any] | None:
        """Return the history entry of a finished prompt."""

    def listen(self, client_id: str, hear: Hear) -> None:
        """Pass on the events of prompts of `client_id`."""

    def stop_listening(self, client_id: str) -> None:
        """Undo `listen`."""


@dataclass
class _Prompt:
    """A job in ComfyUI's queue."""

    job: ApiJob
    events: asyncio.Queue[tuple[str, Mapping[str, Any]]] = field(default_factory=asyncio.Queue)
    is_cancelled: bool = False
    missed: int = 0
    output: Mapping[str, Any] = field(default_factory=dict)


class ComfyExecutor:
    """Runs jobs in ComfyUI's queue, next to the prompts of its own users."""

    def __init__(self, queue: ComfyQueue) -> None:
        """Use ComfyUI's queue under a separate client id, so that browser tabs get no events."""
        self._queue = queue
        self.input_folder = queue.input_folder(INPUT_FOLDER)
        self.output_folder = queue.output_folder(OUTPUT_FOLDER)
        self._client_id = f"animatediff-v2v-{uuid.uuid4().hex}"
        self._prompts: dict[str, _Prompt] = {}
        self._current = ""
        self._submitting = asyncio.Lock()
        self._checking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start listening."""
        self.input_folder.mkdir(parents=True, exist_ok=True)
        self._queue.listen(self._client_id, self._hear)
        self._checking = asyncio.create_task(self._check_forever())

    async def stop(self) -> None:
        """Stop listening; ComfyUI and its queue are about to end."""
        if self._checking is not None:
            self._checking.cancel()
        self._queue.stop_listening(self._client_id)

    async def run(self, job: ApiJob, listener: Listener) -> JobResult:
        """Queue a job and follow it; see Executor."""
        prompt = self._prompts[job.request_id] = _Prompt(job)
        try:
            if job.keyframes:
                await asyncio.to_thread(crop_keyframes, job)
            async with self._submitting:
                errors = await self._queue.submit(
                    graph(job, video=f"{INPUT_FOLDER}/{job.video.name}"),
                    prompt_id=job.request_id,
                    client_id=self._client_id,
                    is_low_priority=job.is_low_priority,
                    before=self._next_after(job),
                )
            if errors is not None:
                raise self._refusal(job, errors)
            if prompt.is_cancelled:  # while it was being submitted
                await self.cancel(job.request_id)
            return await self._follow(prompt, listener)
        finally:
            self._prompts.pop(job.request_id, None)

    def _next_after(self, job: ApiJob) -> str | None:
        """Return the first waiting prompt of a job that came later but was ready earlier."""
        ours = (self._prompts[each].job for each in self._queue.waiting() if each in self._prompts)
        for other in ours:
            if other.is_low_priority == job.is_low_priority and other.sequence > job.sequence:
                return other.request_id
        return None

    def recover_output(self, request_id: str) -> Path | None:
        """Find the video of a prompt by its file; ComfyUI's history does not survive a restart."""
        videos = self.output_folder.glob(f"{request_id}_*.mp4")
        return next(videos, None)

    async def cancel(self, request_id: str) -> None:
        """Remove a job from the queue, or stop it if it is running."""
        prompt = self._prompts.get(request_id)
        if prompt is None:
            return
        prompt.is_cancelled = True
        if self._queue.remove(request_id):
            prompt.events.put_nowait(("execution_interrupted", {}))
        else:
            self._queue.interrupt(request_id)

    def queue_position(self, request_id: str) -> int | None:
        """Return how many prompts run or wait before a job, including those of ComfyUI's users."""
        waiting = self._queue.waiting()
        if request_id not in waiting:
            return None
        return len(self._queue.running()) + waiting.index(request_id)

    def length(self) -> int:
        """Return how many prompts run or wait in all."""
        return len(self._queue.running()) + len(self._queue.waiting())

    # --- events --------------------------------------------------------------------------------

    def _hear(self, event: str, data: Mapping[str, Any]) -> None:
        if event == "execution_start":
            self._current = data["prompt_id"]
        prompt_id = data.get("prompt_id", self._current)
        prompt = self._prompts.get(prompt_id)
        if prompt is None or event not in EVENTS:
            return
        if prompt.is_cancelled:
            # An earlier interrupt was lost if it came before the prompt had started.
            self._queue.interrupt(prompt_id)
        prompt.events.put_nowait((event, data))

    async def _follow(self, prompt: _Prompt, listener: Listener) -> JobResult:
        while True:
            event, data = await prompt.events.get()
            if event == "execution_start":
                await listener.started()
            elif event == "said":
                await listener.on_message(data["message"])
            elif event == "executed" and data["node"] == OUTPUT_NODE:
                prompt.output = data["output"]
            elif event == "execution_success":
                return self._result(prompt.output)
            elif event == "execution_interrupted":
                raise Cancelled("The job was cancelled.")
            elif event == "execution_error":
                raise self._failure(data)

    def _result(self, output: Mapping[str, Any]) -> JobResult:
        (shown,) = output["images"]
        (timings,) = output["timings"]
        return JobResult(self._queue.shown_file(shown), dict(timings))

    def _failure(self, data: Mapping[str, Any]) -> Exception:
        sentence = str(data["exception_message"]).strip()
        if str(data["exception_type"]).rpartition(".")[2] == AnimateDiffV2VError.__name__:
            return AnimateDiffV2VError(without_folders(sentence, self._queue.folders))
        return RuntimeError(f"{data['exception_type']}: {sentence}")

    def _refusal(self, job: ApiJob, errors: Mapping[str, Any]) -> Exception:
        said = [
            f"{error['message']}: {error['details']}"
            for node in errors.get("node_errors", {}).values()
            for error in node["errors"]
            if error["type"] == "custom_validation_failed"
        ]
        if said:
            return AnimateDiffV2VError(without_folders("; ".join(said), self._queue.folders))
        return RuntimeError(f"ComfyUI refused request {job.request_id}: {errors.get('error')}")

    # --- missed events -------------------------------------------------------------------------

    async def _check_forever(self) -> None:
        """Find jobs that were removed from the queue, and jobs whose final event was missed."""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN_CHECKS)
            there = {*self._queue.running(), *self._queue.waiting()}
            for prompt_id, prompt in self._prompts.items():
                prompt.missed = 0 if prompt_id in there else prompt.missed + 1
                if prompt.missed == CHECKS_BEFORE_GONE:
                    self._end_missed(prompt_id, prompt)

    def _end_missed(self, prompt_id: str, prompt: _Prompt) -> None:
        entry = self._queue.history(prompt_id)
        if entry is None:
            prompt.events.put_nowait(("execution_interrupted", {}))
            return
        prompt.output = entry["outputs"].get(OUTPUT_NODE, {})
        for event, data in entry["status"]["messages"]:
            prompt.events.put_nowait((event, data))
