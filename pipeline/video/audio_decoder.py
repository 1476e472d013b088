"""Decoding of sound, in a separate process.

Some layouts of seven or more channels make PyAV read out of bounds and crash; ffmpeg decodes them
all, and if it crashes, only its own process ends. It sends raw samples with their times through a
pipe, in its NUT format.
"""

from __future__ import annotations

import logging
import subprocess
import tempfile
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

from .container import CONTAINERS, LARGEST_PICTURE_PIXELS, PROTOCOLS, ByteRange, demuxed, source_url
from .encoder import ffmpeg_executable, quiet_process_options

logger = logging.getLogger(__name__)

# NUT has no negative times, but sound may start before the video.
SHIFT_SECONDS = 100_000

# Time stamp in seconds (None if unknown), float32 [channels, samples].
Block = tuple[Fraction | None, NDArray[np.float32]]


@dataclass(frozen=True)
class AudioTrack:
    """The format of a track that is about to be read."""

    channels: int
    sample_rate: int


@contextmanager
def decoded_audio(
    path: Path,
    *,
    byte_range: ByteRange | None,
    index: int,
    from_seconds: Fraction | None,
    like: AudioTrack | None,
) -> Iterator[tuple[AudioTrack, Iterator[Block]] | None]:
    """Decode a track from about `from_seconds` on; None if nothing of it can be decoded.

    Args:
        path: the file.
        byte_range: the part of the file to read.
        index: the track's stream index.
        from_seconds: the time stamp to start at, in seconds.
        like: the format to convert the sound to; None for its own.
    """
    source = ["-i", source_url(path, byte_range), "-map", f"0:{index}"]
    shape = ["-ac", str(like.channels), "-ar", str(like.sample_rate)] if like else []
    arguments = _arguments([*source, *shape], from_seconds=from_seconds)
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [ffmpeg_executable(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            **quiet_process_options(),
        )
        assert process.stdout is not None
        try:
            yield _opened(process.stdout)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            complaints.seek(0)
            said = complaints.readline().decode(errors="replace").strip()
            if said:
                logger.warning("The audio of %s is damaged (%s); the rest is used.", path, said)


def _arguments(source: list[str], *, from_seconds: Fraction | None) -> list[str]:
    safe = ["-format_whitelist", CONTAINERS, "-protocol_whitelist", PROTOCOLS]
    safe += ["-max_pixels", str(LARGEST_PICTURE_PIXELS)]
    seek = []
    if from_seconds is not None:
        seek = ["-noaccurate_seek", "-seek_timestamp", "1", "-ss", f"{float(from_seconds):.6f}"]
    output = ["-c:a", "pcm_f32le", "-output_ts_offset", str(SHIFT_SECONDS)]
    output += ["-avoid_negative_ts", "disabled", "-f", "nut", "pipe:1"]
    return ["-hide_banner", "-v", "error", "-nostdin", "-copyts", *safe, *seek, *source, *output]


def _opened(pipe: Any) -> tuple[AudioTrack, Iterator[Block]] | None:
    try:
        container = av.open(pipe, format="nut")
    except (av.error.FFmpegError, ValueError):
        return None
    stream = container.streams.audio[0]
    context = stream.codec_context
    track = AudioTrack(context.channels, context.sample_rate)
    return track, _blocks(container, stream, track)


def _blocks(container: InputContainer, stream: AudioStream, track: AudioTrack) -> Iterator[Block]:
    for packet in demuxed(container, stream):
        samples = np.frombuffer(memoryview(packet), dtype="<f4").reshape(-1, track.channels).T
        seconds = None
        if packet.pts is not None and packet.time_base is not None:
            seconds = packet.pts * packet.time_base - SHIFT_SECONDS
        yield seconds, samples
