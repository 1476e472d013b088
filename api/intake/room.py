"""A limit on the bytes in one folder, including files that are still being downloaded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ..net.fetching import InputRefused
from ..storage.data_folder import file_size, own_files
from ..storage.disk import StorageFull


class Room:
    """The size limit of one folder. All methods run in the event loop's thread.

    A file that is being written counts twice, with its size so far and with the bytes granted for
    it, so the limit is never exceeded.
    """

    def __init__(self, folder: Path, names: re.Pattern[str], *, most_bytes: int) -> None:
        """Count the files of `folder` whose full names match `names`."""
        self._folder, self._names, self.most_bytes = folder, names, most_bytes
        self._coming = 0
        self._counting = asyncio.Lock()

    @asynccontextmanager
    async def granted(self, wanted: int, *, least: int = 1) -> AsyncIterator[int]:
        """Reserve up to `wanted` bytes for a download, and yield how many were reserved.

        Raises StorageFull when fewer than `least` bytes are free, or when the file does not fit
        into the reserved bytes, although it may fit into `wanted`.
        """
        async with self._counting:
            used = await asyncio.to_thread(self._used)
            most = min(wanted, self.most_bytes - used - self._coming)
            if most < least:
                raise StorageFull
            self._coming += most
        try:
            yield most
        except InputRefused as error:
            if error.type == "file_too_large" and most < wanted:
                raise StorageFull from error
            raise
        finally:
            self._coming -= most

    def _used(self) -> int:
        return sum(map(file_size, own_files(self._folder, self._names)))
