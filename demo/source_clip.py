"""Draw the demo's source: a ball that bounces over a gradient, with a tone for each bounce."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from animatediff_v2v.pipeline.video import Audio, VideoWriter
from numpy.typing import NDArray

SIZE = 128
FRAME_RATE = Fraction(16)
FRAMES = 48
SAMPLE_RATE = 48_000
BOUNCES = 3


def write_clip(path: Path) -> None:
    """Write the clip, three seconds of 128x128 at 16 frames per second, with sound."""
    with VideoWriter(
        path, width=SIZE, height=SIZE, frame_rate=FRAME_RATE, audio=Audio(_sound(), SAMPLE_RATE)
    ) as writer:
        for frame in draw_frames():
            writer.write(frame[np.newaxis])


def draw_frames() -> Iterator[NDArray[np.uint8]]:
    """Yield the frames, uint8 [128, 128, 3]."""
    down, across = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    for index in range(FRAMES):
        time = index / FRAMES
        height = abs(np.cos(np.pi * BOUNCES * time))
        distance = np.hypot(across - (0.2 + 0.6 * time), down - (0.8 - 0.5 * height))
        ball = np.clip((0.18 - distance) * SIZE / 2, 0, 1)[..., np.newaxis]
        sky = np.stack([0.3 * down, 0.4 + 0.3 * down, 0.9 - 0.3 * down], axis=-1)
        picture = ball * np.array([0.9, 0.2, 0.1]) + (1 - ball) * sky
        yield (picture * 255).round().astype(np.uint8)


def _sound() -> NDArray[np.float32]:
    seconds = np.arange(int(SAMPLE_RATE * FRAMES / FRAME_RATE)) / SAMPLE_RATE
    since_bounce = (seconds * float(BOUNCES * FRAME_RATE / FRAMES) + 0.5) % 1.0
    tone = 0.4 * np.sin(2 * np.pi * 330 * seconds) * np.exp(-6 * since_bounce)
    return tone[np.newaxis].astype(np.float32)
