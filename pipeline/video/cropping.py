"""Cropping that a container prescribes (`clap`, Matroska's crop)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from .container import CONTAINERS, LARGEST_PICTURE_PIXELS, PROTOCOLS
from .encoder import ffmpeg_executable, quiet_process_options
from .geometry import NO_CROPPING, Cropping

# Other containers have no cropping.
CROPPED_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
_STREAM = re.compile(r"^\s*Stream #0:(\d+)")
_CROPPING = re.compile(r"^\s*Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)")
_LONGEST_SECONDS = 30


def container_cropping(path: Path, *, container: str, index: int) -> Cropping:
    """Ask ffmpeg for the cropping, since PyAV does not expose it; ffmpeg before 7.1 has none.

    Args:
        path: the file.
        container: ffmpeg's name of the container format.
        index: the track's stream index.
    """
    if container not in CROPPED_CONTAINERS:
        return NO_CROPPING
    safe = ["-format_whitelist", CONTAINERS, "-protocol_whitelist", PROTOCOLS]
    safe += ["-max_pixels", str(LARGEST_PICTURE_PIXELS)]
    try:
        done = subprocess.run(
            [ffmpeg_executable(), "-hide_banner", "-nostdin", *safe, "-i", f"file:{path}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_LONGEST_SECONDS,
            check=False,
            **quiet_process_options(),
        )
    except subprocess.TimeoutExpired:
        return NO_CROPPING
    stream = None
    for line in done.stderr.decode(errors="replace").splitlines():
        if found := _STREAM.match(line):
            stream = int(found[1])
        # ffmpeg's order: left, right, top, bottom.
        elif stream == index and (found := _CROPPING.match(line)):
            left, right, top, bottom = (int(each) for each in found.groups())
            return left, top, right, bottom
    return NO_CROPPING
