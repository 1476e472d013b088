"""Keeps a second process off a folder."""

from __future__ import annotations

import sqlite3
from pathlib import Path

LOCK = "in_use.sqlite"


class FolderRefused(ValueError):
    """A folder is not to be used; the message is for its owner.

    An error of its own, because the command for keys shall not wait for PyTorch.
    """


class FolderLock:
    """Held by the process that answers from a folder: two queues would run the same requests."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; raises FolderRefused while another process has it."""
        # The operating system lets go of SQLite's locks when a process ends, however it ends.
        self._connection = sqlite3.connect(
            folder / LOCK, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise FolderRefused(
                f"Another process answers the API from {folder}: stop it, or give this one a "
                "folder of its own."
            ) from error

    def release(self) -> None:
        """Let the next process have it."""
        self._connection.close()
