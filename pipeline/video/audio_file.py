"""Sound on its way to ffmpeg: raw samples in a file, whatever it was before."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from .audio import Audio, AudioSpan, AudioTrack, audio_chunks

AUDIO_FILE = "audio.f32"


@dataclass(frozen=True)
class StoredAudio:
    """Samples on disk: float32, little-endian, interleaved."""

    path: Path
    track: AudioTrack

    def arguments(self, seconds: Fraction, *, passes: int) -> list[str]:
        """Cut the sound to `seconds`, or fill it up with silence; return it as ffmpeg's input.

        passes: how often it is played.
        """
        samples = round(seconds * self.track.sample_rate)
        with self.path.open("r+b") as file:
            file.truncate(samples * self.track.channels * 4)
        kind = ["-f", "f32le", "-ar", str(self.track.sample_rate), "-ac", str(self.track.channels)]
        return [*kind, "-stream_loop", str(passes - 1), "-i", self.path.name]


def store_audio(audio: Audio | AudioSpan, *, folder: Path) -> StoredAudio | None:
    """Write the samples into `folder`; None for a span of a silent clip."""
    path = folder / AUDIO_FILE
    if isinstance(audio, Audio):
        np.ascontiguousarray(audio.waveform.T, dtype="<f4").tofile(path)
        return StoredAudio(path, AudioTrack(audio.waveform.shape[0], audio.sample_rate))
    with audio_chunks(audio) as opened:
        if opened is None:
            return None
        track, chunks = opened
        sample_bytes = track.channels * 4
        with path.open("wb") as file:
            file.truncate(
                round(Fraction(audio.duration_seconds) * track.sample_rate) * sample_bytes
            )
            for offset, samples in chunks:
                file.seek(offset * sample_bytes)
                file.write(np.ascontiguousarray(samples.T, dtype="<f4").data)
    return StoredAudio(path, track)
