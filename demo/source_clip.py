"""Draw the demo's source video: a red square that circles over a blue background, with a hum.

Usage: python demo/source_clip.py FILE [KEYFRAME]

KEYFRAME is a picture of its first frame in other colours.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from animatediff_v2v.pipeline.video import Audio, VideoWriter
from numpy.typing import NDArray
from PIL import Image
from training.scenes import SIZE, Scene, draw, frame_times

FRAME_RATE = Fraction(16)
FRAMES = 48
SAMPLE_RATE = 48_000

SCENE = Scene(
    shape="square",
    colour="red",
    texture="plain",
    background="blue",
    background_texture="striped",
    style=None,
    motion="circling",
    radius=36.0,
    centre=(64.0, 42.0),
    travel=(0.0, 44.0),
    angle=0.2,
    turn=1.2,
    growth=0.0,
    shade=1.0,
    background_shade=0.95,
    light_angle=0.6,
    light_strength=0.15,
    texture_angle=0.0,
    texture_phase=0.3,
    texture_period=40.0,
)


def main() -> int:
    write_source(Path(sys.argv[1]))
    for path in sys.argv[2:3]:
        Image.fromarray(repainted_frame()).save(path, optimize=True)
    return 0


def write_source(path: Path) -> None:
    """Write the video, three seconds of 128x128 at 16 frames per second, with sound."""
    sound = Audio(_sound(), SAMPLE_RATE)
    with VideoWriter(
        path, width=SIZE, height=SIZE, frame_rate=FRAME_RATE, audio=sound, overwrite=True
    ) as writer:
        for time in frame_times(FRAMES):
            frame = (draw(SCENE, time) * 255).round().astype(np.uint8)
            writer.write(frame[np.newaxis])


def repainted_frame() -> NDArray[np.uint8]:
    """Return the first frame as a green square on a purple background, [128, 128, 3]."""
    scene = replace(SCENE, colour="green", background="purple")
    return (draw(scene, 0.0) * 255).round().astype(np.uint8)


def _sound() -> NDArray[np.float32]:
    """Return a hum whose pitch follows the square."""
    samples = int(SAMPLE_RATE * FRAMES / FRAME_RATE)
    times = np.arange(samples) / samples
    pitch = 220 * (1.25 - 0.25 * np.cos(2 * math.pi * times))
    phase = 2 * math.pi * np.cumsum(pitch) / SAMPLE_RATE
    fade = np.minimum(1, 20 * np.minimum(times, 1 - times))
    return (0.3 * fade * np.sin(phase))[np.newaxis].astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
