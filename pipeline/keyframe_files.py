"""Keyframes of a job from file to file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .choices import check_types
from .errors import AnimateDiffV2VError
from .ranges import CONTROL_STRENGTH
from .sampling.span import WHOLE_SCHEDULE, Span

_WHOLE_NUMBER = re.compile(r"-?\d{1,7}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class KeyframeFiles:
    """A SparseCtrl model's file, and pictures of a few frames of the output."""

    network: Path
    """A SparseCtrl model of AnimateDiff v3, for pictures (RGB) or scribbles."""
    pictures: tuple[Path, ...]
    """Each is cropped around the middle to the video's aspect ratio."""
    frames: tuple[int, ...]
    """The frame of the output that each picture shows, without those that `restore_frames` adds; -1
    is the last one."""
    strength: float = 1.0
    span: Span = WHOLE_SCHEDULE
    mask: Path | None = None
    """Where the network acts: a file as for `ControlFile.mask`."""

    def __post_init__(self) -> None:
        """Refuse values that no sampler can use; convert text to paths and lists to tuples."""
        check_types(self)
        CONTROL_STRENGTH.check("keyframe strength", self.strength)
        if not self.pictures or len(self.pictures) != len(self.frames):
            raise AnimateDiffV2VError(
                f"{len(self.pictures)} pictures and {len(self.frames)} frames are given for "
                "keyframes: give at least one picture, and a frame for each."
            )


def parse_frames(text: str) -> tuple[int, ...]:
    """Return the frame numbers of a text, separated by commas, spaces or line breaks.

    >>> parse_frames("0, 24, -1")
    (0, 24, -1)

    Raises:
        AnimateDiffV2VError: there are none, or one is no whole number.
    """
    parts = text.replace(",", " ").split()
    wrong = next((part for part in parts if not _WHOLE_NUMBER.fullmatch(part)), None)
    if wrong is not None or not parts:
        found = repr(wrong) if wrong is not None else "empty"
        raise AnimateDiffV2VError(
            f"frames is {found}; it must be frame numbers separated by commas, for example "
            "0, 24; -1 is the last frame."
        )
    return tuple(map(int, parts))
