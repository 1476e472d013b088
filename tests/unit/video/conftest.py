"""Clips made on the spot: every frame carries its number, every second its beep."""

import subprocess
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import pytest

BITS = 10
CELL = 16


def numbered_frame(number, *, width=192, height=64):
    """Draw a frame's number as a row of black and white cells across its middle."""
    frame = np.full((height, width, 3), 96, dtype=np.uint8)
    left, top = (width - BITS * CELL) // 2, (height - CELL) // 2
    for bit in range(BITS):
        value = 255 if number >> bit & 1 else 0
        frame[top : top + CELL, left + bit * CELL : left + (bit + 1) * CELL] = value
    return frame


def read_number(frame):
    """Read the number back from a frame of numbered_frame's size."""
    height, width, _ = frame.shape
    left, top = (width - BITS * CELL) // 2, (height - CELL) // 2
    number = 0
    for bit in range(BITS):
        middle = left + bit * CELL + CELL // 2
        number |= int(frame[top + 4 : top + CELL - 4, middle - 3 : middle + 3].mean() > 128) << bit
    return number


def ffmpeg(*arguments, data=None):
    """Run ffmpeg; fail the test with what it said."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-v", "error", "-y", *arguments]
    done = subprocess.run(
        [str(each) for each in command], input=data, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


def numbered_clip(path, *, frames, rate=Fraction(25), width=192, height=64, output=(), sound=()):
    """Encode numbered frames with ffmpeg; `output` and `sound` are ffmpeg options."""
    pictures = b"".join(
        numbered_frame(i, width=width, height=height).tobytes() for i in range(frames)
    )
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    source += ["-framerate", str(Fraction(rate)), "-i", "-"]
    output = output or ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10")
    ffmpeg(*source, *sound, "-pix_fmt", "yuv420p", *output, path, data=pictures)
    return Path(path)


def description(path):
    """What ffmpeg says of a file's video stream, in one line."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    return next(line for line in said.splitlines() if "Video:" in line)


@pytest.fixture(scope="session")
def clips():
    """The functions above, under one name."""
    return SimpleNamespace(
        description=description,
        ffmpeg=ffmpeg,
        numbered_clip=numbered_clip,
        numbered_frame=numbered_frame,
        read_number=read_number,
    )
