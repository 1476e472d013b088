"""Seconds that runs took on this machine, from which the time of the next ones is estimated."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..pipeline import ContextOptions, SamplingSettings
from ..pipeline.sampling.windows import context_windows
from . import host

logger = logging.getLogger(__name__)

FILE = "run_times.json"
MOST_CHECKPOINTS = 50


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of a run.

    Attributes:
        windows: context windows of a step.
        coded: frames times their pixels, for encoding and decoding.
        sampled: the same for all passes through the UNet, where windows overlap more than once.
    """

    windows: int
    coded: int
    sampled: int

    @staticmethod
    def of(
        frame_count: int,
        *,
        width: int,
        height: int,
        settings: SamplingSettings,
        context: ContextOptions,
    ) -> Work:
        """Return the work for frames of a size, in the windows of `context`."""
        windows = context_windows(frame_count, context)
        in_windows = sum(len(window) for window in windows)
        pixels = width * height
        return Work(
            windows=len(windows),
            coded=frame_count * pixels,
            sampled=in_windows * pixels * settings.passes,
        )


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds for each unit of work; see Work."""

    coding: float
    sampling: float


def remember_run(checkpoint: str, work: Work, seconds: Mapping[str, float]) -> None:
    """Store how fast a finished run was, instead of the last one with this checkpoint.

    Args:
        checkpoint: the name of its file.
        work: what was done.
        seconds: spent in each phase, by its name; see Phase.
    """
    if not (work.coded and work.sampled):
        return
    speed = Speed(
        coding=(seconds.get("encode", 0.0) + seconds.get("decode_latents", 0.0)) / work.coded,
        sampling=seconds.get("sample", 0.0) / work.sampled,
    )
    stored = {name: each for name, each in _stored().items() if name != checkpoint}
    stored[checkpoint] = asdict(speed)
    latest = dict([*stored.items()][-MOST_CHECKPOINTS:])
    path = _path()
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(latest), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        logger.warning("The time of this run is not remembered for estimates: %s", error)


def expected_seconds(checkpoint: str, work: Work) -> float | None:
    """Return the seconds that work takes at the speed of the last run, without loading models.

    None if no run with this checkpoint has finished on this machine.
    """
    try:
        speed = Speed(**_stored()[checkpoint])
        return float(speed.coding * work.coded + speed.sampling * work.sampled)
    except (KeyError, TypeError):
        return None


def _stored() -> dict[str, Any]:
    """Return what is stored, by checkpoint; nothing if the file is missing or damaged."""
    try:
        stored = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _path() -> Path:
    return host.data_folder() / FILE
