"""The queue: takes each request from waiting to done, across restarts of the server."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from ...pipeline import AnimateDiffV2VError, Cancelled
from ..settings import Settings
from ..storage.disk import StorageFull, has_room, is_disk_full
from ..wire.outcome import Answer
from ..wire.problems import (
    BROKEN,
    CANCELLED,
    INTERRUPTED,
    STORAGE_FULL,
    TIMED_OUT,
    Detail,
    RequestRefused,
    unprocessable,
)
from .admission import Admission
from .executor import ApiJob, Executor, JobResult, WorkerDied
from .outbox import Delivery
from .patient_writer import LONGEST_PAUSE_SECONDS, PatientWriter, pauses
from .progress_log import ProgressLog
from .records import NewRequest, StoredRequest
from .store import Store
from .turns import Turns

logger = logging.getLogger(__name__)

CancelStatus = Literal["CANCELLATION_REQUESTED", "ALREADY_COMPLETED"]
MOST_ATTEMPTS = 3
"""Starts of a request at most: the first, and one after each of two restarts."""
ROOM_BYTES = 2**20
"""Free bytes, besides twice the video's size, that a job waits for after a full disk."""

Prepare = Callable[[StoredRequest], Awaitable[ApiJob]]
Publish = Callable[[StoredRequest, JobResult], Awaitable[Answer]]
CleanUp = Callable[[StoredRequest, ApiJob | None], Awaitable[None]]


@dataclass
class _Unfinished:
    """An unfinished request and its progress in this process."""

    request: StoredRequest
    task: asyncio.Task[None] | None = None
    expiry: asyncio.TimerHandle | None = None
    job: ApiJob | None = None
    began: float | None = None
    """Start of the run, by the monotonic clock."""
    ran_seconds: float | None = None
    runs: int = 0
    """Number of runs in this process."""
    is_in_executor: bool = False
    is_cancelled: bool = False
    is_late: bool = False
    is_ending: bool = False
    watchers: set[asyncio.Event] = field(default_factory=set)


class QueueRunner:
    """One task for each unfinished request. All methods run in the event loop's thread."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        settings: Settings,
        *,
        prepare: Prepare,
        publish: Publish,
        clean_up: CleanUp,
        webhook: Callable[[StoredRequest], Delivery | None],
        started: Callable[[StoredRequest], None],
        finished: Callable[[StoredRequest], None],
    ) -> None:
        """Store the parts; nothing runs before `start`.

        prepare: fetches a request's files and returns its job; raises as Executor.run does.
        publish: returns a request's answer for the video that was made.
        clean_up: removes the files that `prepare` fetched.
        webhook: returns the delivery for a request with its answer, None where none is wanted.
        started: called when a request starts to run.
        finished: called when a request is done and its answer is stored.
        """
        self._store, self._executor, self._settings = store, executor, settings
        self._prepare, self._publish, self._clean_up = prepare, publish, clean_up
        self._webhook, self._started, self._finished = webhook, started, finished
        self._writer = PatientWriter(store)
        self._unfinished: dict[str, _Unfinished] = {}
        self._turns = Turns()
        self._admission = Admission(settings.fetched_ahead)
        self._fetching = asyncio.Semaphore(settings.fetches_at_once)
        self._background: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the executor and queue what an earlier process left, in its order.

        A request that was running is finished with its video if that is complete; otherwise it
        runs again before all others, after two restarts at most.
        """
        await self._executor.start()
        for request in await asyncio.to_thread(self._store.unfinished):
            self._begin(request)

    async def stop(self) -> None:
        """Stop all tasks and the executor; unfinished requests continue at the next start."""
        tasks = [each.task for each in self._unfinished.values() if each.task]
        tasks += self._background
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._executor.stop()

    async def submit(self, request: NewRequest) -> StoredRequest:
        """Queue a request; raises QueueFull or StorageFull."""
        stored = await asyncio.to_thread(
            self._store.submit,
            request,
            most=self._settings.max_queued,
            most_of_owner=self._settings.max_queued_per_key,
        )
        self._begin(stored)
        return stored

    async def cancel(self, request_id: str) -> CancelStatus:
        """Cancel a request of the store, unless it has ended."""
        waiting = self._unfinished.get(request_id)
        try:
            if not await asyncio.to_thread(self._store.cancel, request_id):
                return "ALREADY_COMPLETED"
        except StorageFull:
            if waiting is None:
                raise
            # The request is cancelled all the same, and stored as such when it ends.
        if waiting is not None:
            waiting.is_cancelled = True
            await self._stop(waiting)
        return "CANCELLATION_REQUESTED"

    def queue_position(self, request: StoredRequest) -> int:
        """Return the number of jobs ahead of a request, including those of ComfyUI's own users."""
        ahead = self._executor.queue_position(request.id)
        if ahead is not None:
            return ahead
        unfinished = self._unfinished.get(request.id)
        if unfinished is None or unfinished.is_in_executor:
            return 0  # it has just started or ended, which is not stored yet
        others = (each for each in self._unfinished.values() if not each.is_in_executor)
        own = self._turns.position(request.id)
        before = sum(self._turns.position(each.request.id) < own for each in others)
        return self._executor.length() + before

    async def changed(self, request_id: str, *, seconds: float) -> None:
        """Wait until a request changes, `seconds` at most."""
        unfinished = self._unfinished.get(request_id)
        if unfinished is None:
            return
        event = asyncio.Event()
        unfinished.watchers.add(event)
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
            return
        finally:
            unfinished.watchers.discard(event)

    # --- one request -----------------------------------------------------------------------------

    def _begin(self, request: StoredRequest) -> None:
        unfinished = self._unfinished[request.id] = _Unfinished(request)
        self._turns.add(request)
        if request.state == "running":
            self._admission.enter_first(request.id, self._turns.position(request.id))
        unfinished.task = asyncio.create_task(self._run_to_end(unfinished))
        if request.start_before is not None and request.state == "queued":
            # At most the timeout that was asked for, even if the clock was set back since.
            most = request.start_before - request.created
            delay = min(max(0.0, request.start_before - self._store.now()), most)
            loop = asyncio.get_running_loop()
            unfinished.expiry = loop.call_later(delay, self._expire, unfinished)

    async def _run_to_end(self, unfinished: _Unfinished) -> None:
        request = unfinished.request
        try:
            answer = await self._answer(unfinished)
        except asyncio.CancelledError:
            if not (unfinished.is_cancelled or unfinished.is_late):
                raise  # the server stops; the request continues when it starts again
            answer = CANCELLED
        except Exception as error:
            answer = _answer_for(error, request.id)
        unfinished.is_ending = True
        if unfinished.is_late and answer is CANCELLED:
            answer = TIMED_OUT
        self._admission.leave(request.id)
        await self._clean_up(request, unfinished.job)
        await self._end(request, answer, ran_seconds=unfinished.ran_seconds)
        self._unfinished.pop(request.id, None)
        self._turns.remove(request.id)
        if unfinished.expiry is not None:
            unfinished.expiry.cancel()
        _wake(unfinished)

    async def _answer(self, unfinished: _Unfinished) -> Answer:
        """Run a request, retrying it where that may help, and return its answer."""
        request = unfinished.request
        if request.is_cancelled:
            return CANCELLED
        if request.state == "running":
            recovered = await self._recovered(request)
            if recovered is not None or request.attempts >= MOST_ATTEMPTS:
                self._admission.leave(request.id)  # it will not run, so others need not wait
            if recovered is not None:
                return await self._writer.write(partial(self._publish, request, recovered))
            if request.attempts >= MOST_ATTEMPTS:
                return INTERRUPTED
            await self._wait_again(request, "the server was restarted; the request begins again")
        for pause in pauses():
            try:
                made = await self._made(unfinished)
            except WorkerDied:
                if unfinished.runs > 1:
                    return INTERRUPTED
                unfinished.is_in_executor = False
                await self._wait_again(request, "the worker died; the request begins again")
                await asyncio.sleep(pause)
            except (RequestRefused, AnimateDiffV2VError, OSError) as error:
                if isinstance(error, Cancelled) or not is_disk_full(error):
                    raise
                if unfinished.runs >= MOST_ATTEMPTS:
                    return STORAGE_FULL
                unfinished.is_in_executor = False
                self._writer.report_full(error)
                await self._wait_again(request, "the disk is full; the request waits for room")
                await self._wait_for_room(unfinished, pause)
            else:
                return await self._writer.write(partial(self._publish, request, made))
        raise AssertionError("pauses() never ends")

    async def _made(self, unfinished: _Unfinished) -> JobResult:
        request = unfinished.request
        if unfinished.job is None:
            position = self._turns.position(request.id)
            await self._admission.enter(request.id, position)
            async with self._fetching:
                job = await self._prepare(request)
            unfinished.job = replace(job, round=position[1])
        unfinished.is_in_executor = True
        listener = ProgressLog(
            on_start=partial(self._on_start, unfinished),
            on_message=partial(self._on_message, unfinished),
        )
        try:
            return await self._executor.run(unfinished.job, listener)
        finally:
            if unfinished.began is not None:
                unfinished.ran_seconds = time.monotonic() - unfinished.began

    async def _on_start(self, unfinished: _Unfinished) -> None:
        unfinished.began = time.monotonic()
        unfinished.runs += 1
        self._turns.begun(unfinished.request.id)
        self._admission.leave(unfinished.request.id)
        self._started(unfinished.request)
        try:
            await asyncio.to_thread(self._store.start, unfinished.request.id)
        except StorageFull as error:
            self._writer.report_full(error)  # the start time is stored when the request ends
        _wake(unfinished)

    async def _on_message(self, unfinished: _Unfinished, message: str) -> None:
        await self._writer.log(unfinished.request.id, message)
        _wake(unfinished)

    async def _recovered(self, request: StoredRequest) -> JobResult | None:
        """Return the complete video of a process that ended before it could report it."""
        path = await asyncio.to_thread(self._executor.recover_output, request.id)
        if path is None or request.started is None:
            return None
        seconds = max(0.0, path.stat().st_mtime - request.started)
        return JobResult(path, {"total": round(seconds, 3)})

    async def _wait_again(self, request: StoredRequest, reason: str) -> None:
        await self._writer.log(request.id, reason, level="WARN")
        await self._writer.write(partial(asyncio.to_thread, self._store.requeue, request.id))

    async def _wait_for_room(self, unfinished: _Unfinished, pause: float) -> None:
        """Let other requests go first, and wait until the disk has room for this one's files."""
        self._admission.leave(unfinished.request.id)
        await asyncio.sleep(pause)
        if unfinished.job is not None:
            wanted = ROOM_BYTES + 2 * unfinished.job.video.stat().st_size
            folders = (self._executor.input_folder, self._executor.output_folder)
            while not await asyncio.to_thread(has_room, folders, wanted):
                await asyncio.sleep(LONGEST_PAUSE_SECONDS)

    async def _end(
        self, request: StoredRequest, answer: Answer, *, ran_seconds: float | None
    ) -> None:
        if answer.error is not None:
            level = "WARN" if answer is CANCELLED else "ERROR"
            await self._writer.log(request.id, answer.error, level=level)
        finish = partial(
            self._store.finish,
            request.id,
            answer,
            ran_seconds=ran_seconds,
            webhook=self._webhook(replace(request, answer=answer)),
        )
        await self._writer.write(partial(asyncio.to_thread, finish))
        finished = await asyncio.to_thread(self._store.get, request.id)
        assert finished is not None
        self._finished(finished)

    # --- cancelling ------------------------------------------------------------------------------

    async def _stop(self, unfinished: _Unfinished) -> None:
        if unfinished.is_in_executor:
            await self._executor.cancel(unfinished.request.id)
        elif unfinished.task is not None and not unfinished.is_ending:
            # A second cancellation must not interrupt the clean-up that begins here.
            unfinished.is_ending = True
            unfinished.task.cancel()

    def _expire(self, unfinished: _Unfinished) -> None:
        if unfinished.request.id in self._unfinished and not unfinished.is_cancelled:
            self._in_background(self._stop_if_late(unfinished))

    async def _stop_if_late(self, unfinished: _Unfinished) -> None:
        request = await asyncio.to_thread(self._store.get, unfinished.request.id)
        if request is not None and request.state == "queued":
            unfinished.is_late = True
            await self._stop(unfinished)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)  # the event loop holds no strong reference to it
        task.add_done_callback(self._background.discard)


def _wake(unfinished: _Unfinished) -> None:
    for event in unfinished.watchers:
        event.set()


def _answer_for(error: Exception, request_id: str) -> Answer:
    if isinstance(error, RequestRefused):
        return error.answer
    if isinstance(error, Cancelled):
        return CANCELLED
    if isinstance(error, AnimateDiffV2VError):
        return unprocessable(Detail(["body"], str(error), "value_error"))
    logger.error("Request %s failed.", request_id, exc_info=error)
    return BROKEN
