"""The SQLite file of requests, their logs, outputs and webhooks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...pipeline import AnimateDiffV2VError
from ..storage.clock import SteadyClock
from ..storage.database import Database
from ..storage.disk import StorageFull
from ..wire.outcome import Answer
from .outbox import SCHEMA as OUTBOX
from .outbox import Delivery, Outbox
from .outputs import SCHEMA as OUTPUTS
from .outputs import OutputTable
from .records import NewRequest, StoredRequest, from_row

SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    endpoint_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    input TEXT NOT NULL,
    is_low_priority INTEGER NOT NULL,
    start_before REAL,
    webhook_url TEXT,
    video_file TEXT,
    origin TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done')),
    is_cancelled INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    status INTEGER,
    answer TEXT,
    error_type TEXT,
    is_webhook_due INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    ran_seconds REAL
);
CREATE INDEX IF NOT EXISTS unfinished ON requests (state) WHERE state != 'done';
CREATE INDEX IF NOT EXISTS webhooks_due ON requests (is_webhook_due) WHERE is_webhook_due;
CREATE TABLE IF NOT EXISTS logs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    time REAL NOT NULL,
    level TEXT NOT NULL,
    message TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS logs_of ON logs (request_id, sequence);
"""
# is_webhook_due is only set by earlier versions, which did not store the delivery itself.
VERSION = 1
ADDED = {"requests": {"attempts": "INTEGER NOT NULL DEFAULT 0", "ran_seconds": "REAL"}}
LONGEST_INPUT = 2**20
"""Bytes of a request's input as JSON: videos are files, and no field is long."""


class QueueFull(AnimateDiffV2VError):
    """The queue holds as many unfinished requests as the settings allow."""


@dataclass(frozen=True)
class LogLine:
    """A line of a request's log; `time` in seconds since the epoch."""

    sequence: int
    time: float
    level: str
    message: str


class Store:
    """The requests of one SQLite file. Methods may be called from any thread; they run in turn.

    A method that writes returns when the data is on the disk, and raises StorageFull when the disk
    is full. Reading still works then.

    outputs: the files that requests produced.
    outbox: the webhooks to deliver.
    """

    def __init__(self, path: Path, *, max_bytes: int | None = None) -> None:
        """Open the file, or create it; a damaged one is set aside, see Database.

        max_bytes: the size at which no more requests are accepted; None for no limit.
        """
        self._max_bytes = max_bytes
        self._database = Database(
            path, schema=SCHEMA + OUTPUTS + OUTBOX, added=ADDED, version=VERSION
        )
        self.outputs = OutputTable(self._database, path.parent)
        self.outbox = Outbox(self._database)
        self._now = SteadyClock(at_least=self._latest())

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def now(self) -> float:
        """Return the time used for all requests: seconds since the epoch, never jumping."""
        return self._now()

    # --- a request's states ----------------------------------------------------------------------

    def submit(self, request: NewRequest, *, most: int, most_of_owner: int) -> StoredRequest:
        """Append a request to the queue.

        Raises:
            QueueFull: `most` requests are unfinished, or `most_of_owner` of the same owner.
            StorageFull: the disk or the database is full.
        """
        text = json.dumps(request.input)
        if len(text) > LONGEST_INPUT:
            raise ValueError(f"The input is {len(text)} bytes long; the limit is {LONGEST_INPUT}.")
        if self.is_large():
            raise StorageFull
        row = {
            "id": request.id,
            "endpoint_id": request.endpoint_id,
            "owner": request.owner,
            "input": text,
            "is_low_priority": request.is_low_priority,
            "start_before": request.start_before,
            "webhook_url": request.webhook_url,
            "video_file": request.video_file,
            "origin": request.origin,
            "created": self.now(),
        }
        columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
        with self._database.transaction() as connection:
            owners = [each["owner"] for each in connection.execute(_UNFINISHED_OWNERS)]
            if len(owners) >= most or owners.count(request.owner) >= most_of_owner:
                raise QueueFull("The queue is full.")
            connection.execute(f"INSERT INTO requests ({columns}) VALUES ({values})", row)
            return from_row(connection.execute(_BY_ID, (request.id,)).fetchone())

    def start(self, request_id: str) -> bool:
        """Mark a waiting request as running; return False if it was not waiting."""
        return self._database.changed(
            "UPDATE requests SET state = 'running', started = ?, attempts = attempts + 1 "
            "WHERE id = ? AND state = 'queued'",
            (self.now(), request_id),
        )

    def requeue(self, request_id: str) -> bool:
        """Mark a running request as waiting again; return False if it was not running.

        Its start timeout is dropped: it started in time once.
        """
        return self._database.changed(
            "UPDATE requests SET state = 'queued', started = NULL, start_before = NULL "
            "WHERE id = ? AND state = 'running'",
            (request_id,),
        )

    def cancel(self, request_id: str) -> bool:
        """Mark a request as cancelled; return False if it is done."""
        return self._database.changed(
            "UPDATE requests SET is_cancelled = 1 WHERE id = ? AND state != 'done'", (request_id,)
        )

    def finish(
        self,
        request_id: str,
        answer: Answer,
        *,
        ran_seconds: float | None = None,
        webhook: Delivery | None = None,
    ) -> bool:
        """Store the answer of a request and its webhook; return False if it was done already.

        ran_seconds: how long it ran, also where its start could not be stored.
        """
        now = self.now()
        with self._database.transaction() as connection:
            changed = connection.execute(
                "UPDATE requests SET state = 'done', started = coalesce(started, ?), finished = ?, "
                "ran_seconds = ?, status = ?, answer = ?, error_type = ? "
                "WHERE id = ? AND state != 'done'",
                (
                    None if ran_seconds is None else now - ran_seconds,
                    now,
                    ran_seconds,
                    answer.status,
                    json.dumps(answer.body),
                    answer.error_type,
                    request_id,
                ),
            )
            if changed.rowcount != 1:
                return False
            if webhook is not None:
                self.outbox.insert(connection, webhook, now=now)
            return True

    def adopt_webhooks(self, delivery_of: Callable[[StoredRequest], Delivery | None]) -> None:
        """Add to the outbox the webhooks that an earlier version had not delivered yet."""
        now = self.now()
        with self._database.transaction() as connection:
            for row in connection.execute(_UNSENT).fetchall():
                delivery = delivery_of(from_row(row))
                if delivery is not None:
                    self.outbox.insert(connection, delivery, now=now)
            connection.execute("UPDATE requests SET is_webhook_due = 0 WHERE is_webhook_due")

    # --- retention -------------------------------------------------------------------------------

    def finished_before(self, time: float, *, most: int) -> list[str]:
        """Return up to `most` requests that ended before that time, the earliest first."""
        rows = self._database.rows(
            "SELECT id FROM requests WHERE state = 'done' AND finished < ? "
            "ORDER BY finished, sequence LIMIT ?",
            (time, most),
        )
        return [row["id"] for row in rows]

    def forget(self, request_ids: list[str]) -> None:
        """Remove finished requests with their logs; their files stay on the disk."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM requests WHERE id = ? AND state = 'done'",
                [(each,) for each in request_ids],
            )

    def is_large(self) -> bool:
        """Return whether the database is so large that no request is accepted."""
        return self._max_bytes is not None and self._database.size() > self._max_bytes

    def shrink(self) -> None:
        """Return the space of removed rows to the disk."""
        self._database.shrink()

    # --- reading ---------------------------------------------------------------------------------

    def get(self, request_id: str) -> StoredRequest | None:
        """Return a request, or None if it is unknown."""
        rows = self._database.rows(_BY_ID, (request_id,))
        return from_row(rows[0]) if rows else None

    def unfinished(self) -> list[StoredRequest]:
        """Return the requests that are not done, in the order of their submission."""
        return [from_row(row) for row in self._database.rows(_UNFINISHED)]

    def count_unfinished(self) -> int:
        """Count the requests that are not done."""
        rows = self._database.rows("SELECT count(*) FROM requests WHERE state != 'done'")
        return int(rows[0][0])

    # --- logs ------------------------------------------------------------------------------------

    def log(self, request_id: str, message: str, *, level: str = "INFO") -> None:
        """Add a line to a request's log."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO logs (request_id, time, level, message) VALUES (?, ?, ?, ?)",
                (request_id, time.time(), level, message),
            )

    def logs(self, request_id: str, *, after: int = 0) -> list[LogLine]:
        """Return a request's log, or the lines after the one with that sequence number."""
        rows = self._database.rows(
            "SELECT sequence, time, level, message FROM logs "
            "WHERE request_id = ? AND sequence > ? ORDER BY sequence",
            (request_id, after),
        )
        return [LogLine(*row) for row in rows]

    def _latest(self) -> float:
        row = self._database.rows("SELECT max(created), max(finished) FROM requests")[0]
        return max(row[0] or 0.0, row[1] or 0.0)


_BY_ID = "SELECT * FROM requests WHERE id = ?"
_UNFINISHED = "SELECT * FROM requests WHERE state != 'done' ORDER BY sequence"
_UNSENT = "SELECT * FROM requests WHERE is_webhook_due ORDER BY sequence"
_UNFINISHED_OWNERS = "SELECT owner FROM requests WHERE state != 'done'"
