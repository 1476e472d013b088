"""Who may bring its files in: a few requests ahead of what runs, in the queue's order."""

from __future__ import annotations

import asyncio
import bisect
from dataclasses import dataclass, field

from .store import StoredRequest

Order = tuple[bool, int]


def order(request: StoredRequest) -> Order:
    """Return the place of a request in the queue: low priority behind all others."""
    return request.is_low_priority, request.sequence


@dataclass(order=True)
class _Turn:
    order: Order
    request_id: str = field(compare=False)
    let_in: asyncio.Future[None] = field(compare=False)


class Admission:
    """Holds requests back until few enough are ahead of them, from `enter` to `leave`.

    A queue of a thousand videos is not on the disk all at once, and one that comes late with a
    higher priority still goes first. All methods belong to the event loop's thread.
    """

    def __init__(self, places: int) -> None:
        """Let a request in when fewer than `places` of those inside come before it."""
        self._places = places
        self._waiting: list[_Turn] = []
        self._inside: dict[str, Order] = {}

    async def enter(self, request: StoredRequest) -> None:
        """Wait for the request's turn."""
        turn = _Turn(order(request), request.id, asyncio.get_running_loop().create_future())
        bisect.insort(self._waiting, turn)
        self._let_in()
        try:
            await turn.let_in
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            self.leave(request.id)
            raise

    def leave(self, request_id: str) -> None:
        """Make room: the request runs, or has ended. Again is the same as once."""
        if self._inside.pop(request_id, None) is not None:
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            ahead = sum(each < first.order for each in self._inside.values())
            if ahead >= self._places:
                return
            del self._waiting[0]
            if not first.let_in.done():  # else its task was cancelled a moment ago
                self._inside[first.request_id] = first.order
                first.let_in.set_result(None)
