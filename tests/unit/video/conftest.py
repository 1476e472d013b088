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


PATCHES = [(200, 40, 40), (40, 180, 60), (50, 60, 210), (235, 235, 235), (110, 110, 110)]


def card(number):
    """Draw a 320x240 picture: its number in ten bits along the top, below it five colours."""
    picture = np.zeros((240, 320, 3), np.uint8)
    for bit in range(BITS):
        picture[:40, bit * 32 : (bit + 1) * 32] = 255 * (number >> (9 - bit) & 1)
    for index, colour in enumerate(PATCHES):
        picture[40:200, index * 64 : (index + 1) * 64] = colour
    picture[200:, :160], picture[200:, 160:] = (230, 140, 20), (20, 190, 200)
    return picture


def card_number(picture):
    """Read the number of a card of any size."""
    height, width = picture.shape[:2]
    row = picture[height // 24 : height // 8]
    cells = [
        row[:, round((bit + 0.3) * width / 10) : round((bit + 0.7) * width / 10)]
        for bit in range(BITS)
    ]
    return sum(int(cell.mean() > 128) << (9 - bit) for bit, cell in enumerate(cells))


def patch_error(picture):
    """How far the five colours of a card are from what was drawn, at most."""
    height, width = picture.shape[:2]
    seen = [picture[height // 2, width * (2 * index + 1) // 10] for index in range(5)]
    return np.abs(np.array(seen, int) - PATCHES).max()


def click_seconds(waveform, sample_rate):
    """When the clicks of a card clip are heard, in seconds, from float32 [channels, samples]."""
    loud = np.flatnonzero(np.abs(waveform).max(axis=0) > 0.1)
    first = np.diff(loud, prepend=-sample_rate) > sample_rate // 10
    return loud[first] / sample_rate


CARD_H264 = ("-c:v", "libx264", "-preset", "fast", "-crf", "8", "-g", "30")


def card_clip(path, output=(*CARD_H264, "-c:a", "aac"), *, frames=90):
    """Encode cards at 30 fps with a click of 1 kHz at 0.25 s and every half second from there."""
    seconds = np.arange(frames * 1600) / 48000
    clicks = np.where((seconds - 0.25) % 0.5 < 0.03, np.sin(2000 * np.pi * seconds) * 0.5, 0)
    clicks.astype("<f4").tofile(path.with_name("clicks.f32"))
    pictures = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "320x240", "-r", "30", "-i", "-"]
    sound = ["-f", "f32le", "-ar", "48000", "-ac", "1", "-i", path.with_name("clicks.f32")]
    data = b"".join(card(number).tobytes() for number in range(frames))
    ffmpeg(*pictures, *sound, "-pix_fmt", "yuv420p", *output, path, data=data)
    return path


def description(path):
    """What ffmpeg says of a file's video stream, in one line."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    return next(line for line in said.splitlines() if "Video:" in line)


@pytest.fixture(scope="session")
def clips():
    """The functions above, under one name."""
    return SimpleNamespace(
        CARD_H264=CARD_H264,
        PATCHES=PATCHES,
        card=card,
        card_clip=card_clip,
        card_number=card_number,
        click_seconds=click_seconds,
        description=description,
        ffmpeg=ffmpeg,
        numbered_clip=numbered_clip,
        numbered_frame=numbered_frame,
        patch_error=patch_error,
        read_number=read_number,
    )
