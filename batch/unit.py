"""A unit of work: what one worker does at a time."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.memory.ram import default_ram_bytes
from ..pipeline.request import ModelFiles, Request
from .digests import Stamp
from .documents import document, restored

# clip: restyles a whole clip. part: restyles some frames of one, stored without loss. join: makes
# the clip of its parts. source: makes the small copy of the source that the page shows.
Kind = Literal["clip", "part", "join", "source"]


# Where clips are cut: at scene changes that ffmpeg's filter or TransNet V2 finds, or only where
# they are too long.
Shots = Literal["scenes", "whole", "transnetv2"]
# Longer shots are cut into parts.
PART_FRAMES = 256
# Style images that are spread over the clip, so that each frame has its own mix of them.
SPREAD = ("travel", "per_window")


@dataclass(frozen=True)
class Job:
    """A clip to restyle; the request's output is a file in the output folder."""

    request: Request
    files: ModelFiles
    max_ram_gb: float | None = None
    """See Scratch; the result does not depend on it."""
    guides: str = ""
    """A digest of loaded guides that are used besides the request's; such a job can only be done
    where they are loaded."""
    is_whole: bool = False
    """True if those guides depend on the number of a frame, so that the clip is not cut."""


class FilesChanged(AnimateDiffV2VError):
    """A file is no longer what the batch was planned with; a new plan is needed."""


@dataclass(frozen=True)
class Span:
    """The frames of a clip that a part restyles."""

    start: int
    stop: int
    overlap: int = 0
    """Frames at the beginning that the part before it restyles too."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit of work, which depends on nothing but what is in it."""

    name: str
    kind: Kind
    clip: str
    """The name of the clip's result in the output folder."""
    request: Request
    files: ModelFiles
    digest: str = ""
    models: str = ""
    """The digest of the model files: workers keep networks loaded for the next unit."""
    frames: int = 0
    """Frames to restyle, to write into a joined clip, or 0 if that is not known."""
    source_frames: int = 0
    """All frames of the clip's source, or 0 if that is not known."""
    spans: tuple[Span, ...] = ()
    """For a join: the frames of its parts."""
    parts: tuple[Path, ...] = ()
    """For a join: the files of its parts."""
    needs: tuple[str, ...] = ()
    """The names of units that come before it."""
    stamps: dict[str, Stamp] = field(default_factory=dict)
    """Sizes and times of change of the files that it reads, when the batch was planned."""
    max_ram_gb: float | None = None
    """See Job."""
    guides: str = ""
    """See Job."""
    problem: str = ""
    """The reason why it cannot be done, if that is known already."""

    @property
    def target(self) -> Path:
        """The file or folder that it writes."""
        return self.request.output


def with_ram_share(unit: Unit, *, workers: int) -> Unit:
    """Return a unit that is limited to its share of the default memory, unless it has a limit.

    Args:
        unit: The unit.
        workers: The number of workers on this machine, which share a quarter of its memory.
    """
    if unit.max_ram_gb is not None:
        return unit
    return replace(unit, max_ram_gb=default_ram_bytes() / workers / 1e9)


def unit_document(unit: Unit) -> dict[str, Any]:
    """Return a unit as data for JSON."""
    data: dict[str, Any] = document(replace(unit, stamps={}))
    return data | {"stamps": {path: list(stamp) for path, stamp in unit.stamps.items()}}


def unit_restored(data: dict[str, Any]) -> Unit:
    """Return the unit that `unit_document` described."""
    stamps = {path: (size, changed) for path, (size, changed) in data["stamps"].items()}
    names = [each.name for each in fields(Unit) if each.name in data and each.name != "stamps"]
    kept = {name: data[name] for name in names}
    unit = restored(Unit, kept)
    return replace(unit, stamps=stamps, parts=tuple(map(Path, unit.parts)))
