"""A clock for deadlines: seconds since the epoch that never jump."""

from __future__ import annotations

import time


class SteadyClock:
    """Starts at the wall clock's time and continues with the monotonic clock.

    Deadlines and ages are measured by it, so that setting the wall clock, forwards or back, does
    not end or prolong anything.
    """

    def __init__(self, *, at_least: float = 0.0) -> None:
        """Start now, or at `at_least`, the latest time stored by an earlier process, if later."""
        self._offset = max(time.time(), at_least) - time.monotonic()

    def __call__(self) -> float:
        """Return the time, seconds since the epoch."""
        return self._offset + time.monotonic()
