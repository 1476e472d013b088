"""Storage on disk for frames that are needed more than once."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class FrameSpool:
    """A file of raw frames of one size, written in order and read in any order."""

    def __init__(self, path: Path, *, frame_bytes: int) -> None:
        """Create the file."""
        self.path = path
        self._frame_bytes = frame_bytes
        self._file = path.open("w+b")

    def write(self, frame: Any) -> None:
        """Append one frame's bytes; raise OSError when the disk is full."""
        self._file.write(frame)

    def flush(self) -> None:
        """Flush everything to the file, for another process to read."""
        self._file.flush()

    def read(self, index: int) -> bytes:
        """Return the bytes of a frame."""
        self._file.seek(index * self._frame_bytes)
        return self._file.read(self._frame_bytes)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
