"""Scene changes in a sequence of frames, found by ffmpeg's filter `scdet`."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..errors import AnimateDiffV2VError
from .command import RawPictures
from .encoder import ffmpeg_executable, quiet_process_options
from .selection import exact_rate

# Scenes are told apart by their colours, for which small pictures do.
SIDE_PIXELS = 64
# scdet's own default, of 100: the change in brightness that the frame before did not have.
_THRESHOLD = 10
_FILTER = f"scdet=threshold={_THRESHOLD},metadata=mode=print:key=lavfi.scd.time:file=-"
_FOUND = re.compile(rb"^frame:(\d+) ", re.MULTILINE)


def scene_starts(frames: Iterable[NDArray[np.uint8]]) -> tuple[int, list[int]]:
    """Return the number of frames, and the indices of those at which a new scene starts.

    Index 0 is not among them. Memory does not grow with the number of frames.

    Args:
        frames: uint8 [SIDE_PIXELS, SIDE_PIXELS, 3] each.

    Raises:
        AnimateDiffV2VError: ffmpeg is missing or fails.
    """
    form = RawPictures(width=SIDE_PIXELS, height=SIDE_PIXELS, channels=3, frame_rate=exact_rate(25))
    process = subprocess.Popen(
        [
            *(ffmpeg_executable(), "-hide_banner", "-v", "error", *form.arguments("pipe:0")),
            *("-vf", _FILTER, "-f", "null", "-"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        **quiet_process_options(),
    )
    assert process.stdin is not None and process.stdout is not None
    lines: list[bytes] = []
    # ffmpeg stops when nobody reads its output, and then takes no more pictures.
    listener = threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True)
    listener.start()
    count = 0
    try:
        with process.stdin as pictures:
            for frame in frames:
                pictures.write(np.ascontiguousarray(frame).data)
                count += 1
        code = process.wait()
    except OSError:
        code = process.wait()
    finally:
        process.kill()
        process.wait()
        listener.join()
        process.stdout.close()
    if code != 0:
        raise AnimateDiffV2VError(f"ffmpeg could not look for scene changes (code {code}).")
    return count, [int(index) for index in _FOUND.findall(b"".join(lines)) if int(index) > 0]
