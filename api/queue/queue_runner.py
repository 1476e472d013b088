"""Takes requests through their life: waiting, running, done; or waiting again, after a restart."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar

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
from .store import NewRequest, Store, StoredRequest
from .turns import Turns

logger = logging.getLogger(__name__)

CancelStatus = Literal["CANCELLATION_REQUESTED", "ALREADY_COMPLETED"]
# Of what a running job says; a change of what it is doing is always kept.
SECONDS_BETWEEN_LOG_LINES = 0.5
MOST_ATTEMPTS = 3
"""How often a request begins to run: once, and again after two restarts."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15.0
"""Between attempts to write on a disk that is full."""
ROOM_BYTES = 2**20
"""What a disk must have left, beside twice the video, for a job to begin again on it."""

Prepare = Callable[[StoredRequest], Awaitable[ApiJob]]
Publish = Callable[[StoredRequest, JobResult], Awaitable[Answer]]
CleanUp = Callable[[StoredRequest, ApiJob | None], Awaitable[None]]
Finished = Callable[[StoredRequest], Awaitable[None]]
_T = TypeVar("_T")


@dataclass
class _Unfinished:
    """A request in this process's hands."""

    request: StoredRequest
    task: asyncio.Task[None] | None = None
    expiry: asyncio.TimerHandle | None = None
    job: ApiJob | None = None
    began: float | None = None
    """When it began to run, by the monotonic clock."""
    ran_seconds: float | None = None
    runs: int = 0
    """How often it ran in this process."""
    is_in_executor: bool = False
    is_cancelled: bool = False
    is_late: bool = False
    is_ending: bool = False
    watchers: set[asyncio.Event] = field(default_factory=set)


class QueueRunner:
    """Keeps one task for each unfinished request; all methods belong to the event loop's thread.

    prepare: brings a request's files in and gives its job; the errors are those of Executor.run.
    publish: what a request answers for the video that was made.
    clean_up: removes what `prepare` brought in.
    started: told of each request that begins to run.
    finished: called once for each request that is done, again after a restart if it failed.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        settings: Settings,
        *,
        prepare: Prepare,
        publish: Publish,
        clean_up: CleanUp,
        started: Callable[[StoredRequest], None],
        finished: Finished,
    ) -> None:
        """Connect the parts; nothing runs yet."""
        self._store, self._executor, self._settings = store, executor, settings
        self._prepare, self._publish = prepare, publish
        self._clean_up, self._started, self._finished = clean_up, started, finished
        self._unfinished: dict[str, _Unfinished] = {}
        self._turns = Turns()
        self._admission = Admission(settings.fetched_ahead)
        self._fetching = asyncio.Semaphore(settings.fetches_at_once)
        self._is_full = False
        self._background: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take up what an earlier process left: it is queued again in its order.

        What had begun ends with its video if that is whole; else it begins again before all
        others, twice at most.
        """
        await self._executor.start()
        for request in await asyncio.to_thread(self._store.unfinished):
            self._begin(request)
        for request in await asyncio.to_thread(self._store.webhooks_due):
            self._in_background(self._written(partial(self._finished, request)))

    async def stop(self) -> None:
        """Leave everything as a restart finds it."""
        tasks = [each.task for each in self._unfinished.values() if each.task]
        tasks += self._background
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._executor.stop()

    async def submit(self, request: NewRequest) -> StoredRequest:
        """Queue a request; raises QueueFull."""
        stored = await asyncio.to_thread(
            self._store.submit,
            request,
            most=self._settings.max_queued,
            most_of_owner=self._settings.max_queued_per_key,
        )
        self._begin(stored)
        return stored

    async def cancel(self, request_id: str) -> CancelStatus:
        """End a request that is known, unless it has ended."""
        waiting = self._unfinished.get(request_id)
        try:
            if not await asyncio.to_thread(self._store.cancel, request_id):
                return "ALREADY_COMPLETED"
        except StorageFull:
            if waiting is None:
                raise
            # It ends all the same, and is noted with its end.
        if waiting is not None:
            waiting.is_cancelled = True
            await self._stop(waiting)
        return "CANCELLATION_REQUESTED"

    def queue_position(self, request: StoredRequest) -> int:
        """How many run or wait before a request, those of ComfyUI's own users among them."""
        ahead = self._executor.queue_position(request.id)
        if ahead is not None:
            return ahead
        unfinished = self._unfinished.get(request.id)
        if unfinished is None or unfinished.is_in_executor:
            return 0  # it is about to be seen to run, or to have ended
        others = (each for each in self._unfinished.values() if not each.is_in_executor)
        place = self._turns.place(request.id)
        before = sum(self._turns.place(each.request.id) < place for each in others)
        return self._executor.length() + before

    async def changed(self, request_id: str, *, seconds: float) -> None:
        """Wait until there is news of a request, but not longer than that."""
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

    # --- what executors tell -------------------------------------------------------------------

    async def begun(self, unfinished: _Unfinished) -> None:
        """A job does not wait any more."""
        unfinished.began = time.monotonic()
        unfinished.runs += 1
        self._turns.begun(unfinished.request.id)
        self._admission.leave(unfinished.request.id)
        self._started(unfinished.request)
        try:
            await asyncio.to_thread(self._store.start, unfinished.request.id)
        except StorageFull as error:
            self._tell_full(error)  # its end is noted with its beginning
        _wake(unfinished)

    async def said(self, unfinished: _Unfinished, message: str) -> None:
        """A job tells what it is doing."""
        await self._note(unfinished.request.id, message)
        _wake(unfinished)

    # --- one request ---------------------------------------------------------------------------

    def _begin(self, request: StoredRequest) -> None:
        unfinished = self._unfinished[request.id] = _Unfinished(request)
        self._turns.add(request)
        if request.state == "running":
            self._admission.enter_first(request.id, self._turns.place(request.id))
        unfinished.task = asyncio.create_task(self._see_through(unfinished))
        if request.start_before is not None and request.state == "queued":
            # Never longer than was asked for, whatever the clock said in between.
            most = request.start_before - request.created
            delay = min(max(0.0, request.start_before - self._store.now()), most)
            loop = asyncio.get_running_loop()
            unfinished.expiry = loop.call_later(delay, self._expire, unfinished)

    async def _see_through(self, unfinished: _Unfinished) -> None:
        request = unfinished.request
        try:
            answer = await self._answer(unfinished)
        except asyncio.CancelledError:
            if not (unfinished.is_cancelled or unfinished.is_late):
                raise  # the server stops, and takes the request up when it starts again
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
        """Run a request, again where that is worth it, and give what it answers."""
        request = unfinished.request
        if request.is_cancelled:
            return CANCELLED
        if request.state == "running":
            left = await self._recovered(request)
            if left is not None or request.attempts >= MOST_ATTEMPTS:
                self._admission.leave(request.id)  # it will not run: nobody waits for it
            if left is not None:
                return await self._written(partial(self._publish, request, left))
            if request.attempts >= MOST_ATTEMPTS:
                return INTERRUPTED
            await self._wait_again(request, "the server was restarted; the request begins again")
        pauses = _pauses()
        while True:
            try:
                made = await self._made(unfinished)
            except WorkerDied:
                if unfinished.runs > 1:
                    return INTERRUPTED
                unfinished.is_in_executor = False
                await self._wait_again(request, "what ran it ended; the request begins again")
                await asyncio.sleep(next(pauses))
            except (RequestRefused, AnimateDiffV2VError, OSError) as error:
                if isinstance(error, Cancelled) or not is_disk_full(error):
                    raise
                if unfinished.runs >= MOST_ATTEMPTS:
                    return STORAGE_FULL
                unfinished.is_in_executor = False
                self._tell_full(error)
                await self._wait_again(request, "the disk is full; the request waits for room")
                await self._wait_for_room(unfinished, next(pauses))
            else:
                return await self._written(partial(self._publish, request, made))

    async def _made(self, unfinished: _Unfinished) -> JobResult:
        request = unfinished.request
        if unfinished.job is None:
            place = self._turns.place(request.id)
            await self._admission.enter(request.id, place)
            async with self._fetching:
                job = await self._prepare(request)
            unfinished.job = replace(job, round=place[1])
        unfinished.is_in_executor = True
        try:
            return await self._executor.run(unfinished.job, _Listener(self, unfinished))
        finally:
            if unfinished.began is not None:
                unfinished.ran_seconds = time.monotonic() - unfinished.began

    async def _recovered(self, request: StoredRequest) -> JobResult | None:
        """What an earlier process made and could not tell of."""
        path = await asyncio.to_thread(self._executor.recover_output, request.id)
        if path is None or request.started is None:
            return None
        seconds = max(0.0, path.stat().st_mtime - request.started)
        return JobResult(path, {"total": round(seconds, 3)})

    async def _wait_again(self, request: StoredRequest, reason: str) -> None:
        await self._note(request.id, reason, level="WARN")
        await self._written(partial(asyncio.to_thread, self._store.requeue, request.id))

    async def _wait_for_room(self, unfinished: _Unfinished, pause: float) -> None:
        """Let others go first, until a job whose files are here can hope for more."""
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
            await self._note(request.id, answer.error, level=level)
        await self._written(
            partial(
                asyncio.to_thread, self._store.finish, request.id, answer, ran_seconds=ran_seconds
            )
        )
        finished = await asyncio.to_thread(self._store.get, request.id)
        assert finished is not None
        await self._written(partial(self._finished, finished))

    # --- writing on a disk that may be full ----------------------------------------------------

    async def _written(self, write: Callable[[], Awaitable[_T]]) -> _T:
        """Write, as often as it takes: what is at its end must not be forgotten."""
        for pause in _pauses():
            try:
                written = await write()
            except (RequestRefused, sqlite3.OperationalError, OSError) as error:
                if not is_disk_full(error):
                    raise
                self._tell_full(error)
                await asyncio.sleep(pause)
            else:
                if self._is_full:
                    self._is_full = False
                    logger.warning("There is room on the disk again.")
                return written
        raise AssertionError("there is always another pause")

    async def _note(self, request_id: str, message: str, *, level: str = "INFO") -> None:
        """Add a line to a request's log, or do without it where there is no room."""
        try:
            await asyncio.to_thread(self._store.log, request_id, message, level=level)
        except StorageFull as error:
            self._tell_full(error)

    def _tell_full(self, error: BaseException) -> None:
        if not self._is_full:
            self._is_full = True
            logger.error("The disk takes no more (%s); what must be written is tried again.", error)

    async def _stop(self, unfinished: _Unfinished) -> None:
        if unfinished.is_in_executor:
            await self._executor.cancel(unfinished.request.id)
        elif unfinished.task is not None and not unfinished.is_ending:
            # Whatever comes now must not disturb the end that begins here.
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
        self._background.add(task)  # the event loop alone would not keep it
        task.add_done_callback(self._background.discard)


class _Listener:
    """Puts down what an executor tells of a request; a full disk is no reason to stop the job."""

    def __init__(self, runner: QueueRunner, unfinished: _Unfinished) -> None:
        self._runner, self._unfinished = runner, unfinished
        self._message, self._last = "", 0.0

    async def started(self) -> None:
        await self._runner.begun(self._unfinished)

    async def on_message(self, message: str) -> None:
        now, is_same_work = time.monotonic(), _work(message) == _work(self._message)
        is_soon = now - self._last < SECONDS_BETWEEN_LOG_LINES
        if message == self._message or (is_same_work and is_soon):
            return
        self._message, self._last = message, now
        await self._runner.said(self._unfinished, message)


def _pauses() -> Iterator[float]:
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _work(message: str) -> str:
    """What is being done: sampling, of "sampling step 1 of 2"."""
    return message.split(" ", maxsplit=1)[0]


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
