"""Sound for exactly the time span of the kept frames."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from numpy.typing import NDArray

from ..choices import check_types, checked_path
from ..errors import AnimateDiffV2VError
from .audio_decoder import AudioTrack, Block, decoded_audio
from .container import ByteRange, open_container, video_stream
from .joined import JOINABLE
from .pictures import is_pictures
from .probe import probe_video

logger = logging.getLogger(__name__)

# Codecs need some earlier samples to decode correctly (Opus 80 ms, AAC two blocks).
PREROLL_SECONDS = 1
GAP_SECONDS = 0.01

Chunk = tuple[int, NDArray[np.float32]]


@dataclass(frozen=True)
class Audio:
    """Sound in memory.

    Attributes:
        waveform: float32 [channels, samples], -1..1.
        sample_rate: samples per second.

    Raises:
        AnimateDiffV2VError: for another shape or dtype, or an invalid rate.
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
    """A span of the sound in a file, in seconds of its video; it is read only when written."""

    path: Path
    start_seconds: float
    duration_seconds: float

    def __post_init__(self) -> None:
        """Check the span; raise AnimateDiffV2VError if it is invalid."""
        check_types(self)
        if not (self.start_seconds >= 0 and self.duration_seconds >= 0):
            raise AnimateDiffV2VError(
                f"The audio span starts at {self.start_seconds} s and lasts"
                f" {self.duration_seconds} s; give seconds of 0 or more."
            )


def read_audio(path: str | Path, *, start_seconds: float, duration_seconds: float) -> Audio | None:
    """Read a span of a video's default audio track, counted from its first video frame.

    Returns:
        float32 [channels, round(duration_seconds * sample_rate)], with silence where the track has
        no sound. None if the video has no audio track, or if nothing of it can be decoded.

    Raises:
        AnimateDiffV2VError: when the file cannot be opened.
    """
    with audio_chunks(
        AudioSpan(checked_path("path", path), start_seconds, duration_seconds)
    ) as opened:
        if opened is None:
            return None
        track, chunks = opened
        length = round(Fraction(duration_seconds) * track.sample_rate)
        waveform = np.zeros((track.channels, length), dtype=np.float32)
        for offset, samples in chunks:
            waveform[:, offset : offset + samples.shape[1]] = samples
    return Audio(waveform, track.sample_rate)


@contextmanager
def audio_chunks(span: AudioSpan) -> Iterator[tuple[AudioTrack, Iterator[Chunk]] | None]:
    """Open a span's track; yield its format and pairs of offset and float32 [channels, samples].

    Offsets are in samples. Yields None if there is no audio track, or nothing of it can be decoded.

    Raises:
        AnimateDiffV2VError: when the file cannot be opened.
    """
    path = Path(span.path)
    if is_pictures(path):
        yield None
        return
    pieces = list(_pieces(path, span))
    for piece in pieces:
        with _opened(piece) as opened:
            if opened is None:
                continue
            track, chunks = opened
            if len(pieces) == 1:
                yield track, chunks
                return
        yield track, _joined(pieces, track, span)
        return
    yield None


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A span in one part of a file, in seconds of its video.

    Attributes:
        begin: seconds since the beginning of the whole span.
    """

    path: Path
    byte_range: ByteRange | None
    begin: Fraction
    start: Fraction
    duration: Fraction


def _pieces(path: Path, span: AudioSpan) -> Iterator[_Piece]:
    start, left = Fraction(span.start_seconds), Fraction(span.duration_seconds)
    with open_container(path) as container:
        is_joinable = container.format.name in JOINABLE and bool(container.streams.video)
    parts = probe_video(path).parts if is_joinable else ()
    begin = Fraction(0)
    for part in parts[:-1]:
        length = max(Fraction(0), min(left, (part.duration or Fraction(0)) - start))
        if length:
            yield _Piece(
                path=path, byte_range=part.byte_range, begin=begin, start=start, duration=length
            )
        start = max(Fraction(0), start - (part.duration or Fraction(0)))
        begin, left = begin + length, left - length
    if left or not begin:
        byte_range = parts[-1].byte_range if parts else None
        yield _Piece(path=path, byte_range=byte_range, begin=begin, start=start, duration=left)


def _joined(pieces: Sequence[_Piece], track: AudioTrack, span: AudioSpan) -> Iterator[Chunk]:
    length = round(Fraction(span.duration_seconds) * track.sample_rate)
    for piece in pieces:
        begin = round(piece.begin * track.sample_rate)
        with _opened(piece, like=track) as opened:
            for offset, samples in opened[1] if opened else ():
                if begin + offset < length:
                    yield begin + offset, samples[:, : length - begin - offset]


@contextmanager
def _opened(
    piece: _Piece, *, like: AudioTrack | None = None
) -> Iterator[tuple[AudioTrack, Iterator[Chunk]] | None]:
    path = piece.path
    with open_container(path, byte_range=piece.byte_range) as container:
        index = _default_track(container)
        start = _picture_start(container, path) + piece.start
    if index is None:
        yield None
        return
    preroll = start - PREROLL_SECONDS if piece.start > PREROLL_SECONDS else None
    with decoded_audio(
        path, byte_range=piece.byte_range, index=index, from_seconds=preroll, like=like
    ) as opened:
        if opened is None:
            logger.warning("The audio track of %s cannot be decoded and is left out.", path)
            yield None
            return
        track, blocks = opened
        length = round(piece.duration * track.sample_rate)
        yield track, _chunks(blocks, track=track, start=start, length=length)


def _default_track(container: InputContainer) -> int | None:
    """Return the stream index of the audio track that players choose by default."""
    known = [each for each in container.streams.audio if each.codec_context is not None]
    streams = known or list(container.streams.audio)
    for stream in streams:
        if stream.disposition & av.stream.Disposition.default:
            return stream.index
    return streams[0].index if streams else None


def _picture_start(container: InputContainer, path: Path) -> Fraction:
    """Return the time stamp in seconds at which the video starts (or the sound, without video)."""
    streams: list[Any] = list(container.streams.audio)
    if container.streams.video:
        streams.insert(0, video_stream(container, path=path))
    for stream in streams:
        if stream.start_time is not None and stream.time_base is not None:
            return Fraction(stream.start_time * stream.time_base)
    return Fraction(0)


def _chunks(
    blocks: Iterator[Block], *, track: AudioTrack, start: Fraction, length: int
) -> Iterator[Chunk]:
    """Yield (offset in samples from `start`, float32 [channels, samples]) of `length` samples."""
    following = None
    for seconds, samples in blocks:
        offset = following or 0
        if seconds is not None:
            offset = round((seconds - start) * track.sample_rate)
            # Matroska rounds times to milliseconds; such a difference is not a gap between blocks.
            if following is not None and abs(offset - following) < track.sample_rate * GAP_SECONDS:
                offset = following
        following = offset + samples.shape[1]
        if offset >= length:
            return
        inside = samples[:, max(0, -offset) : length - offset]
        if inside.shape[1]:
            yield max(0, offset), inside
