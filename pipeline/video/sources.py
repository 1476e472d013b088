"""Sources of decoded frames with their times."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, islice
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from .container import demuxed, open_container, video_stream
from .info import VideoInfo
from .joined import FORWARD_SECONDS, JOINABLE
from .pictures import PictureSource, is_pictures
from .probe import alpha_decoder

logger = logging.getLogger(__name__)


def open_source(info: VideoInfo) -> FileSource | JoinedSource | PictureSource:
    """Open the video that `info` describes; raise AnimateDiffV2VError if that fails."""
    if info.parts:
        return JoinedSource(info)
    return PictureSource(info) if is_pictures(info.path) else FileSource(info)


class FileSource:
    """The frames of a video file, decoded once, in display order."""

    def __init__(self, info: VideoInfo) -> None:
        """Open the file that `info` describes; raise AnimateDiffV2VError if that fails."""
        self.info = info
        self._open(frame_threads=True)

    def _open(self, *, frame_threads: bool) -> None:
        self._container = open_container(self.info.path, byte_range=self.info.byte_range)
        self._stream = video_stream(self._container, path=self.info.path)
        self._decoder = _decoder(self._stream, frame_threads=frame_threads)
        self._used = False

    def close(self) -> None:
        """Close the file; decoding stops at once."""
        self._container.close()

    def frames(self, *, from_seconds: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """Yield (seconds since the first frame, frame), from at or before `from_seconds`."""
        frames = self._decoded(from_seconds)
        first = next(frames, None)
        if from_seconds > 0 and (first is None or self._seconds(first) > from_seconds):
            # The file has no index, and seeking ended after a key frame.
            frames = self._decoded(Fraction(0))
            first = next(frames, None)
        earlier, is_joinable = Fraction(-1), self.info.container in JOINABLE
        for frame in chain(() if first is None else (first,), frames):
            seconds = max(earlier, self._seconds(frame, earlier=earlier))
            if is_joinable and 0 <= earlier < seconds - FORWARD_SECONDS:
                # A damaged time: a part that starts later would be a separate video.
                seconds = earlier + 1 / self.info.frame_rate
            earlier = seconds
            yield seconds, frame

    def _decoded(self, from_seconds: Fraction) -> Iterator[Any]:
        """Yield frames; if the file is damaged, start again without frame threads.

        With frame threads, an error also loses intact frames that are being decoded.
        """
        done = 0
        self._restart(from_seconds, frame_threads=True)
        try:
            for frame in _decode_all(self._container, self._stream, self._decoder):
                yield frame
                done += 1
            return
        except av.error.FFmpegError as error:
            logger.warning(
                "%s is damaged (%s); what can be decoded is used.", self.info.path, error.strerror
            )
        self._restart(from_seconds, frame_threads=False)
        careful = _decode_all(self._container, self._stream, self._decoder, forgiving=True)
        yield from islice(careful, done, None)

    def _restart(self, from_seconds: Fraction, *, frame_threads: bool) -> None:
        """Seek to the last key frame before a time, or to the start if that fails."""
        if self._used:
            self.close()
            self._open(frame_threads=frame_threads)
        self._used = True
        time_base = self._stream.time_base
        if from_seconds <= 0 or time_base is None or not self.info.has_time_stamps:
            return
        target = self.info.start_seconds + from_seconds - 1 / self.info.frame_rate
        try:
            self._container.seek(int(target / time_base), stream=self._stream, backward=True)
        except av.error.FFmpegError:
            self.close()
            self._open(frame_threads=frame_threads)

    def _seconds(self, frame: Any, *, earlier: Fraction = Fraction(-1)) -> Fraction:
        rate, time_base = self.info.frame_rate, self._stream.time_base
        if frame.pts is None or time_base is None or not self.info.has_time_stamps:
            return earlier + 1 / rate if earlier >= 0 else Fraction(0)
        seconds = frame.pts * time_base - self.info.start_seconds
        return seconds if self.info.variable_frame_rate else Fraction(round(seconds * rate)) / rate


class JoinedSource:
    """The frames of videos that are joined in one file, each with its stated duration."""

    def __init__(self, info: VideoInfo) -> None:
        """Prepare to read the parts that `info` describes."""
        self.info = info
        self._open: FileSource | None = None

    def close(self) -> None:
        """Close the current part; decoding stops at once."""
        if self._open is not None:
            self._open.close()

    def frames(self, *, from_seconds: Fraction) -> Iterator[tuple[Fraction, Any]]:
        """Yield (seconds since the first part's first frame, frame); see FileSource.frames."""
        begin = Fraction(0)
        for part in self.info.parts:
            end = begin + (part.duration or 0)
            if end > from_seconds or part is self.info.parts[-1]:
                self.close()
                self._open = FileSource(part)
                for seconds, frame in self._open.frames(
                    from_seconds=max(Fraction(0), from_seconds - begin)
                ):
                    yield begin + seconds, frame
            begin = end


def _decoder(stream: VideoStream, *, frame_threads: bool) -> Any:
    name = alpha_decoder(stream)
    if name is None:
        stream.thread_type = "AUTO" if frame_threads else "SLICE"
        return stream.codec_context
    decoder = av.CodecContext.create(name, "r")
    decoder.extradata = stream.codec_context.extradata
    return decoder


def _decode_all(
    container: InputContainer, stream: VideoStream, decoder: Any, *, forgiving: bool = False
) -> Iterator[Any]:
    for packet in chain(demuxed(container, stream), (None,)):
        try:
            frames = decoder.decode(packet)
        except av.error.FFmpegError:
            if not forgiving:
                raise
            continue
        yield from frames
