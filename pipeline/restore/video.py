"""Restored frames of a video file, at its frame rate or at the times of its frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from torch import Tensor

from ..progress import IsCancelled, stop_if
from ..request import Request
from ..video import VideoReader, VideoWriter
from ..video.every_frame import EveryFrameReader
from ..video.selection import nearest_on_grid
from .stream import restore_frames


def is_restored(request: Request, reader: VideoReader) -> bool:
    """Return whether frames are left out that the request wants back."""
    return request.restore_frames and reader.frame_rate < reader.info.frame_rate


def open_source(request: Request) -> EveryFrameReader:
    """Return a reader of all frames that a request's kept frames span, at their size."""
    return EveryFrameReader(
        request.input,
        selection=request.selection,
        width=request.width,
        height=request.height,
        fit=request.fit,
    )


def restored_video(
    source: EveryFrameReader,
    restyled: Iterable[Tensor],
    writer: VideoWriter,
    *,
    is_cancelled: IsCancelled,
) -> Iterator[Tensor]:
    """Yield the frames of a restored video: [1, height, width, 3].

    They come at the source's rate. If that varies, each frame of the source gives one, and its time
    goes to the writer; a format without time stamps gets the mean rate.

    Args:
        source: All frames.
        restyled: The frames that were made of the kept ones, in chunks [n, height, width, 3],
            float 0..1.
        writer: What the frames are written with.
        is_cancelled: Called before each frame; True raises Cancelled.
    """
    frames = restore_frames(source.frames(), (frame for chunk in restyled for frame in chunk))
    start, rate = Fraction(source.time_span[0]), source.info.frame_rate
    if source.info.variable_frame_rate and writer.format.has_time_stamps:
        for frame in frames:
            stop_if(is_cancelled)
            # The first frame is shown from the start of the time span, with the sound.
            writer.frame_times.append(frame.seconds - start if writer.frame_times else Fraction(0))
            yield frame.picture[None]
        return
    timed = ((frame.seconds, frame.picture) for frame in frames)
    for picture in nearest_on_grid(
        timed, rate=rate, source_rate=rate, start_seconds=start,
        last_frame_seconds=source.info.last_frame_seconds,
    ):  # fmt: skip
        stop_if(is_cancelled)
        yield picture[None]
