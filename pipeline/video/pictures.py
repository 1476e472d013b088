"""Folders of pictures, and animated WebP, which ffmpeg cannot read.

Pictures are read with imageio. An animated WebP is read with Pillow: imageio refuses the whole file
where its EXIF data are damaged. Both are then processed like decoded video frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import imageio.v3 as iio
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import AnimateDiffV2VError
from .container import check_file, check_picture_size
from .info import Timing, VideoInfo, timing_from_times
from .orientation import EXIF_ORIENTATIONS, Orientation
from .suffixes import PICTURE_SUFFIXES

# Pillow's modes of greyscale pictures with more than 8 bits.
DEEP_MODES = {"I", "I;16", "I;16L", "I;16B", "I;16N", "F"}
# Pictures have no frame rate; AnimateDiff was trained on 8 frames per second.
FOLDER_FRAME_RATE = Fraction(8)
# AttributeError comes from a missing palette.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    AttributeError,
    Image.DecompressionBombError,
)

Mode = Literal["RGB", "RGBA"]
Pixels = NDArray[np.uint8]


def is_pictures(path: Path) -> bool:
    """Return whether a path is read by this module rather than by ffmpeg."""
    if path.is_dir():
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"WEBP"


def probe_pictures(path: Path) -> VideoInfo:
    """Return the properties of a folder of pictures or an animated WebP."""
    if path.is_dir():
        files = picture_files(path)
        with _opened(files[0]) as file:
            known = file.metadata(index=0)
            alpha = _has_alpha(known["mode"], known)
        height, width = read_picture(files[0]).shape[:2]
        for each in files[1:]:
            # Check every picture now, instead of failing after hours.
            with _opened(each):
                pass
        timing = Timing.constant(frame_rate=FOLDER_FRAME_RATE, frame_count=len(files))
        return _info(path, "folder", size=(width, height), alpha=alpha, timing=timing)
    check_file(path)
    with _animation(path) as image:
        starts, last = _start_times(image)
        timing = timing_from_times(starts, rates=(), last_frame=last, tick=Fraction(1, 1000))
        alpha = _has_alpha(image.mode, image.info)
        return _info(path, "webp", size=image.size, alpha=alpha, timing=timing)


def at_rate(info: VideoInfo, frame_rate: Fraction) -> VideoInfo:
    """Return the properties of a folder of pictures with another frame rate."""
    timing = Timing.constant(frame_rate=frame_rate, frame_count=info.frame_count or 1)
    return replace(
        info,
        frame_rate=frame_rate,
        duration_seconds=float(timing.duration),
        last_frame_seconds=timing.last_frame,
    )


def picture_files(folder: Path) -> list[Path]:
    """List a folder's pictures, 2.png before 10.png; raise AnimateDiffV2VError without any."""
    # macOS adds a `._1.png` to each 1.png, and folders may have any name.
    files = [
        each
        for each in folder.iterdir()
        if each.suffix.lower() in PICTURE_SUFFIXES
        and not each.name.startswith(".")
        and not each.is_dir()
    ]
    if not files:
        raise AnimateDiffV2VError(
            f"The folder {folder} holds no picture; give one with"
            f" {', '.join(sorted(PICTURE_SUFFIXES))} files, or a video file."
        )
    return sorted(files, key=_natural_order)


def _natural_order(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


class PictureSource:
    """Reads the pictures of a folder or of an animated WebP in order."""

    def __init__(self, info: VideoInfo) -> None:
        """Prepare to read the pictures that `info` describes."""
        self.info = info

    def close(self) -> None:
        """Do nothing: no file is open between two pictures."""

    def frames(self, *, from_seconds: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """Yield (seconds since the first picture, frame), from at or before `from_seconds`."""
        pixels = "rgba" if self.info.has_alpha else "rgb24"
        for seconds, array in self._arrays(from_seconds):
            yield seconds, av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=pixels)

    def _arrays(self, from_seconds: Fraction) -> Iterator[tuple[Fraction, Pixels]]:
        mode: Mode = "RGBA" if self.info.has_alpha else "RGB"
        path = self.info.path
        if path.is_dir():
            rate = self.info.frame_rate
            first = max(0, int(from_seconds * rate) - 1)
            for index, file in enumerate(picture_files(path)[first:], start=first):
                yield index / rate, read_picture(file, mode)
            return
        with _animation(path) as image:
            seconds = Fraction(0)
            for index in range(_frame_count(image)):
                image.seek(index)
                image.load()
                yield seconds, np.asarray(image.convert(mode))
                seconds += _duration(image)


def read_picture(path: Path, mode: Mode = "RGB") -> Pixels:
    """Read one picture upright, as uint8 [height, width, 3], or 4 with alpha.

    Raises AnimateDiffV2VError when it cannot be read.
    """
    with _opened(path) as file:
        known = file.metadata(index=0, exclude_applied=False)
        if known["mode"] in DEEP_MODES:
            pixels = _in_colour(_in_8_bits(file.read(index=0), known), mode)
        else:
            pixels = file.read(index=0, mode=mode)
    # imageio's own `rotate` mirrors the colours in place of the columns of a grey picture.
    return EXIF_ORIENTATIONS.get(known.get("Orientation", 1), Orientation()).apply(pixels)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a picture with imageio; raise AnimateDiffV2VError for any kind of failure."""
    # As a file, since imageio takes some names for devices, addresses, or parts of archives.
    with _reworded(path), path.open("rb") as data, iio.imopen(data, "r", plugin="pillow") as file:
        width, height = file.metadata(index=0)["shape"]
        check_picture_size(width=width, height=height, path=path)
        yield file


@contextmanager
def _animation(path: Path) -> Iterator[Image.Image]:
    """Open an animated picture with Pillow; raise AnimateDiffV2VError for any kind of failure."""
    with _reworded(path), Image.open(path) as image:
        check_picture_size(width=image.width, height=image.height, path=path)
        yield image


@contextmanager
def _reworded(path: Path) -> Iterator[None]:
    """Turn whatever Pillow and imageio raise for a damaged picture into one sentence."""
    try:
        yield
    except _DAMAGE as error:
        reason = "its format is unknown" if "can not handle" in str(error) else error
        raise AnimateDiffV2VError(
            f"{path} cannot be read as a picture ({reason}); it is cut off, damaged, or something"
            " else under a picture's name."
        ) from error


def _in_8_bits(picture: NDArray[Any], known: Mapping[str, Any]) -> Pixels:
    """Scale a greyscale picture of more than 8 bits to 0..255; Pillow would clip it.

    Floats are assumed to be in 0..1, or in 0..255 or 0..65535 if they are larger; 32-bit integers
    in 0..65535, or in their full range if they are larger.
    known: the picture's metadata.
    """
    values = np.nan_to_num(picture.astype(np.float64))
    possible = {"F": (1, 255, 65535), "I": (65535, 2**31 - 1)}.get(known["mode"])
    possible = possible or (2 ** _stored_bits(known) - 1,)
    brightest = values.max(initial=0)
    full = next((each for each in possible if brightest <= each), possible[-1])
    return np.rint(np.clip(values * (255 / full), 0, 255)).astype(np.uint8)


def _in_colour(grey: Pixels, mode: Mode) -> Pixels:
    opaque = [np.full_like(grey, 255)] if mode == "RGBA" else []
    return np.stack([grey, grey, grey, *opaque], axis=-1)


def _stored_bits(known: Mapping[str, Any]) -> int:
    """Return the bits of a grey value in the file: 16, or 12 in some TIFFs."""
    bits = known.get("BitsPerSample", 16)
    return int(bits[0] if isinstance(bits, tuple) else bits)


def _has_alpha(mode: str, known: Mapping[Any, Any]) -> bool:
    return mode in {"RGBA", "LA", "PA", "RGBa"} or "transparency" in known


def _frame_count(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _duration(image: Image.Image) -> Fraction:
    milliseconds = int(image.info.get("duration") or 0)
    # Browsers show a frame without duration for a tenth of a second.
    return Fraction(milliseconds or 100, 1000)


def _start_times(image: Image.Image) -> tuple[list[Fraction], Fraction]:
    starts, seconds, duration = [], Fraction(0), Fraction(1, 10)
    for index in range(_frame_count(image)):
        image.seek(index)
        image.load()
        starts.append(seconds)
        duration = _duration(image)
        seconds += duration
    return starts, duration


def _info(
    path: Path, container: str, *, size: tuple[int, int], alpha: bool, timing: Timing
) -> VideoInfo:
    return VideoInfo(
        path=path,
        container=container,
        codec="webp" if container == "webp" else "pictures",
        pixel_format="rgba" if alpha else "rgb24",
        width=size[0],
        height=size[1],
        stored_width=size[0],
        stored_height=size[1],
        pixel_aspect=Fraction(1),
        orientation=Orientation(),
        frame_rate=timing.frame_rate,
        variable_frame_rate=timing.variable,
        frame_count=timing.frame_count,
        duration_seconds=float(timing.duration),
        start_seconds=Fraction(0),
        last_frame_seconds=timing.last_frame,
        has_time_stamps=True,
        has_audio=False,
        has_alpha=alpha,
        colour_transfer=0,
    )
