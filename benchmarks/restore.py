"""Measure on the miniature what restored frames are like, beside sampling all frames.

Usage: python benchmarks/restore.py [--clips N] [--sampled N]

Restyles clips that the miniature was never trained on, once all frames and once every 4th, restores
the others, and prints a line for each measure: its name, its value and its limit. ffmpeg's
`minterpolate` makes the same frames in the same run. Where the clips are drawn in other colours in
place of restyling them, every frame is known. Exits 1 if a value misses its limit.
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
from animatediff_v2v.pipeline.video.source_frame import SourceFrame
from meaning import (
    CLIPS,
    FRAMES,
    Clip,
    Row,
    _at_least,
    _at_most,
    held_out_clips,
    miniature,
    restyled,
)
from numpy.typing import NDArray
from training import measures
from training.measures import Frames
from training.scenes import draw, frame_times

NTH = 4
LENGTH = 64  # of which 16 are kept, as many as the motion module was trained on
CONTEXT = ContextOptions(length=FRAMES, overlap=4)


@dataclass
class Found:
    """What was measured, a value for each clip."""

    paths: list[float] = field(default_factory=list)
    paths_of_all: list[float] = field(default_factory=list)
    flicker: list[float] = field(default_factory=list)
    flicker_of_all: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    error_of_minterpolate: list[float] = field(default_factory=list)
    known: list[tuple[float, float]] = field(default_factory=list)
    """The errors where every frame is known, of restored frames and of minterpolate's."""
    seconds: float = 0.0
    seconds_of_all: float = 0.0
    restoring_seconds: float = 0.0
    restored: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=CLIPS, metavar="N")
    parser.add_argument(
        "--sampled", type=int, metavar="N", help="restyle only the first N clips; it takes longest"
    )
    arguments = parser.parse_args()
    sampled = arguments.clips if arguments.sampled is None else arguments.sampled
    print(f"every {NTH}th frame kept; {arguments.clips} clips of {FRAMES} frames drawn,", end=" ")
    print(f"{sampled} of {LENGTH} frames restyled", flush=True)
    found, clips = Found(), held_out_clips(arguments.clips)
    for clip in clips:
        drawn = np.stack([draw(clip.wanted, time) for time in frame_times(FRAMES)])
        found.known.append(errors(clip.frames, drawn))
    for clip in clips[:sampled]:
        measure(replace(clip, length=LENGTH), found)
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
        lambda: restyled(
            clip,
            context=CONTEXT,
            latents=miniature().codec.encode(torch.from_numpy(source[::NTH].copy())),
        )
    )
    restoring, made = timed(lambda: restore(source, kept))
    found.seconds += seconds + restoring
    found.restoring_seconds += restoring
    found.restored += len(made) - len(kept)
    seen = [measures.look(frame) for frame in made]
    found.paths.append(measures.path_correlation(clip.seen, seen))
    seen = [measures.look(frame) for frame in every]
    found.paths_of_all.append(measures.path_correlation(clip.seen, seen))
    found.flicker.append(float(measures.flicker(made, clip.scene).mean()))
    found.flicker_of_all.append(float(measures.flicker(every, clip.scene).mean()))
    # Two samplings differ in more than their motion. So the frames that are left out here are those
    # of the one result that is known whole.
    own, other = errors(source, every)
    found.error.append(own)
    found.error_of_minterpolate.append(other)


def errors(source: Frames, every: Frames) -> tuple[float, float]:
    """Return the mean error of the frames that are left out of `every`, restored and guessed."""
    kept = every[::NTH]
    own, guessed = restore(source, kept), minterpolate(kept)
    last = min(len(guessed), NTH * (len(kept) - 1))
    between = [index for index in range(last) if index % NTH]
    one, other = (float(np.abs(made[between] - every[between]).mean()) for made in (own, guessed))
    return one, other


def rows(found: Found) -> list[Row]:
    """Return the lines of the table."""
    known = _errors("error where every frame is known", np.mean(found.known, axis=0))
    if not found.paths:
        return [known]
    sampled = np.mean([found.error, found.error_of_minterpolate], axis=1)
    times = found.seconds_of_all / found.seconds
    rate = found.restored / found.restoring_seconds
    flicker = np.mean(found.flicker) / np.mean(found.flicker_of_all)
    return [
        known,
        _at_least("object's path like the source's", np.median(found.paths), 0.97, "median {:.3f}"),
        Row(
            "the same with all frames sampled",
            f"median {np.median(found.paths_of_all):.3f}",
            "",
            True,
        ),
        _at_most("flicker / flicker of all frames sampled", flicker, 1.1),
        _errors("error against all frames sampled", sampled),
        _at_least("time of all frames sampled / time with restoring", times, 3, "{:.2f}"),
        Row("restored frames of 128x128 per second", f"{rate:.1f}", "", True),
    ]


def _errors(name: str, values: NDArray[np.float64]) -> Row:
    """Return the line of the errors of restored frames and of minterpolate's."""
    own, other = values
    text = f"{own:.4f} / {other:.4f} = {own / other:.2f}"
    return Row(f"{name}, restored / minterpolate", text, "at most 0.5", bool(own <= 0.5 * other))


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
