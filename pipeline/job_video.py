"""The video that a job reads, and the one that it writes."""

from __future__ import annotations

from .request import Request
from .restore.video import is_restored
from .video import FORMATS, AudioSpan, VideoReader, VideoWriter


def open_reader(request: Request) -> VideoReader:
    """Return a reader of the frames that a request selects, at its size."""
    return VideoReader(
        request.input,
        selection=request.selection,
        width=request.width,
        height=request.height,
        fit=request.fit,
    )


def open_writer(request: Request, reader: VideoReader) -> VideoWriter:
    """Return a writer of a request's output, with the sound of what `reader` reads."""
    width, height = output_size(request, reader)
    return VideoWriter(
        request.output,
        width=width,
        height=height,
        frame_rate=reader.info.frame_rate if is_restored(request, reader) else reader.frame_rate,
        format=FORMATS[request.format].name,
        crf=request.crf,
        audio=_sound(reader) if request.audio else None,
        pingpong=request.pingpong,
        loop_count=request.loop_count,
        hardware=request.hardware_encoder,
        metadata=request.metadata,
        overwrite=request.overwrite,
    )


def output_size(request: Request, reader: VideoReader) -> tuple[int, int]:
    """Return width and height of the output in pixels, multiples of 8."""
    return refined_size(reader.width, reader.height, request.refine)


def refined_size(width: int, height: int, times: float) -> tuple[int, int]:
    """Return the size of enlarged frames in pixels, rounded to multiples of 8.

    >>> refined_size(512, 360, 1.5)
    (768, 544)
    """
    return round(width * times / 8) * 8, round(height * times / 8) * 8


def _sound(reader: VideoReader) -> AudioSpan | None:
    start, duration = reader.time_span
    if not reader.info.has_audio:
        return None
    return AudioSpan(reader.info.path, start_seconds=start, duration_seconds=duration)
