"""Run jobs with random prompts, strengths and settings, and check that their videos move.

Every job runs through the command, in this process, on the miniature, with settings drawn from
everything that can be typed, including absurd values. A job fails the check if its exit code is
neither 0 nor 2, if an absurd value is accepted, or if the frames of its video are all alike or of a
single colour, unlike those of its source.

    python benchmarks/random_jobs.py [--jobs 100] [--seed 0]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
from animatediff_v2v.cli.main import main as run_command
from animatediff_v2v.pipeline.sampling import NoiseType, Sampler, Scheduler
from animatediff_v2v.pipeline.video import VideoReader, VideoWriter

MODELS = Path(__file__).parents[1] / "demo" / "models"
LORAS = ("miniature_outlined", "miniature_few_steps")
WORDS = "a red blue green circle square triangle on of white black (bright:1.3) (dark:0.5) moving"
SIDE, FRAMES = 32, 12
ABSURD_SHARE = 0.2
ABSURD: dict[str, list[Any]] = {
    "prompt": ["a (red:nan) circle", "(circle:1e30)", "(blue:-inf) square"],
    "guidance-scale": ["nan", "inf", 1e9, -1],
    "denoise": ["nan", -0.1, 1.5],
    "lora-strength": ["nan", "inf", "-inf", 1e9],
    "motion-scale": ["nan", "inf", 1e6],
    "steps": [0, -1, 10**9],
    "seed": [-1, 2**64],
}
# In 8-bit levels: the variation that an encoder adds to a still or single-coloured picture.
STILL, FLAT = 1.0, 2.0


@dataclass(frozen=True)
class Job:
    """A command line, its output, and whether one of its values is absurd."""

    arguments: list[str]
    output: Path
    absurd: bool


def write_clip(path: Path) -> None:
    """Write a square that moves over a gradient."""
    ramp = np.linspace(0, 255, SIDE).astype(np.uint8)
    with VideoWriter(path, width=SIDE, height=SIDE, frame_rate=Fraction(8)) as writer:
        for index in range(FRAMES):
            frame = np.broadcast_to(ramp[:, None, None], (SIDE, SIDE, 3)).copy()
            frame[8:22, index : index + 12] = (220, 60, 30)
            writer.write(frame[np.newaxis])


def drawn(choose: random.Random, folder: Path, number: int) -> Job:
    """Draw a job."""
    settings = {
        "prompt": " ".join(choose.choices(WORDS.split(), k=choose.randint(0, 8))),
        "negative-prompt": " ".join(choose.choices(WORDS.split(), k=choose.randint(0, 4))),
        "steps": choose.choice([1, 1, 2, 2, 3]),
        "seed": choose.randint(0, 2**64 - 1),
        "guidance-scale": choose.choice([0, 1, 1.5, 7, 7.5, 15, 30, 100]),
        "denoise": choose.choice([0, 0.05, 0.3, 0.5, 0.7, 1]),
        "sampler": choose.choice(get_args(Sampler)),
        "scheduler": choose.choice(get_args(Scheduler)),
        "noise-type": choose.choice(get_args(NoiseType)),
        "select-every-nth-frame": choose.choice([1, 2, 2, 3]),
        "dtype": choose.choice(["auto", "float32", "bfloat16"]),
        "context-length": choose.choice([4, 8, 16]),
        "context-overlap": choose.choice([0, 1, 3]),
        "deep-cache": choose.choice([1, 1, 2]),
        "motion-scale": choose.choice([0, 0.5, 1, 1, 1.5, 10]),
        "lora-strength": choose.choice([0, 0.5, 1, -1, 2, 10, -10]),
    }
    absurd = choose.random() < ABSURD_SHARE
    if absurd:
        name = choose.choice(sorted(ABSURD))
        settings[name] = choose.choice(ABSURD[name])
    lora = MODELS / "loras" / f"{choose.choice(LORAS)}.safetensors"
    files = {
        "checkpoint": MODELS / "checkpoints" / "miniature.safetensors",
        "motion-module": MODELS / "animatediff_models" / "miniature_motion.safetensors",
        "lora": f"{lora}:{settings.pop('lora-strength')}",
    }
    named = [f"--{name}={value}" for name, value in (settings | files).items()]
    output = folder / f"{number}.mp4"
    return Job(["run", str(folder / "clip.mp4"), str(output), *named], output, absurd)


def fault(job: Job, code: int) -> str | None:
    """Return what is wrong with the result of a job; None if nothing is."""
    if code not in (0, 2):
        return f"exit code {code}"
    if job.absurd:
        return None if code == 2 else "an absurd value was taken"
    return _fault_of_video(job.output) if code == 0 else None


def _fault_of_video(path: Path) -> str | None:
    with VideoReader(path) as reader:
        frames = np.stack(list(reader)).astype(np.float32)
    if float(frames.std(axis=(1, 2)).max()) < FLAT:
        return "every frame is of a single colour"
    if float(np.abs(frames - frames[0]).mean(axis=(1, 2, 3)).max()) < STILL:
        return "all frames are alike"
    return None


def run(jobs: int, seed: int, folder: Path) -> tuple[Counter[int], list[str]]:
    """Run jobs; return the number of jobs by exit code, and a sentence for each fault."""
    choose, codes, faults = random.Random(seed), Counter[int](), []
    write_clip(folder / "clip.mp4")
    for number in range(jobs):
        job = drawn(choose, folder, number)
        code = run_command(job.arguments)
        codes[code] += 1
        wrong = fault(job, code)
        if wrong:
            faults.append(f"job {number}: {wrong}: {' '.join(job.arguments[3:])}")
    return codes, faults


def main() -> int:
    """Run the jobs that the command line asks for and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        codes, faults = run(parsed.jobs, parsed.seed, Path(folder))
    print(f"{parsed.jobs} jobs, exit codes {dict(codes)}, {len(faults)} faults")
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
