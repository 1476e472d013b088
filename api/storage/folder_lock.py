"""The lock that lets only one process use a data folder."""

from __future__ import annotations

import sqlite3
from pathlib import Path

LOCK = "in_use.sqlite"


class FolderRefused(ValueError):
    """A folder cannot be used; the message is for its owner.

    Not an AnimateDiffV2VError, so that the command for keys need not import PyTorch.
    """


class FolderLock:
    """Held by the process that serves a folder: two queues would run the same requests."""

    def __init__(self, folder: Path) -> None:
        """Lock the folder; raises FolderRefused while another process holds the lock."""
        # The operating system releases SQLite's locks when a process ends, even if killed.
        self._connection = sqlite3.connect(
            folder / LOCK, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise FolderRefused(
                f"Another process serves the API from {folder}: stop it, or use another folder."
            ) from error

    def release(self) -> None:
        """Release the lock."""
        self._connection.close()
