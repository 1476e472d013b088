"""Sound for exactly the time span of the kept frames."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from ..errors import AnimateDiffV2VError
from .container import demuxed, moving_pictures, open_container
from .pictures import is_pictures

logger = logging.getLogger(__name__)

# Codecs need a little of what came before to sound right (Opus 80 ms, AAC two blocks).
PREROLL_SECONDS = 1
GAP_SECONDS = 0.01


@dataclass(frozen=True)
class Audio:
    """Sound in memory.

    waveform: float32 [channels, samples], -1..1.
    sample_rate: samples per second.
    Raises AnimateDiffV2VError when the array has another shape or type, or the rate is none.
    """

    waveform: NDArray[np.float32]
    sample_rate: int

    def __post_init__(self) -> None:
        """Check shape, type and rate."""
        shape, kind = np.shape(self.waveform), getattr(self.waveform, "dtype", None)
        if len(shape) != 2 or shape[0] < 1 or kind != np.float32:
            raise AnimateDiffV2VError(
                f"The audio waveform is {kind} {list(shape)}; give float32 [channels, samples]."
            )
        if not 1 <= self.sample_rate <= 768000:
            raise AnimateDiffV2VError(
                f"The audio's sample_rate is {self.sample_rate}; give samples per second,"
                " for instance 48000."
            )


@dataclass(frozen=True)
class AudioSpan:
    """Sound that stays in its file until it is written: a span of it, in seconds of the picture."""

    path: Path | str
    start_seconds: float
    duration_seconds: float

    def __post_init__(self) -> None:
        """Check that the span is one; raises AnimateDiffV2VError."""
        if not (self.start_seconds >= 0 and self.duration_seconds >= 0):
            raise AnimateDiffV2VError(
                f"The audio span starts at {self.start_seconds} s and lasts"
                f" {self.duration_seconds} s; give seconds of 0 or more."
            )


@dataclass(frozen=True)
class AudioTrack:
    """The shape of a track that is about to be read."""

    channels: int
    sample_rate: int


def read_audio(path: str | Path, *, start_seconds: float, duration_seconds: float) -> Audio | None:
    """Read a span of a clip's default audio track, counted from its first video frame.

    Returns float32 [channels, round(duration_seconds * sample_rate)]; where the track has no
    sound in the span there is silence. None when the clip has no track or none of it decodes.
    Raises AnimateDiffV2VError when the file cannot be opened.
    """
    with audio_chunks(AudioSpan(path, start_seconds, duration_seconds)) as opened:
        if opened is None:
            return None
        track, chunks = opened
        length = round(Fraction(duration_seconds) * track.sample_rate)
        waveform = np.zeros((track.channels, length), dtype=np.float32)
        for offset, samples in chunks:
            waveform[:, offset : offset + samples.shape[1]] = samples
    return Audio(waveform, track.sample_rate)


@contextmanager
def audio_chunks(
    span: AudioSpan,
) -> Iterator[tuple[AudioTrack, Iterator[tuple[int, NDArray[np.float32]]]] | None]:
    """Open a span's track: its shape, and (offset in samples, float32 [channels, samples]) pairs.

    None when the clip has no audio track, or one that does not say what it is.
    Raises AnimateDiffV2VError when the file cannot be opened.
    """
    if is_pictures(Path(span.path)):
        yield None
        return
    with open_container(Path(span.path)) as container:
        stream = _default_stream(container)
        if stream is None:
            yield None
            return
        track = AudioTrack(stream.codec_context.channels, stream.codec_context.sample_rate)
        if not track.channels or not track.sample_rate:
            logger.warning("The audio track of %s is damaged and is left out.", span.path)
            yield None
            return
        yield track, _chunks(container, stream, track=track, span=span)


def _default_stream(container: InputContainer) -> AudioStream | None:
    streams = [each for each in container.streams.audio if each.codec_context is not None]
    for stream in streams:
        if stream.disposition & av.stream.Disposition.default:
            return stream
    return streams[0] if streams else None


def _picture_start(container: InputContainer) -> Fraction:
    """Seconds, on the file's clock, at which its picture begins (its sound, if it has none)."""
    for stream in (*moving_pictures(container), *container.streams.audio):
        if stream.start_time is not None and stream.time_base is not None:
            return stream.start_time * stream.time_base
    return Fraction(0)


def _chunks(
    container: InputContainer, stream: AudioStream, *, track: AudioTrack, span: AudioSpan
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (offset in samples from the span's start, float32 [channels, samples])."""
    start = _picture_start(container) + Fraction(span.start_seconds)
    length = round(Fraction(span.duration_seconds) * track.sample_rate)
    if span.start_seconds > PREROLL_SECONDS:
        _seek(container, stream, start - PREROLL_SECONDS)
    following = None
    for frame in _decoded(container, stream, track, span.path):
        offset = following or 0
        if frame.pts is not None:
            offset = round((frame.pts * frame.time_base - start) * track.sample_rate)
            # Matroska rounds times to milliseconds; that is no gap between two blocks.
            if following is not None and abs(offset - following) < track.sample_rate * GAP_SECONDS:
                offset = following
        samples = frame.to_ndarray()
        following = offset + samples.shape[1]
        if offset >= length:
            return
        inside = samples[:, max(0, -offset) : length - offset]
        if inside.shape[1]:
            yield max(0, offset), inside


def _seek(container: InputContainer, stream: AudioStream, seconds: Fraction) -> None:
    if stream.time_base is not None:
        container.seek(int(seconds / stream.time_base), stream=stream, backward=True)


def _decoded(
    container: InputContainer, stream: AudioStream, track: AudioTrack, path: Path | str
) -> Iterator[Any]:
    """Yield frames of planar float32 in the track's layout and rate."""
    resampler = av.AudioResampler(
        format="fltp", layout=stream.codec_context.layout.name, rate=track.sample_rate
    )
    damaged = 0
    for packet in demuxed(container, stream):
        try:
            for frame in stream.codec_context.decode(packet):
                yield from resampler.resample(frame)
        except (av.error.FFmpegError, ValueError) as error:
            damaged += 1
            if damaged == 1:
                logger.warning("The audio of %s is damaged (%s); the rest is used.", path, error)
