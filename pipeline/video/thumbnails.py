"""Thumbnails of some kept frames, found by seeking."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .conversion import FrameConverter
from .pictures import PictureSource
from .reader import VideoReader
from .sources import FileSource, JoinedSource, open_source

# Up to this distance, decoding is usually faster than seeking to a key frame.
SEEK_BEYOND_SECONDS = 5
WIDEST = 4


def thumbnails(
    reader: VideoReader, *, height: int = 64, most: int = 8
) -> Iterator[tuple[Fraction, NDArray[np.uint8]]]:
    """Yield (seconds of the video, uint8 [height, width, 3]) of some kept frames.

    They are spread evenly over the selection, including the first one. If only decoding can tell
    how many frames are kept, they are the first ones.

    Args:
        reader: the selection; it is not iterated.
        height: in pixels; the width follows from the frames' aspect ratio, but is at most four
            times as much.
        most: the maximum number.

    Raises:
        AnimateDiffV2VError: when the video cannot be opened.
    """
    info, selection = reader.info, reader.selection
    converter = FrameConverter(
        size=(_width(reader, height), height),
        fit=reader.fit,
        orientation=info.orientation,
        cropping=info.cropping,
        pixel_aspect=info.pixel_aspect,
        with_alpha=info.has_alpha,
        colour_transfer=info.colour_transfer,
    )
    start = selection.first_seconds(info.frame_rate)
    times = [start + index / reader.frame_rate for index in _spread(reader, most)]
    source = open_source(info)
    try:
        for seconds, frame in _nearest(source, times):
            yield seconds, np.ascontiguousarray(converter.convert(frame)[..., :3])
    finally:
        source.close()


def _width(reader: VideoReader, height: int) -> int:
    return min(WIDEST * height, max(1, round(height * reader.width / reader.height)))


def _spread(reader: VideoReader, most: int) -> list[int]:
    """Return at most `most` indices of kept frames, evenly spread."""
    count = reader.expected_frame_count
    if count is None:
        return list(range(min(most, reader.selection.frame_load_cap or most)))
    shown = min(most, count)
    return [index * count // shown for index in range(shown)]


def _nearest(
    source: FileSource | JoinedSource | PictureSource, times: list[Fraction]
) -> Iterator[tuple[Fraction, Any]]:
    """Yield each time with the frame that is nearest to it; of two, the earlier one.

    This is the same choice as in selection.nearest_on_grid. If the video ends early, its last
    frame is used.
    """
    pairs: Iterator[tuple[tuple[Any, Any], tuple[Any, Any]]] = iter(())
    held: tuple[Any, Any] | None = None
    following: tuple[Any, Any] | None = None
    for time in times:
        if held is None or time - held[0] > SEEK_BEYOND_SECONDS:
            pairs = pairwise(chain(source.frames(from_seconds=time), [(float("inf"), None)]))
            held, following = next(pairs, (None, None))
        if held is None:
            return
        while following is not None and (held[0] + following[0]) / 2 < time:
            held, following = next(pairs)
        yield time, held[1]
