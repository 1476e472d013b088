"""Where pictures come from: decoded frames with the time at which each is shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from .container import demuxed, open_container, video_stream
from .info import VideoInfo
from .pictures import PictureSource, is_pictures
from .probe import alpha_decoder

logger = logging.getLogger(__name__)


def open_source(info: VideoInfo) -> FileSource | PictureSource:
    """Open the clip that `info` tells of; raises AnimateDiffV2VError."""
    return PictureSource(info) if is_pictures(info.path) else FileSource(info)


class FileSource:
    """The frames of a video file, decoded once, in the order in which they are shown."""

    def __init__(self, info: VideoInfo) -> None:
        """Open the file that `info` tells of; raises AnimateDiffV2VError."""
        self.info = info
        self._container = open_container(info.path)
        self._stream = video_stream(self._container, path=info.path)
        self._decoder = _decoder(self._stream)

    def close(self) -> None:
        """Close the file; decoding stops at once."""
        self._container.close()

    def frames(self, *, from_seconds: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """Yield (seconds since the clip's first frame, frame), from at or before `from_seconds`."""
        if from_seconds > 0:
            self._seek(from_seconds)
        earlier = Fraction(-1)
        for frame in _decoded(self._container, self._stream, self._decoder, self.info.path):
            seconds = max(earlier, self._seconds(frame, earlier=earlier))
            earlier = seconds
            yield seconds, frame

    def _seek(self, seconds: Fraction) -> None:
        """Go to the last key frame before a time; where that fails all frames are decoded."""
        target = self.info.start_seconds + seconds - 1 / self.info.frame_rate
        time_base = self._stream.time_base
        if time_base is None:
            return
        try:
            self._container.seek(int(target / time_base), stream=self._stream, backward=True)
        except av.error.FFmpegError:
            self._reopen()

    def _reopen(self) -> None:
        self._container.close()
        self._container = open_container(self.info.path)
        self._stream = video_stream(self._container, path=self.info.path)
        self._decoder = _decoder(self._stream)

    def _seconds(self, frame: Any, *, earlier: Fraction) -> Fraction:
        rate, time_base = self.info.frame_rate, self._stream.time_base
        if frame.pts is None or time_base is None:
            return earlier + 1 / rate if earlier >= 0 else Fraction(0)
        seconds = frame.pts * time_base - self.info.start_seconds
        return seconds if self.info.variable_frame_rate else Fraction(round(seconds * rate)) / rate


def _decoder(stream: VideoStream) -> Any:
    name = alpha_decoder(stream)
    if name is None:
        stream.thread_type = "AUTO"
        return stream.codec_context
    decoder = av.CodecContext.create(name, "r")
    decoder.extradata = stream.codec_context.extradata
    return decoder


def _decoded(
    container: InputContainer, stream: VideoStream, decoder: Any, path: Path
) -> Iterator[Any]:
    damaged = 0
    for packet in demuxed(container, stream):
        try:
            frames = decoder.decode(packet)
        except av.error.FFmpegError as error:
            damaged += 1
            if damaged == 1:
                logger.warning("%s is damaged: %s; the rest is read on.", path, error.strerror)
            continue
        yield from frames
    try:
        yield from decoder.decode(None)
    except av.error.FFmpegError:
        logger.warning("%s is damaged at its end; the last frames are missing.", path)
