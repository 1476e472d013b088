"""Who comes first: keys in turns, each with its oldest request, and low priority behind all."""

from __future__ import annotations

from collections.abc import Iterator

from .store import StoredRequest

Place = tuple[bool, int, int]
"""Whether it has low priority, its round, and when it came; the lowest comes first."""


class Turns:
    """Gives each request a place that it keeps.

    The first request of a key stands in the round that is under way, each further one a round
    later. So whoever comes with one request waits for one of each other key, however many those
    have. (Start-time fair queueing, Goyal, Vin and Cheng 1996, each request counted as one.)
    """

    def __init__(self) -> None:
        """Begin with the first round."""
        self._places: dict[str, tuple[str, Place]] = {}
        self._rounds = {False: 0, True: 0}

    def add(self, request: StoredRequest) -> None:
        """Give an unfinished request its place, in the order in which they came."""
        low = request.is_low_priority
        others = (place[1] for place in self._of(request.owner, low))
        place = (low, max(others, default=self._rounds[low]) + 1, request.sequence)
        self._places[request.id] = (request.owner, place)

    def begun(self, request_id: str) -> None:
        """Note that a request runs: its round is the one that is under way."""
        low, number, _ = self.place(request_id)
        self._rounds[low] = max(self._rounds[low], number)

    def remove(self, request_id: str) -> None:
        """Forget a request that is done."""
        self._places.pop(request_id, None)

    def place(self, request_id: str) -> Place:
        """Return the place of a request that was added and is not done."""
        return self._places[request_id][1]

    def _of(self, owner: str, is_low_priority: bool) -> Iterator[Place]:
        for name, place in self._places.values():
            if name == owner and place[0] == is_low_priority:
                yield place
