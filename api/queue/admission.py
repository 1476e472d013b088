"""Who may bring its files in: a few requests ahead of what runs, in the queue's order."""

from __future__ import annotations

import asyncio
import bisect
from dataclasses import dataclass, field

from .turns import Place


@dataclass(order=True)
class _Turn:
    place: Place
    request_id: str = field(compare=False)
    let_in: asyncio.Future[None] = field(compare=False)


class Admission:
    """Holds requests back until few enough are ahead of them, from `enter` to `leave`.

    A queue of a thousand videos is not on the disk all at once, and one that comes late with a
    higher priority still goes first. All methods belong to the event loop's thread.

    Those that a restart interrupted were first before, and are again: nobody else is let in until
    they have left.
    """

    def __init__(self, places: int) -> None:
        """Let a request in when fewer than `places` of those inside come before it."""
        self._places = places
        self._waiting: list[_Turn] = []
        self._inside: dict[str, Place] = {}
        self._interrupted: set[str] = set()

    def enter_first(self, request_id: str, place: Place) -> None:
        """Let in a request that a restart interrupted; its `enter` will not wait."""
        self._inside[request_id] = place
        self._interrupted.add(request_id)

    async def enter(self, request_id: str, place: Place) -> None:
        """Wait for the turn of a request with this place in the queue."""
        if request_id in self._inside:
            return
        turn = _Turn(place, request_id, asyncio.get_running_loop().create_future())
        bisect.insort(self._waiting, turn)
        self._let_in()
        try:
            await turn.let_in
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            self.leave(request_id)
            raise

    def leave(self, request_id: str) -> None:
        """Make room: the request runs, or has ended. Again is the same as once."""
        self._interrupted.discard(request_id)
        if self._inside.pop(request_id, None) is not None:
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and not self._interrupted:
            first = self._waiting[0]
            ahead = sum(each < first.place for each in self._inside.values())
            if ahead >= self._places:
                return
            del self._waiting[0]
            if not first.let_in.done():  # else its task was cancelled a moment ago
                self._inside[first.request_id] = first.place
                first.let_in.set_result(None)
