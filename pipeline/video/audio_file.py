"""Raw samples in a file, as ffmpeg's audio input."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .audio import Audio, AudioSpan, audio_chunks
from .audio_decoder import AudioTrack
from .formats import OutputFormat

logger = logging.getLogger(__name__)

AUDIO_FILE = "audio.f32"


@dataclass(frozen=True)
class StoredAudio:
    """Samples on disk: float32, little-endian, interleaved."""

    path: Path
    track: AudioTrack

    def arguments(self, seconds: Fraction, *, passes: int) -> list[str]:
        """Return ffmpeg's arguments for this input, cut or padded to `seconds`.

        Args:
            seconds: the duration.
            passes: how often the sound is played.
        """
        samples = round(seconds * self.track.sample_rate)
        with self.path.open("r+b") as file:
            file.truncate(samples * self.track.channels * 4)
        kind = ["-f", "f32le", "-ar", str(self.track.sample_rate), "-ac", str(self.track.channels)]
        return [*kind, "-stream_loop", str(passes - 1), "-i", self.path.name]


def usable_audio(
    audio: Audio | AudioSpan | None, *, form: OutputFormat
) -> Audio | AudioSpan | None:
    """Return the sound that a file of this format gets; None, with a log message, if it has none.

    This is called before the first frame, so that a track that cannot be decoded is noticed early.

    Raises:
        AnimateDiffV2VError: when the file of a span cannot be opened.
    """
    if audio is None:
        return None
    if form.audio_encoder is None:
        logger.info("%s files have no sound; the audio is left out.", form.name)
        return None
    channels = audio.waveform.shape[0] if isinstance(audio, Audio) else _channels(audio)
    if channels is None:
        return None
    if channels not in form.audio_channels:
        logger.warning(
            "The sound has %d channels, which %s files cannot hold; it is mixed down to stereo.",
            channels,
            form.name,
        )
    return audio


def _channels(span: AudioSpan) -> int | None:
    with audio_chunks(span) as opened:
        return None if opened is None else opened[0].channels


def store_audio(
    audio: Audio | AudioSpan, *, folder: Path, form: OutputFormat
) -> StoredAudio | None:
    """Write the samples into `folder`; return None for a span of a video without sound."""
    path = folder / AUDIO_FILE
    if isinstance(audio, Audio):
        waveform = _fitting(audio.waveform, form)
        np.ascontiguousarray(waveform.T, dtype="<f4").tofile(path)
        return StoredAudio(path, AudioTrack(waveform.shape[0], audio.sample_rate))
    with audio_chunks(audio) as opened:
        if opened is None:
            return None
        track, chunks = opened
        track = AudioTrack(_fitting_channels(track.channels, form), track.sample_rate)
        sample_bytes = track.channels * 4
        with path.open("wb") as file:
            file.truncate(
                round(Fraction(audio.duration_seconds) * track.sample_rate) * sample_bytes
            )
            for offset, samples in chunks:
                file.seek(offset * sample_bytes)
                file.write(np.ascontiguousarray(_fitting(samples, form).T, dtype="<f4").data)
    return StoredAudio(path, track)


def _fitting_channels(channels: int, form: OutputFormat) -> int:
    return channels if channels in form.audio_channels else 2


def _fitting(samples: NDArray[np.float32], form: OutputFormat) -> NDArray[np.float32]:
    """Mix float32 [channels, samples] down to stereo if the format cannot store the channels.

    Channels alternate between left and right, so every second channel belongs to one side.
    """
    if samples.shape[0] in form.audio_channels:
        return samples
    return np.stack([samples[0::2].mean(axis=0), samples[1::2].mean(axis=0)])
