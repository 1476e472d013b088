"""A limit on the calls of a key."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class RateLimit:
    """A token bucket for each key: `per_minute` calls in a minute, and as many in one burst."""

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)

    def allows(self, key_id: str) -> bool:
        """Count a call and return whether it is within the limit."""
        now = self.clock()
        left, then = self._left.get(key_id, (float(self.per_minute), now))
        left = min(self.per_minute, left + (now - then) * self.per_minute / 60)
        allowed = left >= 1
        self._left[key_id] = (left - 1 if allowed else left, now)
        return allowed
