"""The order of waiting requests: keys take turns, and low priority comes last."""

from __future__ import annotations

from collections.abc import Iterator

from .records import StoredRequest

Position = tuple[bool, int, int]
"""(is_low_priority, round, sequence number); the lowest comes first."""


class Turns:
    """The fixed positions of unfinished requests.

    The first request of a key joins the current round, and each further one the next round. So a
    key's only request waits for at most one request of each other key, however long the queue is.
    This is start-time fair queueing (Goyal, Vin and Cheng 1996) with each request counted as one.

    For example, when key A submits 1, 2, 3 and key B then submits 4, the order is 1 4 2 3.
    """

    def __init__(self) -> None:
        """Start with the first round."""
        self._positions: dict[str, tuple[str, Position]] = {}
        self._rounds = {False: 0, True: 0}

    def add(self, request: StoredRequest) -> None:
        """Assign a position to an unfinished request; call in the order of submission."""
        low = request.is_low_priority
        others = (position[1] for position in self._of(request.owner, low))
        position = (low, max(others, default=self._rounds[low]) + 1, request.sequence)
        self._positions[request.id] = (request.owner, position)

    def begun(self, request_id: str) -> None:
        """Advance to the round of a request that has started to run."""
        low, number, _ = self.position(request_id)
        self._rounds[low] = max(self._rounds[low], number)

    def remove(self, request_id: str) -> None:
        """Forget a request that is done."""
        self._positions.pop(request_id, None)

    def position(self, request_id: str) -> Position:
        """Return the position of a request that was added and is not done."""
        return self._positions[request_id][1]

    def _of(self, owner: str, is_low_priority: bool) -> Iterator[Position]:
        for name, position in self._positions.values():
            if name == owner and position[0] == is_low_priority:
                yield position
