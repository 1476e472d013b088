"""Takes requests through their life: waiting, running, done; or waiting again, after a restart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

from ..pipeline import AnimateDiffV2VError, Cancelled
from .executor import Executor, Job, Made
from .problems import (
    BROKEN,
    CANCELLED,
    INTERRUPTED,
    TIMED_OUT,
    Answer,
    Detail,
    RequestRefused,
    unprocessable,
)
from .settings import Settings
from .store import NewRequest, Store, StoredRequest

logger = logging.getLogger(__name__)

CancelStatus = Literal["CANCELLATION_REQUESTED", "ALREADY_COMPLETED"]
# Of what a running job says; a change of what it is doing is always kept.
SECONDS_BETWEEN_LOG_LINES = 0.5
SECONDS_BETWEEN_PRUNING = 3600
SECONDS_OF_A_DAY = 86_400

Prepare = Callable[[StoredRequest], Awaitable[Job]]
Publish = Callable[[StoredRequest, Made], Awaitable[Answer]]
CleanUp = Callable[[StoredRequest, Job | None], Awaitable[None]]
Finished = Callable[[StoredRequest], Awaitable[None]]


@dataclass
class _Unfinished:
    """A request in this process's hands."""

    request: StoredRequest
    task: asyncio.Task[None] | None = None
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
        finished: Finished,
    ) -> None:
        """Connect the parts; nothing runs yet."""
        self._store, self._executor, self._settings = store, executor, settings
        self._prepare, self._publish = prepare, publish
        self._clean_up, self._finished = clean_up, finished
        self._unfinished: dict[str, _Unfinished] = {}
        self._fetching = asyncio.Semaphore(settings.fetches_at_once)
        self._background: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take up what an earlier process left: what had not begun is queued again.

        What had begun ends: with its video if that is whole, else with an error.
        """
        await self._executor.start()
        for request in await asyncio.to_thread(self._store.unfinished):
            if request.is_cancelled or request.state == "running":
                await self._end(request, await self._answer_of_left(request))
            else:
                self._begin(request)
        for request in await asyncio.to_thread(self._store.webhooks_due):
            await self._finished(request)
        self._in_background(self._prune())

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
        if not await asyncio.to_thread(self._store.cancel, request_id):
            return "ALREADY_COMPLETED"
        waiting = self._unfinished.get(request_id)
        if waiting is not None:
            waiting.is_cancelled = True
            await self._stop(waiting)
        return "CANCELLATION_REQUESTED"

    def queue_position(self, request: StoredRequest) -> int:
        """How many run or wait before a request, those of ComfyUI's own users among them."""
        ahead = self._executor.ahead(request.id)
        if ahead is not None:
            return ahead
        unfinished = self._unfinished.get(request.id)
        if unfinished is None or unfinished.is_in_executor:
            return 0  # it is about to be seen to run, or to have ended
        others = (each for each in self._unfinished.values() if not each.is_in_executor)
        before = sum(each.request.sequence < request.sequence for each in others)
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

    # --- one request ---------------------------------------------------------------------------

    def _begin(self, request: StoredRequest) -> None:
        unfinished = self._unfinished[request.id] = _Unfinished(request)
        unfinished.task = asyncio.create_task(self._see_through(unfinished))
        if request.start_before is not None:
            delay = max(0.0, request.start_before - time.time())
            asyncio.get_running_loop().call_later(delay, self._expire, unfinished)

    async def _see_through(self, unfinished: _Unfinished) -> None:
        request = unfinished.request
        job: Job | None = None
        try:
            async with self._fetching:
                job = await self._prepare(request)
            unfinished.is_in_executor = True
            made = await self._executor.run(job, _Listener(self._store, unfinished))
            answer = await self._publish(request, made)
        except asyncio.CancelledError:
            if not (unfinished.is_cancelled or unfinished.is_late):
                raise  # the server stops, and takes the request up when it starts again
            answer = CANCELLED
        except Exception as error:
            answer = _answer_for(error, request.id)
        unfinished.is_ending = True
        if unfinished.is_late and answer is CANCELLED:
            answer = TIMED_OUT
        await self._clean_up(request, job)
        await self._end(request, answer)
        self._unfinished.pop(request.id, None)
        _wake(unfinished)

    async def _answer_of_left(self, request: StoredRequest) -> Answer:
        """What a request answers that an earlier process ran."""
        if request.is_cancelled:
            return CANCELLED
        path = await asyncio.to_thread(self._executor.left, request.id)
        if path is None or request.started is None:
            return INTERRUPTED
        seconds = max(0.0, path.stat().st_mtime - request.started)
        return await self._publish(request, Made(path, {"total": round(seconds, 3)}))

    async def _end(self, request: StoredRequest, answer: Answer) -> None:
        if answer.error is not None:
            level = "WARN" if answer is CANCELLED else "ERROR"
            await asyncio.to_thread(self._store.log, request.id, answer.error, level=level)
        await asyncio.to_thread(self._store.finish, request.id, answer)
        finished = await asyncio.to_thread(self._store.get, request.id)
        assert finished is not None
        await self._finished(finished)

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

    async def _prune(self) -> None:
        while True:
            before = time.time() - self._settings.keep_days * SECONDS_OF_A_DAY
            await asyncio.to_thread(self._store.forget, finished_before=before)
            await asyncio.sleep(SECONDS_BETWEEN_PRUNING)


class _Listener:
    """Puts down what an executor tells of a request."""

    def __init__(self, store: Store, unfinished: _Unfinished) -> None:
        self._store, self._unfinished = store, unfinished
        self._message, self._last = "", 0.0

    async def started(self) -> None:
        await asyncio.to_thread(self._store.start, self._unfinished.request.id)
        _wake(self._unfinished)

    async def says(self, message: str) -> None:
        now, is_same_work = time.monotonic(), _work(message) == _work(self._message)
        is_soon = now - self._last < SECONDS_BETWEEN_LOG_LINES
        if message == self._message or (is_same_work and is_soon):
            return
        self._message, self._last = message, now
        await asyncio.to_thread(self._store.log, self._unfinished.request.id, message)
        _wake(self._unfinished)


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
