"""The work that `speed.py` gives to contenders, and its protocol with them.

A contender is a separate process. It gets its task as JSON on its command line and loads its
networks. For each line with a number of steps on stdin, it does the work in that many steps and
answers with a line of JSON; the first line reports the loading. Input and output are frames of 8
bits; prompts are encoded beforehand.
This module imports nothing of this package, because other programs' interpreters run it too.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

WINDOW_LENGTH, WINDOW_OVERLAP = 16, 4
Phases = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One row of the comparison."""

    width: int
    height: int
    frames: int
    steps: int
    guidance: float

    @property
    def is_windowed(self) -> bool:
        """True when the video is longer than a window."""
        return self.frames > WINDOW_LENGTH


@dataclass(frozen=True, kw_only=True)
class Task:
    """The input of a contender."""

    work: Work
    checkpoint: Path
    motion_module: Path
    folder: Path
    device: torch.device
    dtype: torch.dtype

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Task:
        told = json.loads(text)
        return cls(
            work=Work(**told["work"]),
            **{name: Path(told[name]) for name in ("checkpoint", "motion_module", "folder")},
            device=torch.device(told["device"]),
            dtype=getattr(torch, told["dtype"].removeprefix("torch.")),
        )


@dataclass(frozen=True)
class Made:
    """The result of a run: seconds by phase, and frames [frames, height, width, 3], uint8."""

    phases: Phases
    frames: torch.Tensor
    latents: torch.Tensor | None = None
    """Sampled and unscaled, where the contender shows them."""


Run = Callable[[int], Made]


class Clock:
    """Seconds between marks, in elapsed and CPU time, including the device's pending work."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: dict[str, tuple[float, float]] = {}

    def mark(self, phase: str) -> None:
        """Begin a phase; if a name is marked twice, the last mark counts."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._marks.pop(phase, None)
        self._marks[phase] = time.perf_counter(), time.process_time()

    def phases(self) -> Phases:
        """Return the seconds of each phase: elapsed under its name, CPU time under `cpu_name`."""
        self.mark("end")
        marks, phases = list(self._marks.items()), {}
        self._marks.clear()
        for (name, begin), (_, end) in pairwise(marks):
            phases[name], phases[f"cpu_{name}"] = (end[i] - begin[i] for i in range(2))
        return phases


def drawn_prompts(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    positive, negative = torch.randn(2, 1, 77, channels, generator=generator)
    return positive, negative


def drawn_frames(work: Work) -> np.ndarray:
    random = np.random.default_rng(3)
    size = (work.frames, work.height, work.width, 3)
    return random.integers(0, 256, size, dtype=np.uint8)


def serve(name: str, load: Callable[[Task], Run], task: Task) -> None:
    """Load a contender, then run it whenever a line with a number of steps comes in.

    Writes a line of JSON for the loading and for each run; the latest run's latents are in the
    task's folder, see `latest_latents`.
    """
    answers = os.fdopen(os.dup(1), "w")
    with redirect_stdout(sys.stderr):
        run = load(task)
        answer = {"peak_GB": peak_gigabytes(task.device, running=False)}
        while True:
            print(json.dumps(answer), file=answers, flush=True)
            line = sys.stdin.readline()
            if not line:
                return
            begin, busy = time.perf_counter(), time.process_time()
            made = run(int(line))
            seconds = time.perf_counter() - begin
            answer = {
                "seconds": seconds,
                "cpu_seconds": time.process_time() - busy,
                **made.phases,
                "peak_GB": peak_gigabytes(task.device, running=True),
            }
            check(name, made, task.work)
            torch.save(made.latents, task.folder / f"{name}.pt")


def check(name: str, made: Made, work: Work) -> None:
    expected = (work.frames, work.height, work.width, 3)
    if made.frames.dtype != torch.uint8 or made.frames.shape != expected:
        raise SystemExit(f"{name} gave {made.frames.shape} and not {expected}.")
    if made.latents is not None and not made.latents.isfinite().all():
        raise SystemExit(f"{name} gave latents that are not finite.")


def latest_latents(folder: Path, name: str) -> torch.Tensor | None:
    """Load the latents of a contender's latest run."""
    latents: torch.Tensor | None = torch.load(folder / f"{name}.pt", weights_only=True)
    return latents


def peak_gigabytes(device: torch.device, *, running: bool) -> float:
    """Return the peak so far, separately for loading and for running if the system allows it."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak / 1e9
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # macOS counts bytes
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    if not running:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    return int(lines["VmHWM"].split()[0]) * 1024 / 1e9
