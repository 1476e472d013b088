"""A batch that is being worked on: the ledger and the coordinator, kept in step for an engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.output_file import is_there
from ..pipeline.part_folder import remove_abandoned
from ..pipeline.sampling.kept_calls import remove_kept
from .coordinator import Coordinator, Task, Verdict
from .digests import Stamp, content_digest, stamp_of
from .ledger import Ledger, Row
from .plan import PARTS_FOLDER, SOURCES_FOLDER, marked
from .unit import Unit

# The worker of results that were there already.
FOUND = "found"
_REMOVED: Stamp = (0, 0)


@dataclass(frozen=True)
class Event:
    """An event in the life of a unit, for the display."""

    kind: Literal["begun", "progress", "done", "again", "put aside", "worker lost"]
    worker: str
    unit: Unit | None = None
    fraction: float = 0.0
    sentence: str = ""
    at: float = 0.0
    """Seconds on the engine's clock."""
    frames: int = 0


@dataclass(frozen=True)
class Result:
    """The result of a unit, as an engine reports it."""

    digest: str
    stamp: Stamp
    frames: int


class BatchRun:
    """Units on their way through workers. Only the thread of the engine may call it."""

    def __init__(
        self,
        ledger: Ledger,
        units: Sequence[Unit],
        *,
        overwrite: bool = False,
        on_event: Callable[[Event], None] = lambda _event: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Store the plan, and find what is done already.

        Args:
            ledger: The ledger of the output folder.
            units: The plan.
            overwrite: Replace files in the output folder that are not results of a batch.
            on_event: Called with everything that happens.
            clock: Returns seconds.
        """
        self.ledger, self._clock, self._on_event = ledger, clock, on_event
        self.units = {unit.name: unit for unit in units}
        ledger.store_plan(units)
        done, failed = self._settle(overwrite=overwrite)
        tasks = [
            Task(unit.name, "" if unit.kind == "source" else unit.models, unit.needs)
            for unit in units
        ]
        self.coordinator = Coordinator(tasks, done=done, failed=failed)

    @property
    def is_finished(self) -> bool:
        """True when nothing is left that can be done."""
        return self.coordinator.is_finished

    # --- what engines call -----------------------------------------------------------------------

    def take(self, worker: str, *, models: str = "", repeats: bool = False) -> Unit | None:
        """Return the next unit for a worker; None if there is none now."""
        task = self.coordinator.take(worker, self._clock(), models=models, repeats=repeats)
        return None if task is None else self.units[task.name]

    def begin(self, worker: str, name: str) -> None:
        """Note that a worker has begun a unit that it took."""
        now = self._clock()
        self.coordinator.begin(worker, name, now)
        self.ledger.begin(name, worker, now)
        self._tell("begun", worker, name)

    def progress(self, worker: str, name: str, fraction: float, message: str) -> None:
        """Pass on how far a unit is."""
        self._on_event(Event("progress", worker, self.units[name], fraction, message))

    def finish(self, worker: str, name: str, result: Result) -> None:
        """Note a unit's result, unless its file is not there (a write that was lost)."""
        unit = self.units[name]
        try:
            is_written = stamp_of(unit.target) == result.stamp
        except AnimateDiffV2VError:
            is_written = False
        if not is_written:
            self.fail(worker, name, f"{unit.target} was written, but is not there.")
            return
        now = self._clock()
        if not self.coordinator.finish(worker, name, now):
            return
        self.ledger.finish(name, worker=worker, now=now, result=result.digest, stamp=result.stamp)
        if unit.kind == "join":
            self._remove_parts(unit)
        self._tell("done", worker, name, frames=result.frames)

    def fail(self, worker: str, name: str, sentence: str) -> None:
        """Note that a unit has failed; it is given to another worker, or put aside."""
        self._conclude(worker, self.coordinator.fail(worker, name), sentence)

    def lose(self, worker: str, sentence: str, *, running: str | None = None) -> None:
        """Note that a worker has died; its units are given to others."""
        self._on_event(Event("worker lost", worker, sentence=sentence))
        self._conclude(worker, self.coordinator.lose(worker, running=running), sentence)

    def stop(self) -> None:
        """Note that all workers have stopped: what they had waits again."""
        for row in self.ledger.rows():
            if row.state == "running":
                self.ledger.wait(row.name)

    def clean(self) -> None:
        """Remove what killed workers have left in the output folder."""
        for name in ("", PARTS_FOLDER, SOURCES_FOLDER):
            remove_abandoned(self.ledger.folder / name)
        states = {row.name: row.state for row in self.ledger.rows()}
        units = self.units.values()
        unfinished = {unit.digest for unit in units if states.get(unit.name) != "done"}
        for parent in {unit.target.parent for unit in units}:
            remove_abandoned(parent)
            remove_kept(parent, but=unfinished)
        with suppress(OSError):  # not empty, while parts wait for others
            (self.ledger.folder / PARTS_FOLDER).rmdir()

    # --- inside ----------------------------------------------------------------------------------

    def _conclude(
        self, worker: str, verdicts: Sequence[tuple[str, Verdict]], sentence: str
    ) -> None:
        first = verdicts[0][0] if verdicts else ""
        for name, verdict in verdicts:
            if verdict == "again":
                self.ledger.wait(name)
            else:
                why = sentence if name == first else f"{first} has failed: {sentence}"
                self.ledger.put_aside(name, why, self._clock())
            self._tell(verdict, worker, name, sentence=sentence)

    def _tell(
        self,
        kind: Literal["begun", "done", "again", "put aside"],
        worker: str,
        name: str,
        *,
        sentence: str = "",
        frames: int = 0,
    ) -> None:
        self._on_event(Event(kind, worker, self.units[name], 0.0, sentence, self._clock(), frames))

    def _settle(self, *, overwrite: bool) -> tuple[list[str], list[str]]:
        """Return the names of units that are done, and of those that cannot be done."""
        rows = {row.name: row for row in self.ledger.rows()}
        done, failed = set(), []
        # Joins come after their parts, so that a clip that is done needs no parts.
        for unit in reversed(self.units.values()):
            row = rows[unit.name]
            if unit.problem:
                failed.append(unit.name)
                self._tell("put aside", "", unit.name, sentence=unit.problem)
            elif unit.name in done:
                if row.state != "done":
                    self._found(unit, "", _REMOVED)
            elif self._stands(unit, row):
                done.add(unit.name)
                done.update(unit.needs)
                if unit.kind == "join":
                    self._remove_parts(unit)
            elif unit.kind != "part" and not overwrite and self._is_foreign(unit, row):
                sentence = (
                    f"{unit.target} exists already and is not of a batch: move it away, or set "
                    "overwrite to replace it."
                )
                failed.append(unit.name)
                self.ledger.put_aside(unit.name, sentence, self._clock())
                self._tell("put aside", "", unit.name, sentence=sentence)
            elif row.state != "waiting":
                self.ledger.reset(unit.name)
        return [name for name in self.units if name in done], failed

    def _stands(self, unit: Unit, row: Row) -> bool:
        """Return whether a unit's result is there and unchanged."""
        if not is_there(unit.target):
            return False
        stamp = stamp_of(unit.target)
        if row.state == "done" and row.stamp == stamp:
            return True
        if marked(unit.target) != unit.digest:
            return False
        # The ledger was lost, or a worker was killed before its row was written.
        if row.state == "done":
            self.ledger.reset(unit.name)
        self._found(unit, content_digest(unit.target), stamp)
        return True

    def _found(self, unit: Unit, digest: str, stamp: Stamp) -> None:
        self.ledger.finish(unit.name, worker=FOUND, now=self._clock(), result=digest, stamp=stamp)

    def _is_foreign(self, unit: Unit, row: Row) -> bool:
        if not is_there(unit.target) or unit.kind == "source":
            return False
        return row.stamp != stamp_of(unit.target) and marked(unit.target) is None

    def _remove_parts(self, unit: Unit) -> None:
        for path in unit.parts:
            _remove(path)


def _remove(path: Path) -> None:
    with suppress(OSError):  # it is removed at the next run
        path.unlink(missing_ok=True)
