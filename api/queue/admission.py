"""A limit on how many waiting requests have their files downloaded, in the queue's order."""

from __future__ import annotations

import asyncio
import bisect
from dataclasses import dataclass, field

from .turns import Position


@dataclass(order=True)
class _Waiting:
    position: Position
    request_id: str = field(compare=False)
    admitted: asyncio.Future[None] = field(compare=False)


class Admission:
    """Makes a request wait in `enter` while too many admitted requests are ahead of it.

    The files of a queue of a thousand videos are thus not all on the disk at once, and a request
    that arrives late with a higher priority is still admitted first. Requests that a restart
    interrupted keep all others out until they have left. All methods run in the event loop's
    thread.
    """

    def __init__(self, limit: int) -> None:
        """Admit a request when fewer than `limit` of those admitted come before it."""
        self._limit = limit
        self._waiting: list[_Waiting] = []
        self._admitted: dict[str, Position] = {}
        self._interrupted: set[str] = set()

    def enter_first(self, request_id: str, position: Position) -> None:
        """Admit a request that a restart interrupted; its `enter` returns at once."""
        self._admitted[request_id] = position
        self._interrupted.add(request_id)

    async def enter(self, request_id: str, position: Position) -> None:
        """Wait until a request with this position in the queue is admitted."""
        if request_id in self._admitted:
            return
        waiting = _Waiting(position, request_id, asyncio.get_running_loop().create_future())
        bisect.insort(self._waiting, waiting)
        self._admit()
        try:
            await waiting.admitted
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            self.leave(request_id)
            raise

    def leave(self, request_id: str) -> None:
        """Make room for others: the request runs, or has ended. May be called again."""
        self._interrupted.discard(request_id)
        if self._admitted.pop(request_id, None) is not None:
            self._admit()

    def _admit(self) -> None:
        while self._waiting and not self._interrupted:
            first = self._waiting[0]
            ahead = sum(each < first.position for each in self._admitted.values())
            if ahead >= self._limit:
                return
            del self._waiting[0]
            if not first.admitted.done():  # otherwise its task has just been cancelled
                self._admitted[first.request_id] = first.position
                first.admitted.set_result(None)
