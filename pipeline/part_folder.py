"""Hidden folders for unfinished files, and the removal of those that killed processes left.

Such a folder contains a marker that names its owner's machine, and that is locked until the owner
ends; the operating system releases the lock however it ends. A folder is only removed if its marker
names this machine and is not locked: folders of running jobs, of other machines and of other
programs stay.
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
    """A hidden folder beside a file that is being written.

    It is removed by `remove`, with the object, or at the end of the program.

    Attributes:
        path: The folder.
    """

    def __init__(self, target: Path) -> None:
        """Create a folder beside `target`, after removing those that killed processes left there.

        Raises:
            OSError: the folder of `target` is not writable, or its disk is full.
        """
        remove_abandoned(target.parent)
        prefix = f".{_beginning(target.stem)}."
        self.path = Path(tempfile.mkdtemp(prefix=prefix, suffix=SUFFIX, dir=target.parent))
        try:
            marker = _marked(self.path / _MARKER)
        except OSError:
            shutil.rmtree(self.path, ignore_errors=True)
            raise
        # Runs even if `remove` is never called before the program ends.
        self._finalizer = weakref.finalize(self, _remove, self.path, marker)

    def remove(self) -> None:
        """Remove the folder and its contents."""
        self._finalizer()


def remove_abandoned(folder: Path) -> None:
    """Remove folders for unfinished files whose processes on this machine have ended."""
    with suppress(OSError):  # the writer reports a folder that cannot be listed
        for path in folder.glob(f".*{SUFFIX}"):
            _remove_if_abandoned(path)


def check_name(path: Path) -> None:
    """Raise AnimateDiffV2VError if a file's name is longer than file systems allow."""
    longest = 255
    length = len(os.fsencode(path.name))
    if length > longest:
        raise AnimateDiffV2VError(
            f"The name {path.name[:40]}... has {length} bytes, and file systems take up to "
            f"{longest}: choose a shorter one."
        )


def _beginning(name: str) -> str:
    """Return the beginning of a name, so that it fits into 255 bytes with what is added."""
    return os.fsencode(name)[:160].decode(errors="ignore")[:40]


def _marked(path: Path) -> BinaryIO | None:
    """Write and lock a marker; return None, leaving none, on file systems without locks."""
    marker = path.open("w+b")
    try:
        lock_file(marker)
    except OSError:
        marker.close()
        path.unlink()
        return None
    # Written under the lock: a marker that can be read has been locked.
    try:
        marker.write(json.dumps({"made_by": _MAKER, "machine": _machine()}).encode())
        marker.flush()
    except OSError:
        with suppress(OSError):  # closing flushes again, which fails again
            marker.close()
        raise
    return marker


def _remove_if_abandoned(path: Path) -> None:
    with suppress(OSError):
        if path.is_symlink() or (path / _MARKER).stat().st_size > _LARGEST_MARKER_BYTES:
            return
        with (path / _MARKER).open("r+b") as marker:
            lock_file(marker)
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
    """Return identifiers of this machine: its name with its network card, and its current boot.

    Containers on one machine have different names but the same boot; its kernel keeps their locks.
    """
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    return {"name": f"{platform.node()} {uuid.getnode():x}", "boot": boot}


def lock_file(file: BinaryIO) -> None:
    """Lock a file for this process until it is closed.

    Raises:
        OSError: another process has locked it.
    """
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
