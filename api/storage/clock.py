"""A clock for deadlines: seconds since the epoch that never jump."""

from __future__ import annotations

import time


class SteadyClock:
    """Begins at the wall clock's time and goes on with the monotonic clock.

    What is due, expires or has grown old is measured by it, so that a wall clock that somebody
    sets, by a day either way, neither ends nor prolongs anything.
    """

    def __init__(self, *, at_least: float = 0.0) -> None:
        """Begin now; never before `at_least`, the latest time that an earlier process noted."""
        self._offset = max(time.time(), at_least) - time.monotonic()

    def __call__(self) -> float:
        """Return the time, seconds since the epoch."""
        return self._offset + time.monotonic()
