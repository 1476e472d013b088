"""Batches of the miniature: processes that are killed, and the time that one process for all saves.

    python benchmarks/batch.py kills [--clips 40] [--kills 20] [--engine local|ray]
    python benchmarks/batch.py amortising [--clips 10]

`kills`: a batch with two workers; at random moments a worker, or all processes, get SIGKILL, and
the command is given again. Results must be equal in every byte to an uninterrupted batch, and a
last run must find nothing to do. `amortising`: the batch against a shell loop of `run`.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
from animatediff_v2v.demo.install import DEMO_FOLDER
from animatediff_v2v.pipeline.video import VideoWriter

MODELS = DEMO_FOLDER / "models"
PROGRAM = [sys.executable, "-m", "animatediff_v2v.cli"]
OPTIONS = [
    f"--checkpoint={MODELS / 'checkpoints' / 'miniature.safetensors'}",
    f"--motion-module={MODELS / 'animatediff_models' / 'miniature_motion.safetensors'}",
    "--prompt=a red circle", "--device=cpu", "--select-every-nth-frame=1", "--seed=0",
]  # fmt: skip
LONGEST_WAIT_SECONDS = 15.0


def write_clips(folder: Path, count: int, frames: int) -> list[Path]:
    """Write clips of 64x64; every eighth has two scenes, which are two units."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(count):
        scenes = 2 if index % 8 == 0 else 1
        with VideoWriter(
            folder / f"{index:03}.mp4", width=64, height=64, frame_rate=Fraction(8)
        ) as writer:
            for _ in range(scenes):
                colour = rng.integers(0, 255, 3, dtype=np.uint8)
                for step in range(16 if scenes > 1 else frames):
                    frame = np.broadcast_to(colour, (1, 64, 64, 3)).copy()
                    frame[:, 16:48, step : step + 16] = 255 - colour
                    writer.write(frame)
    return sorted(folder.iterdir())


def results(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.mp4"))}


def workers_of(pid: int) -> list[int]:
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in (each / "cmdline").read_bytes():
                found.append(int(each.name))
        except OSError:
            continue
    return found


def kills(folder: Path, *, clips: int, kills: int, engine: str) -> bool:
    write_clips(folder / "clips", clips, frames=8)
    more = ["--steps=1", "--workers=2", f"--engine={engine}"]
    whole, killed = folder / "whole", folder / "killed"

    def command(out: Path) -> list[str]:
        return [*PROGRAM, "batch", str(folder / "clips"), str(out), *OPTIONS, *more]

    began = time.monotonic()
    subprocess.run(command(whole), check=True, capture_output=True)
    seconds = time.monotonic() - began
    rng = random.Random(0)
    left, restarts, all_killed = kills, 0, 0
    while left:
        process = subprocess.Popen(
            command(killed),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        restarts += 1
        while left:
            try:
                process.wait(rng.uniform(0.5, LONGEST_WAIT_SECONDS))
                break
            except subprocess.TimeoutExpired:
                pass
            left -= 1
            workers = workers_of(process.pid)
            if workers and rng.random() < 0.6:
                os.kill(rng.choice(workers), signal.SIGKILL)
                continue
            all_killed += 1
            for each in [process.pid, *workers]:
                os.kill(each, signal.SIGKILL)
            break
        if left == 0 and process.poll() is None:
            process.communicate()
        process.wait()
        if process.returncode == 0 and left:
            # All is done: the rest of the kills hits a batch that begins again.
            for path in list(killed.glob("*.mp4"))[::2]:
                path.unlink()
    subprocess.run(command(killed), check=True, capture_output=True)
    with sqlite3.connect(killed / "ledger.sqlite") as ledger:
        rows = ledger.execute("SELECT state, attempts, begun, ended FROM units").fetchall()
        before = ledger.execute("SELECT name, ended, attempts FROM units ORDER BY name").fetchall()
    last = subprocess.run(command(killed), check=True, capture_output=True, text=True)
    with sqlite3.connect(killed / "ledger.sqlite") as ledger:
        after = ledger.execute("SELECT name, ended, attempts FROM units ORDER BY name").fetchall()
    is_equal = results(whole) == results(killed)
    states = {row[0] for row in rows}
    print(
        f"{clips} clips, {len(rows)} units, {kills} kills ({all_killed} of all processes), "
        f"{restarts} runs; uninterrupted {seconds:.0f} s"
    )
    print(
        f"every byte equal: {is_equal}; states {states}; most attempts "
        f"{max(row[1] for row in rows)}; last run did nothing: {before == after} "
        f"({last.stdout.strip()})"
    )
    return is_equal and states == {"done"} and before == after


def amortising(folder: Path, *, clips: int) -> bool:
    paths = write_clips(folder / "clips", clips, frames=8)
    more = ["--steps=4"]

    def measured(commands: list[list[str]]) -> tuple[float, float]:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        for command in commands:
            subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return time.monotonic() - began, used

    loop = [
        [*PROGRAM, "run", str(path), str(folder / path.name), *OPTIONS, *more] for path in paths
    ]
    one = measured(loop)
    many = measured(
        [[*PROGRAM, "batch", str(folder / "clips"), str(folder / "out"), *OPTIONS, *more]]
    )
    print(f"{clips} clips in a shell loop: {one[0]:.1f} s ({one[1]:.1f} s of CPU)")
    print(
        f"in a batch, with its page: {many[0]:.1f} s ({many[1]:.1f} s of CPU), "
        f"{many[0] / one[0]:.2f} ({many[1] / one[1]:.2f})"
    )
    return many[0] <= 0.45 * one[0]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["kills", "amortising"])
    parser.add_argument("--clips", type=int, default=0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--engine", default="local")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.what == "kills":
            good = kills(
                Path(folder), clips=given.clips or 40, kills=given.kills, engine=given.engine
            )
        else:
            good = amortising(Path(folder), clips=given.clips or 10)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
