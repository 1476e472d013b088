"""Detection of a full disk, and the error that reports it."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..wire.problems import STORAGE_FULL, RequestRefused

_FULL = (errno.ENOSPC, errno.EDQUOT)
# The pipeline's sentence, as its error arrives through ComfyUI or another process as text.
_SAID = "the disk is full; free some space or choose another folder"


class StorageFull(RequestRefused):
    """The disk, or the share that the settings allow, is full."""

    def __init__(self) -> None:
        """Create the error with its 507 answer."""
        super().__init__(STORAGE_FULL)


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, comes from a full disk."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, StorageFull) or getattr(error, "errno", None) in _FULL:
            return True
        if isinstance(error, sqlite3.OperationalError):
            return True
        if _SAID in str(error) and not isinstance(error, RequestRefused):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def full_disk_refused() -> Iterator[None]:
    """Replace the OSError of a full disk by StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull from error
        raise


def has_room(folders: Iterable[Path], wanted: int) -> bool:
    """Return whether each folder's disk has `wanted` free bytes; unreadable ones count as free."""
    for folder in folders:
        try:
            if shutil.disk_usage(folder).free < wanted:
                return False
        except OSError:
            continue
    return True
