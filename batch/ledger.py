"""The ledger of a batch: a SQLite file that says what is done, by whom, and what failed."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

from ..pipeline.errors import AnimateDiffV2VError, DiskFull
from ..pipeline.part_folder import lock_file
from .digests import Stamp
from .unit import Unit, unit_document, unit_restored

LEDGER = "ledger.sqlite"
LOCK = ".ledger.lock"
_FORMAT = 1
_BUSY_SECONDS = 30.0

State = Literal["waiting", "running", "done", "failed"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS units (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    kind TEXT NOT NULL,
    clip TEXT NOT NULL,
    digest TEXT NOT NULL,
    frames INTEGER NOT NULL,
    document TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    begun REAL,
    ended REAL,
    sentence TEXT,
    result_digest TEXT,
    result_bytes INTEGER,
    result_changed INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS file_digests (
    path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, changed INTEGER NOT NULL, digest TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS scans (
    key TEXT PRIMARY KEY, frames INTEGER NOT NULL, starts TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True)
class Row:
    """A row of the ledger: a unit and its state."""

    name: str
    kind: str
    clip: str
    digest: str
    frames: int
    state: State
    attempts: int
    worker: str | None
    begun: float | None
    ended: float | None
    sentence: str | None
    result_digest: str | None
    stamp: Stamp | None
    """Size and time of change of the result, when it was written."""

    @property
    def seconds(self) -> float:
        """Seconds that the last attempt took; 0 if it has not ended."""
        return self.ended - self.begun if self.begun and self.ended else 0.0


class Ledger:
    """Units and their states, and what was learned about files. A context manager.

    One process may change it at a time; others may read it meanwhile.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Open the ledger of an output folder, which is made if it is missing.

        Raises:
            AnimateDiffV2VError: another process works on this folder, the file is not a ledger, or
                with `read_only` there is none.
        """
        self.folder = folder
        self._guard = threading.RLock()
        path = folder / LEDGER
        if read_only and not path.is_file():
            raise AnimateDiffV2VError(f"{folder} holds no batch: there is no {LEDGER} in it.")
        self._lock = None if read_only else _locked(folder)
        try:
            mode = "ro" if read_only else "rwc"
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}",
                uri=True,
                timeout=_BUSY_SECONDS,
                check_same_thread=False,
                isolation_level=None,
            )
            self._connection.row_factory = sqlite3.Row
            with self._worded():
                self._prepare(path, read_only=read_only)
        except BaseException:
            self._release()
            raise

    def _prepare(self, path: Path, *, read_only: bool) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _FORMAT) or (read_only and version == 0):
            raise AnimateDiffV2VError(
                f"{path} has the format {version} and this version knows {_FORMAT}: update "
                "animatediff-v2v, or move the file away; results that are done are found again."
            )
        if not read_only:
            self._connection.executescript(_SCHEMA)
            self._connection.execute(f"PRAGMA user_version = {_FORMAT}")

    def __enter__(self) -> Ledger:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file and let other processes work on the folder."""
        self._connection.close()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()

    # --- units -----------------------------------------------------------------------------------

    def store_plan(self, units: Iterable[Unit]) -> None:
        """Replace the plan. Rows of units whose digest is the same stay as they are.

        Units that were running are waiting again: whoever ran them is gone.
        """
        with self._transaction() as connection:
            known = [row["name"] for row in connection.execute(_ALL)]
            named = set()
            for position, unit in enumerate(units):
                named.add(unit.name)
                values = {
                    "name": unit.name, "position": position, "kind": unit.kind, "clip": unit.clip,
                    "digest": unit.digest, "frames": unit.frames,
                    "document": json.dumps(unit_document(unit)),
                }  # fmt: skip
                connection.execute(_STORE, values)
                if unit.problem:
                    connection.execute(_PROBLEM, (unit.problem, unit.name))
            gone = [(name,) for name in known if name not in named]
            connection.executemany("DELETE FROM units WHERE name = ?", gone)
            connection.execute("UPDATE units SET state = 'waiting' WHERE state = 'running'")

    def units(self) -> list[Unit]:
        """Return the plan, in order."""
        with self._worded():
            rows = self._connection.execute("SELECT document FROM units ORDER BY position")
            return [unit_restored(json.loads(row["document"])) for row in rows]

    def rows(self) -> list[Row]:
        """Return all rows, in the order of the plan."""
        with self._worded():
            found = self._connection.execute(_ALL).fetchall()
        return [_row(each) for each in found]

    def reset(self, name: str) -> None:
        """Set a unit to waiting, with no attempt made."""
        self._execute(
            "UPDATE units SET state = 'waiting', attempts = 0, sentence = NULL WHERE name = ?",
            (name,),
        )

    def begin(self, name: str, worker: str, now: float) -> None:
        """Note that a worker has begun a unit."""
        self._execute(
            "UPDATE units SET state = 'running', attempts = attempts + 1, worker = ?, begun = ?, "
            "ended = NULL WHERE name = ?",
            (worker, now, name),
        )

    def finish(self, name: str, *, worker: str, now: float, result: str, stamp: Stamp) -> bool:
        """Note a unit's result; return False if it was done already."""
        changed = self._execute(
            "UPDATE units SET state = 'done', worker = ?, ended = ?, sentence = NULL, "
            "result_digest = ?, result_bytes = ?, result_changed = ? "
            "WHERE name = ? AND state != 'done'",
            (worker, now, result, *stamp, name),
        )
        return changed == 1

    def wait(self, name: str) -> None:
        """Note that a unit that was begun waits again."""
        self._execute("UPDATE units SET state = 'waiting' WHERE name = ?", (name,))

    def put_aside(self, name: str, sentence: str, now: float) -> None:
        """Note that a unit has failed for good, and why."""
        self._execute(
            "UPDATE units SET state = 'failed', sentence = ?, ended = ? WHERE name = ?",
            (sentence, now, name),
        )

    # --- files -----------------------------------------------------------------------------------

    def digest_of(self, path: Path, stamp: Stamp) -> str | None:
        """Return the digest of a file that has not changed since; None if it is not known."""
        with self._worded():
            row = self._connection.execute(
                "SELECT digest FROM file_digests WHERE path = ? AND bytes = ? AND changed = ?",
                (str(path), *stamp),
            ).fetchone()
        return None if row is None else str(row["digest"])

    def keep_digest(self, path: Path, stamp: Stamp, digest: str) -> None:
        """Remember the digest of a file."""
        self._execute(
            "INSERT OR REPLACE INTO file_digests VALUES (?, ?, ?, ?)", (str(path), *stamp, digest)
        )

    def scan(self, key: str) -> tuple[int, list[int]] | None:
        """Return the frames and scene starts of a clip; None if it was not scanned."""
        with self._worded():
            row = self._connection.execute("SELECT * FROM scans WHERE key = ?", (key,)).fetchone()
        return None if row is None else (row["frames"], json.loads(row["starts"]))

    def keep_scan(self, key: str, frames: int, starts: list[int]) -> None:
        """Remember the frames and scene starts of a clip."""
        self._execute(
            "INSERT OR REPLACE INTO scans VALUES (?, ?, ?)", (key, frames, json.dumps(starts))
        )

    # --- SQLite ----------------------------------------------------------------------------------

    def _execute(self, statement: str, values: tuple[Any, ...]) -> int:
        with self._worded():
            return self._connection.execute(statement, values).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._worded():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _worded(self) -> Iterator[None]:
        """Let one thread in at a time, and turn SQLite's errors into sentences."""
        path = self.folder / LEDGER
        try:
            with self._guard:
                yield
        except sqlite3.OperationalError as error:
            if "full" in str(error) or "disk I/O" in str(error):
                raise DiskFull(
                    f"{path} was not written ({error}): the disk is full or failing; free some "
                    "space and give the same command again."
                ) from error
            raise AnimateDiffV2VError(f"{path} cannot be used: {error}.") from error
        except sqlite3.DatabaseError as error:
            raise AnimateDiffV2VError(
                f"{path} is damaged ({error}): move it away and give the same command again; "
                "results that are done are found again."
            ) from error


_ALL = "SELECT * FROM units ORDER BY position"
_STORE = """INSERT INTO units (name, position, kind, clip, digest, frames, document, state)
VALUES (:name, :position, :kind, :clip, :digest, :frames, :document, 'waiting')
ON CONFLICT (name) DO UPDATE SET position = :position, kind = :kind, clip = :clip,
frames = :frames, document = :document,
state = iif(digest = :digest, state, 'waiting'), attempts = iif(digest = :digest, attempts, 0),
sentence = iif(digest = :digest, sentence, NULL), digest = :digest"""
_PROBLEM = "UPDATE units SET state = 'failed', sentence = ? WHERE name = ?"


def _row(found: sqlite3.Row) -> Row:
    columns = [each for each in Row.__dataclass_fields__ if each != "stamp"]
    stamp = (found["result_bytes"], found["result_changed"])
    return Row(**{name: found[name] for name in columns}, stamp=None if None in stamp else stamp)


def _locked(folder: Path) -> BinaryIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a+b")
    except OSError as error:
        raise AnimateDiffV2VError(
            f"{folder} cannot be used as the output folder: {error.strerror}; choose another one."
        ) from error
    try:
        lock_file(lock)
    except OSError:
        lock.close()
        raise AnimateDiffV2VError(
            f"Another process works on {folder}: wait for it or end it, or choose another folder. "
            f"`animatediff-v2v batch --status {folder}` shows its progress."
        ) from None
    return lock


def is_being_worked_on(folder: Path) -> bool:
    """Return whether a process works on an output folder now."""
    try:
        with (folder / LOCK).open("r+b") as lock:
            lock_file(lock)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
