"""Measure on the miniature what restored frames are like, beside sampling all frames.

Usage: python benchmarks/restore.py [--clips N] [--frames N]

Restyles clips that the miniature was never trained on, once all frames and once every 4th, restores
the others, and prints a line for each measure: its name, its value and its limit. ffmpeg's
`minterpolate` makes the same frames in the same run. Exits 1 if a value misses its limit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import torch
from animatediff_v2v.pipeline.restore.stream import restore_frames
from animatediff_v2v.pipeline.sampling import ContextOptions
from animatediff_v2v.pipeline.video.every_frame import SourceFrame
from meaning import CLIPS, FRAMES, Clip, Row, _at_least, _at_most, held_out_clips, restyled
from training import measures
from training.measures import Frames

NTH = 4
LENGTH = 64  # of which 16 are kept, as many as the motion module was trained on
CONTEXT = ContextOptions(length=FRAMES, overlap=4)


@dataclass
class Found:
    """What was measured, a value for each clip."""

    paths: list[float] = field(default_factory=list)
    flicker: list[float] = field(default_factory=list)
    flicker_of_all: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    error_of_minterpolate: list[float] = field(default_factory=list)
    seconds: float = 0.0
    seconds_of_all: float = 0.0
    restoring_seconds: float = 0.0
    restored: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=CLIPS, metavar="N")
    parser.add_argument("--frames", type=int, default=LENGTH, metavar="N")
    arguments = parser.parse_args()
    print(f"{arguments.clips} clips of {arguments.frames} frames, every {NTH}th kept", flush=True)
    found = Found()
    for clip in held_out_clips(arguments.clips):
        measure(replace(clip, length=arguments.frames), found)
    holds = True
    for row in rows(found):
        mark = "" if row.holds else "   FALLS SHORT"
        print(f"{row.name:<60} {row.value:<28} {row.bound}{mark}", flush=True)
        holds &= row.holds
    return 0 if holds else 1


def measure(clip: Clip, found: Found) -> None:
    """Add what a clip shows to the values."""
    source = clip.frames
    seconds, every = timed(lambda: restyled(clip, context=CONTEXT))
    found.seconds_of_all += seconds
    seconds, kept = timed(
        lambda: restyled(clip, context=CONTEXT, latents=clip.latents[::NTH].contiguous())
    )
    restoring, made = timed(lambda: restore(source, kept))
    found.seconds += seconds + restoring
    found.restoring_seconds += restoring
    found.restored += len(made) - len(kept)
    seen = [measures.look(frame) for frame in made]
    found.paths.append(measures.path_correlation(clip.seen, seen))
    found.flicker.append(float(measures.flicker(made, clip.scene).mean()))
    found.flicker_of_all.append(float(measures.flicker(every, clip.scene).mean()))
    # Two samplings differ in more than their motion. So the frames that are left out here are those
    # of the one result that is known whole.
    known, between = every[::NTH], [i for i in range(len(every) - NTH) if i % NTH]
    guessed = minterpolate(known)
    between = [index for index in between if index < len(guessed)]
    own = restore(source, known)
    found.error.append(float(np.abs(own[between] - every[between]).mean()))
    found.error_of_minterpolate.append(float(np.abs(guessed[between] - every[between]).mean()))


def rows(found: Found) -> list[Row]:
    """Return the lines of the table."""
    error, other = np.mean(found.error), np.mean(found.error_of_minterpolate)
    times = found.seconds_of_all / found.seconds
    rate = found.restored / found.restoring_seconds
    flicker = np.mean(found.flicker) / np.mean(found.flicker_of_all)
    return [
        _at_least("object's path like the source's", np.median(found.paths), 0.97, "median {:.3f}"),
        _at_most("flicker / flicker of all frames sampled", flicker, 1.1),
        Row(
            "error of left-out frames / that of ffmpeg's minterpolate",
            f"{error:.4f} / {other:.4f} = {error / other:.2f}",
            "at most 0.5",
            bool(error <= 0.5 * other),
        ),
        _at_least("time of all frames sampled / time with restoring", times, 3, "{:.2f}"),
        Row("restored frames of 128x128 per second", f"{rate:.1f}", "", True),
    ]


def timed(make: Callable[[], Frames]) -> tuple[float, Frames]:
    """Return the seconds of processor time that something took, and its result."""
    started = time.process_time()
    made = make()
    return time.process_time() - started, made


def restore(source: Frames, kept: Frames) -> Frames:
    """Restore all frames of a source from its restyled kept ones."""
    pictures = (source * 255).round().astype(np.uint8)
    frames = [
        SourceFrame(Fraction(index), picture, int(index % NTH == 0))
        for index, picture in enumerate(pictures)
    ]
    made = restore_frames(frames, (torch.from_numpy(frame) for frame in kept))
    return np.stack([frame.picture.numpy() for frame in made])


def minterpolate(kept: Frames) -> Frames:
    """Return what ffmpeg's filter makes of kept frames, whose first frame is the first of these."""
    height, width = kept.shape[1:3]
    form = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *form, "-r", "4", "-i", "-"]
    command += ["-vf", f"minterpolate=fps={4 * NTH}:scd=none", *form, "-"]
    data = (kept * 255).round().astype(np.uint8).tobytes()
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    made = np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)
    return made.astype(np.float32) / 255


if __name__ == "__main__":
    sys.exit(main())
