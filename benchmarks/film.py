"""Main memory of a job over the length of a video, with tensors of the whole video in files.

    python benchmarks/film.py [--frames 1440 43200] [--without codec | networks]

Restyles videos of 64x64 with the miniature, file to file, each in a process of its own, and prints
the most main memory that cannot be written back to files (RssAnon), and the seconds. What networks
take depends on the window's length alone; a film of 43,200 frames takes about an hour of CPU time,
and minutes without their arithmetic.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.demo.install import DEMO_FOLDER
from animatediff_v2v.pipeline import (
    FrameSelection,
    Guidance,
    ModelFiles,
    Request,
    SamplingSettings,
    load_files,
    video_to_video,
)
from animatediff_v2v.pipeline.video import VideoWriter, probe_video
from torch import Tensor
from torch.nn import functional

MINIATURE = ModelFiles(
    checkpoint=DEMO_FOLDER / "models/checkpoints/miniature.safetensors",
    motion_module=DEMO_FOLDER / "models/animatediff_models/miniature_motion.safetensors",
    device="cpu",
)
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


class PretendedCodec:
    """Frames averaged over blocks of 8x8 in place of a VAE's latents."""

    is_smaller_than_sd15 = True

    def encode(self, frames: Tensor) -> Tensor:
        pixels = frames.float().permute(0, 3, 1, 2) / 255
        grey = functional.avg_pool2d(pixels, 8)
        return torch.cat([grey, grey[:, :1]], dim=1)

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        for part in latents.split(8):
            pixels = functional.interpolate(part[:, :3], scale_factor=8)
            yield pixels.clamp(0, 1).permute(0, 2, 3, 1)


def restyle_without(what: str, source: str, target: str, max_ram_gb: float) -> None:
    """Run a job in which the codec, or all networks, compute next to nothing."""
    models = replace(load_files(MINIATURE), codec=PretendedCodec())
    steps = 1
    if what == "networks":
        steps = 4
        type(models.unet).forward = lambda _, sample, *__, **___: sample * 0.5
    request = Request(
        input=Path(source), output=Path(target), prompt="a",
        sampling=SamplingSettings(seed=0, steps=steps, guidance=Guidance(scale=1.0)),
        selection=FrameSelection(),
    )  # fmt: skip
    video_to_video(request, models, max_ram_gb=max_ram_gb)


def command(source: Path, target: Path, max_ram_gb: float, *, without: str | None) -> list[str]:
    if without:
        return [
            *(sys.executable, __file__, "--without", without),
            *("--restyle", str(source), str(target), str(max_ram_gb)),
        ]
    return [
        *(sys.executable, "-m", "animatediff_v2v.cli", "run", str(source), str(target)),
        f"--checkpoint={MINIATURE.checkpoint}",
        f"--motion-module={MINIATURE.motion_module}",
        *("--prompt=a red circle", "--device=cpu", "--steps=1", "--guidance-scale=1"),
        *("--select-every-nth-frame=1", "--seed=0", f"--max-ram={max_ram_gb}"),
    ]


def measured(folder: Path, frames: int, max_ram_gb: float, *, without: str | None) -> int:
    source, target = folder / f"{frames}.mp4", folder / f"{frames}-out.mp4"
    write_video(source, frames)
    began = time.monotonic()
    process = subprocess.Popen(
        command(source, target, max_ram_gb, without=without), stderr=subprocess.DEVNULL
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
    parser.add_argument("--without", choices=["codec", "networks"])
    parser.add_argument("--restyle", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.restyle:
        source, target, max_ram_gb = given.restyle
        restyle_without(given.without, source, target, float(max_ram_gb))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        peaks = [
            measured(Path(folder), frames, given.max_ram, without=given.without)
            for frames in given.frames
        ]
    print(f"ratio {peaks[-1] / peaks[0]:.3f}")
    return 0 if peaks[-1] <= MOST_RATIO * peaks[0] else 1


if __name__ == "__main__":
    sys.exit(main())
