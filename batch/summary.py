"""The progress of a batch, counted from its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .ledger import Row
from .run import FOUND


@dataclass(frozen=True)
class Summary:
    """The state of a batch."""

    clips: int
    clips_done: int
    clips_failed: int
    units: int
    units_done: int
    frames: int
    """Frames to restyle."""
    frames_done: int
    frames_per_second: float
    """Of all workers together, since the first unit of this run began; 0 if that is not known."""

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the rest is done, if it goes on like this; None if that is not known."""
        left = self.frames - self.frames_done
        return left / self.frames_per_second if self.frames_per_second else None

    def sentence(self) -> str:
        """Return the state in one line."""
        parts = [f"{self.clips_done} of {self.clips} clips"]
        if self.units > self.clips:
            parts.append(f"{self.units_done} of {self.units} units")
        if self.frames_per_second:
            parts.append(f"{self.frames_per_second:.2g} frames/s")
        left = self.seconds_left
        if left:
            parts.append(f"{duration(left)} left")
        if self.clips_failed:
            parts.append(f"{self.clips_failed} failed")
        return ", ".join(parts)

    def beginning(self) -> str:
        """Return in one line what is done already, and how many clips are left to restyle."""
        if not self.clips_done + self.clips_failed:
            return f"restyling {self.clips} clip{'s' * (self.clips > 1)}"
        failed = f", {self.clips_failed} failed" if self.clips_failed else ""
        already = f"{self.clips_done} of {self.clips} clips are done already{failed}"
        left = self.clips - self.clips_done - self.clips_failed
        return f"{already}; restyling {left}" if left else already


def summarize(rows: Sequence[Row], *, since: float = 0.0, now: float | None = None) -> Summary:
    """Count rows.

    Args:
        rows: All rows of the ledger.
        since: Units that ended before are not counted for the speed.
        now: The end of the time that is measured; None is the end of the last unit.
    """
    clips = [row for row in rows if row.kind in ("clip", "join")]
    work = [row for row in rows if row.kind in ("clip", "part")]
    done = [row for row in work if row.state == "done"]
    measured = [row for row in done if row.worker != FOUND and (row.ended or 0) >= since]
    begun = min((row.begun for row in measured if row.begun), default=0.0)
    ended = now if now is not None else max((row.ended or 0 for row in measured), default=0.0)
    seconds = ended - max(begun, since)
    frames = sum(row.frames for row in measured)
    failed = {row.clip for row in rows if row.state == "failed" and row.kind != "source"}
    return Summary(
        clips=len(clips),
        clips_done=sum(row.state == "done" for row in clips),
        clips_failed=len(failed),
        units=len(work),
        units_done=len(done),
        frames=sum(row.frames for row in work if row.clip not in failed),
        frames_done=sum(row.frames for row in done if row.clip not in failed),
        frames_per_second=frames / seconds if measured and seconds > 0 else 0.0,
    )


def duration(seconds: float) -> str:
    """Return seconds in words.

    >>> [duration(each) for each in (12.4, 200, 7300)]
    ['12 s', '3 min', '2.0 h']
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
