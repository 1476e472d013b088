"""The ffmpeg process that encodes, and the meaning of its error messages."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imageio_ffmpeg

from ..errors import AnimateDiffV2VError, DiskFull

_NO_SPACE = "no space left"
# Messages of ffmpeg -> what they mean for the user.
_REASONS = (
    (_NO_SPACE, "the disk is full; free some space or choose another folder"),
    ("permission denied", "the folder may not be written to; choose another one"),
    ("read-only file system", "the folder may not be written to; choose another one"),
    ("file too large", "the file system takes no file of that size; choose another folder"),
    (
        "unknown encoder",
        "this ffmpeg has not got the encoder; choose another format, or update imageio-ffmpeg",
    ),
    ("cannot allocate memory", "there is not enough memory; choose a smaller size"),
)


def ffmpeg_executable() -> str:
    """Return the path of imageio-ffmpeg's ffmpeg; raise AnimateDiffV2VError if it is missing."""
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise AnimateDiffV2VError(
            "No ffmpeg was found; install it with `pip install imageio-ffmpeg`, or name one in"
            " the environment variable IMAGEIO_FFMPEG_EXE."
        ) from error


def quiet_process_options() -> dict[str, Any]:
    """Return options for subprocess: no Ctrl-C for ffmpeg, and no console window."""
    if sys.platform == "win32":
        flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
        return {"creationflags": flags}
    return {"start_new_session": True}


class EncoderProcess:
    """One running ffmpeg that takes raw pictures through its standard input."""

    def __init__(self, arguments: Sequence[str], *, folder: Path, target: Path) -> None:
        """Start ffmpeg in `folder`; `target` is the file that error messages name."""
        self._target = target
        self._process = subprocess.Popen(
            [ffmpeg_executable(), "-hide_banner", "-y", "-v", "error", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=folder,
            **quiet_process_options(),
        )
        self._last_words: deque[str] = deque(maxlen=20)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for line in stream:
                self._last_words.append(line.decode(errors="replace").strip())

    def write(self, data: Any) -> None:
        """Write bytes to ffmpeg; raise AnimateDiffV2VError if it has stopped."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except OSError as error:
            raise self._failure() from error

    def finish(self) -> None:
        """Wait until ffmpeg completes the file; raise AnimateDiffV2VError if it fails."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError as error:
            raise self._failure() from error
        if self._process.wait() != 0:
            raise self._failure()
        self._listener.join()

    def kill(self) -> None:
        """Kill ffmpeg and wait until it has ended."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            # Data that is still buffered cannot be written to the dead process.
            return

    def _failure(self) -> AnimateDiffV2VError:
        self.kill()
        said = " ".join(self._last_words)
        for sign, reason in _REASONS:
            if sign in said.lower():
                kind = DiskFull if sign == _NO_SPACE else AnimateDiffV2VError
                return kind(f"{self._target} was not written: {reason}.")
        last = self._last_words[-1] if self._last_words else "it was killed"
        return AnimateDiffV2VError(
            f"{self._target} was not written: ffmpeg stopped with code"
            f" {self._process.returncode} ({last})."
        )
