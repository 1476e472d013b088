"""Main memory of a job over the length of a video, with tensors of the whole video in files.

    python benchmarks/film.py [--frames 1440 43200]

Restyles videos of 64x64 with the miniature, file to file, each in a process of its own, and prints
the most main memory that cannot be written back to files (RssAnon), and the seconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
from animatediff_v2v.demo.install import DEMO_FOLDER
from animatediff_v2v.pipeline.video import VideoWriter, probe_video

MODELS = DEMO_FOLDER / "models"
POLL_SECONDS = 0.2
MOST_RATIO = 1.15


def write_video(path: Path, frames: int) -> None:
    with VideoWriter(path, width=64, height=64, frame_rate=Fraction(24)) as writer:
        for index in range(frames):
            frame = np.full((1, 64, 64, 3), 60, np.uint8)
            frame[:, 16:48, index % 48 : index % 48 + 16] = (220, 60, 30)
            writer.write(frame)


def peak_bytes(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; return the most of its main memory."""
    most = 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            break
        most = max([most, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
        time.sleep(POLL_SECONDS)
    return most * 1024


def measured(folder: Path, frames: int, max_ram_gb: float) -> int:
    source, target = folder / f"{frames}.mp4", folder / f"{frames}-out.mp4"
    write_video(source, frames)
    began = time.monotonic()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "animatediff_v2v.cli", "run", str(source), str(target)),
            f"--checkpoint={MODELS / 'checkpoints' / 'miniature.safetensors'}",
            f"--motion-module={MODELS / 'animatediff_models' / 'miniature_motion.safetensors'}",
            *("--prompt=a red circle", "--device=cpu", "--steps=1", "--guidance-scale=1"),
            *("--select-every-nth-frame=1", "--seed=0", f"--max-ram={max_ram_gb}"),
        ],
        stderr=subprocess.DEVNULL,
    )
    peak = peak_bytes(process)
    if process.returncode or probe_video(target).frame_count != frames:
        raise SystemExit(f"The job of {frames} frames failed.")
    print(f"{frames} frames: {peak / 1e6:.0f} MB, {time.monotonic() - began:.0f} s", flush=True)
    return peak


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, nargs="+", default=[1440, 43_200])
    parser.add_argument("--max-ram", type=float, default=0.01)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        peaks = [measured(Path(folder), frames, given.max_ram) for frames in given.frames]
    print(f"ratio {peaks[-1] / peaks[0]:.3f}")
    return 0 if peaks[-1] <= MOST_RATIO * peaks[0] else 1


if __name__ == "__main__":
    sys.exit(main())
