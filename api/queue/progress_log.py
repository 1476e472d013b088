"""The messages of a running job, with fewer of them in its request's log."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

# Between messages that begin with the same word; others are always passed on.
SECONDS_BETWEEN_MESSAGES = 0.5


class ProgressLog:
    """A Listener that passes on the start of a job and its messages, twice a second at most."""

    def __init__(
        self,
        *,
        on_start: Callable[[], Awaitable[None]],
        on_message: Callable[[str], Awaitable[None]],
    ) -> None:
        """Pass the start and the messages on to these functions."""
        self._on_start, self._on_message = on_start, on_message
        self._message, self._last = "", 0.0

    async def started(self) -> None:
        """Pass on that the job runs."""
        await self._on_start()

    async def on_message(self, message: str) -> None:
        """Pass a message on unless it repeats the last one or follows it too soon."""
        now, is_same_work = time.monotonic(), _work(message) == _work(self._message)
        is_soon = now - self._last < SECONDS_BETWEEN_MESSAGES
        if message == self._message or (is_same_work and is_soon):
            return
        self._message, self._last = message, now
        await self._on_message(message)


def _work(message: str) -> str:
    """Return the first word, such as "sampling" for "sampling step 1 of 2"."""
    return message.split(" ", maxsplit=1)[0]
