"""A disk that is full, or as full as the owner lets the service fill it."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..wire.problems import STORAGE_FULL, RequestRefused

_FULL = (errno.ENOSPC, errno.EDQUOT)
# What the pipeline says, also where its error comes through ComfyUI or another process as text.
_SAID = "the disk is full; free some space or choose another folder"


class StorageFull(RequestRefused):
    """Nothing more can be written for now."""

    def __init__(self) -> None:
        """Answer as a server that has no room."""
        super().__init__(STORAGE_FULL)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error comes from a full disk, at whatever depth."""
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
    """Turn the error of a full disk into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull from error
        raise


def has_room(folders: Iterable[Path], wanted: int) -> bool:
    """Whether each folder's disk has so many bytes left; one that cannot be asked counts as one."""
    for folder in folders:
        try:
            if shutil.disk_usage(folder).free < wanted:
                return False
        except OSError:
            continue
    return True
