"""Measure the peak memory of restyling 64, 256 and 1,024 frames from file to file, on the CPU.

Each length runs in a separate process, with sound and tiny random weights. Prints the peak of the
whole process (including Python and PyTorch), its ratio to that of 64 frames, its growth per further
frame, and the bytes of the video's latents, the only part that should grow. Exits 1 if
1,024 frames take more than 1.15 times the memory of 64 plus their latents.

    python benchmarks/memory.py [--size 64]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline import (
    FrameSelection,
    Guidance,
    ModelFiles,
    Request,
    SamplingSettings,
    video_to_video,
)
from animatediff_v2v.pipeline.video import Audio, VideoWriter

sys.path.append(str(Path(__file__).parents[1] / "demo"))
from random_weights import write_weights

LENGTHS = (64, 256, 1024)
LIMIT = 1.15
FRAME_RATE = Fraction(16)
SAMPLE_RATE = 48_000
BYTES_PER_LATENT = 4 * 4  # channels, float32


def main() -> int:
    """Run the measurement; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="width and height in pixels")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(arguments.folder, arguments.measure)
    with tempfile.TemporaryDirectory() as folder:
        write_clip(Path(folder) / "source.mp4", size=arguments.size)
        write_weights(Path(folder))
        return compare(Path(folder), arguments.size)


def compare(folder: Path, size: int) -> int:
    shortest, longest = LENGTHS[0], LENGTHS[-1]
    print(f"{size}x{size}")
    print(
        f"{'frames':>6} {'peak MB':>8} {'ratio':>6} {'kB a frame':>11} {'latents MB':>11} {'s':>4}"
    )
    peaks = {}
    for frames in LENGTHS:
        begin = time.perf_counter()
        peaks[frames] = peak_of_process(folder, frames)
        growth = (peaks[frames] - peaks[shortest]) / max(1, frames - shortest)
        print(
            f"{frames:>6} {peaks[frames] / 1e6:>8.1f} {peaks[frames] / peaks[shortest]:>6.3f} "
            f"{growth / 1e3:>11.2f} {latent_bytes(frames, size) / 1e6:>11.2f} "
            f"{time.perf_counter() - begin:>4.0f}",
            flush=True,
        )
    allowed = LIMIT * peaks[shortest] + latent_bytes(longest, size)
    print(f"{longest} frames may take {allowed / 1e6:.1f} MB")
    return int(peaks[longest] > allowed)


def peak_of_process(folder: Path, frames: int) -> int:
    command = [sys.executable, __file__, "--measure", str(frames), "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)["peak_bytes"]


def latent_bytes(frames: int, size: int) -> int:
    return frames * (size // 8) ** 2 * BYTES_PER_LATENT


def write_clip(path: Path, *, size: int) -> None:
    """Write the longest clip: a moving gradient with a little noise, and a tone."""
    frames = LENGTHS[-1]
    seconds = np.arange(int(SAMPLE_RATE * frames / FRAME_RATE)) / SAMPLE_RATE
    tone = (0.2 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32)[np.newaxis]
    random = np.random.default_rng(1)
    across = np.arange(size)[np.newaxis, :, np.newaxis] * np.ones((size, 1, 3))
    with VideoWriter(
        path, width=size, height=size, frame_rate=FRAME_RATE, audio=Audio(tone, SAMPLE_RATE)
    ) as writer:
        for index in range(frames):
            noise = random.integers(0, 24, (size, size, 3))
            writer.write(((across * 2 + index * 3 + noise) % 256).astype(np.uint8)[np.newaxis])


def measure(folder: Path, frames: int) -> int:
    """Restyle the first frames of the clip in this process; print its peak as JSON."""
    torch.set_num_threads(1)  # a second thread gains little here, and has to wait on a busy machine
    result = video_to_video(
        Request(
            input=folder / "source.mp4",
            output=folder / f"restyled{frames}.mp4",
            prompt="a blue ball on a beach",
            selection=FrameSelection(frame_load_cap=frames),
            sampling=SamplingSettings(seed=1, steps=2, guidance=Guidance(scale=1.0), denoise=1.0),
        ),
        ModelFiles(
            checkpoint=folder / "checkpoint.safetensors",
            motion_module=folder / "motion_module.safetensors",
            device="cpu",
        ),
    )
    assert result.frame_count == frames, f"{result.frame_count} frames"
    print(json.dumps({"peak_bytes": peak_bytes()}))
    return 0


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.exit(main())
