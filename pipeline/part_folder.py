"""Hidden folders for unfinished files, and what becomes of those that a killed process left.

Such a folder holds a marker: which machine its owner runs on, and a lock that the operating system
takes back when the owner ends, however it ends. Only a folder whose marker names this machine and
whose lock is free is removed, so one of a running job is not, nor one that another machine or
another program made.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import uuid
import weakref
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from .errors import AnimateDiffV2VError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

SUFFIX = ".part"
_MARKER = "owner.json"
_MAKER = "animatediff-v2v"
_LARGEST_MARKER_BYTES = 1000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class PartFolder:
    """A hidden folder beside a file that is being made.

    path: the folder; it goes with `remove`, with the object, and with the program.
    """

    def __init__(self, target: Path) -> None:
        """Make a folder beside `target`, after removing what killed processes left there.

        Raises OSError when the folder of `target` may not be written to, or its disk is full.
        """
        remove_abandoned(target.parent)
        prefix = f".{_beginning(target.stem)}."
        self.path = Path(tempfile.mkdtemp(prefix=prefix, suffix=SUFFIX, dir=target.parent))
        try:
            marker = _marked(self.path / _MARKER)
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)
            raise
        # Also when nobody calls `remove`, or the program ends before.
        self._finalizer = weakref.finalize(self, _remove, self.path, marker)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        self._finalizer()


def remove_abandoned(folder: Path) -> None:
    """Remove the folders for unfinished files whose processes have ended on this machine."""
    with suppress(OSError):  # a folder that may not be listed: its writer says so
        for path in folder.glob(f".*{SUFFIX}"):
            _remove_if_abandoned(path)


def check_name(path: Path) -> None:
    """Raise AnimateDiffV2VError when a file's name is longer than file systems take."""
    longest = 255
    length = len(os.fsencode(path.name))
    if length > longest:
        raise AnimateDiffV2VError(
            f"The name {path.name[:40]}... has {length} bytes, and file systems take up to "
            f"{longest}: choose a shorter one."
        )


def _beginning(name: str) -> str:
    """Return what of a name fits into one of 255 bytes beside the rest."""
    return os.fsencode(name)[:160].decode(errors="ignore")[:40]


def _marked(path: Path) -> BinaryIO | None:
    """Write and lock a marker; None where this file system has no locks, and none is left."""
    marker = path.open("w+b")
    try:
        _lock(marker)
    except OSError:
        marker.close()
        path.unlink()
        return None
    # Written under the lock: a marker that can be read has been locked.
    try:
        marker.write(json.dumps({"made_by": _MAKER, "machine": _machine()}).encode())
        marker.flush()
    except OSError:
        with suppress(OSError):  # it cannot be flushed, and is closed all the same
            marker.close()
        raise
    return marker


def _remove_if_abandoned(path: Path) -> None:
    with suppress(OSError):
        if path.is_symlink() or (path / _MARKER).stat().st_size > _LARGEST_MARKER_BYTES:
            return
        with (path / _MARKER).open("r+b") as marker:
            _lock(marker)
            if not _is_of_this_machine(marker.read()):
                return
        shutil.rmtree(path)


def _is_of_this_machine(marker: bytes) -> bool:
    try:
        read = json.loads(marker)
        made_by, machine = read["made_by"], read["machine"]
        theirs, ours = (machine["name"], machine["boot"]), _machine()
    except (ValueError, KeyError, TypeError):
        return False
    same_boot = bool(ours["boot"]) and theirs[1] == ours["boot"]
    return bool(made_by == _MAKER and (same_boot or theirs[0] == ours["name"]))


@cache
def _machine() -> dict[str, str]:
    """Tell this machine from others: by its name and network card, and by its boot.

    Containers on one machine have names of their own and one boot; its kernel keeps their locks.
    """
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    return {"name": f"{platform.node()} {uuid.getnode():x}", "boot": boot}


def _lock(file: BinaryIO) -> None:
    """Lock a file for this process, until it is closed; raises OSError when another one has it."""
    if sys.platform == "win32":
        # A byte far behind the end: one that is locked cannot be read.
        file.seek(2**30)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove(path: Path, marker: BinaryIO | None) -> None:
    if marker is not None:
        marker.close()  # Windows removes no open file
    shutil.rmtree(path, ignore_errors=True)
