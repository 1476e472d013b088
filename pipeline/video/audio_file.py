"""Sound on its way to ffmpeg: raw samples in a file, whatever it was before."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import numpy as np

from .audio import Audio, AudioSpan, AudioTrack, audio_chunks
from .formats import OutputFormat

logger = logging.getLogger(__name__)


def audio_arguments(
    audio: Audio | AudioSpan | None, *, form: OutputFormat, folder: Path
) -> tuple[list[str], list[str]]:
    """Write the samples into `folder`; return ffmpeg's arguments for the input and the output."""
    if audio is None:
        return [], ["-an"]
    if form.audio_encoder is None:
        logger.info("%s files have no sound; the audio is left out.", form.name)
        return [], ["-an"]
    samples = folder / "audio.f32"
    track = _store(audio, samples)
    if track is None:
        return [], ["-an"]
    source = ["-f", "f32le", "-ar", str(track.sample_rate), "-ac", str(track.channels)]
    # Silence follows where the sound is shorter, and the picture's end cuts both.
    output = ["-map", "1:a", "-c:a", form.audio_encoder, *form.audio_options]
    return [*source, "-i", str(samples)], [*output, "-af", "apad", "-shortest"]


def _store(audio: Audio | AudioSpan, target: Path) -> AudioTrack | None:
    if isinstance(audio, Audio):
        np.ascontiguousarray(audio.waveform.T, dtype="<f4").tofile(target)
        return AudioTrack(audio.waveform.shape[0], audio.sample_rate)
    with audio_chunks(audio) as opened:
        if opened is None:
            return None
        track, chunks = opened
        with target.open("wb") as file:
            file.truncate(
                round(Fraction(audio.duration_seconds) * track.sample_rate) * track.channels * 4
            )
            for offset, samples in chunks:
                file.seek(offset * track.channels * 4)
                file.write(np.ascontiguousarray(samples.T, dtype="<f4").data)
    return track
