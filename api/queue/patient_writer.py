"""Writes that wait while the disk is full."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from ..storage.disk import StorageFull, is_disk_full
from ..wire.problems import RequestRefused
from .store import Store

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 15.0
_T = TypeVar("_T")


class PatientWriter:
    """Writes to the store and to files; logs once when the disk is full, once when it has room."""

    def __init__(self, store: Store) -> None:
        """Write to `store`."""
        self._store = store
        self._is_full = False

    async def write(self, write: Callable[[], Awaitable[_T]]) -> _T:
        """Call `write` until the disk has room for what it writes, and return its result."""
        for pause in pauses():
            try:
                written = await write()
            except (RequestRefused, sqlite3.OperationalError, OSError) as error:
                if not is_disk_full(error):
                    raise
                self.report_full(error)
                await asyncio.sleep(pause)
            else:
                if self._is_full:
                    self._is_full = False
                    logger.warning("There is room on the disk again.")
                return written
        raise AssertionError("pauses() never ends")

    async def log(self, request_id: str, message: str, *, level: str = "INFO") -> None:
        """Add a line to a request's log; drop it when the disk is full."""
        try:
            await asyncio.to_thread(self._store.log, request_id, message, level=level)
        except StorageFull as error:
            self.report_full(error)

    def report_full(self, error: BaseException) -> None:
        """Log that the disk is full, unless that was logged already."""
        if not self._is_full:
            self._is_full = True
            logger.error("The disk is full (%s); writing is tried again until it works.", error)


def pauses() -> Iterator[float]:
    """Yield the seconds between attempts: doubling from 0.5, 15 at most, without end."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
