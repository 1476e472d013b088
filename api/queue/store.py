"""Requests, their logs and their results, in one SQLite file that outlives the process."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...pipeline import AnimateDiffV2VError
from ..storage.clock import SteadyClock
from ..storage.database import Database
from ..storage.disk import StorageFull
from ..wire.outcome import Answer

State = Literal["queued", "running", "done"]

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
CREATE TABLE IF NOT EXISTS outputs (
    token TEXT PRIMARY KEY,
    request_id TEXT NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    content_type TEXT NOT NULL
);
"""
VERSION = 1
ADDED = {"requests": {"attempts": "INTEGER NOT NULL DEFAULT 0", "ran_seconds": "REAL"}}
LONGEST_INPUT = 2**20
"""Bytes of a request's input as JSON: videos are files, and no field is long."""


class QueueFull(AnimateDiffV2VError):
    """There are as many unfinished requests as the owner allows."""


@dataclass(frozen=True, kw_only=True)
class NewRequest:
    """What is asked for.

    input: the checked input as JSON; owner: the key's name, empty without keys.
    start_before: time of the store (Store.now) at which an unstarted request ends; None for never.
    video_file: the name in the input folder of a video that came with the request itself.
    origin: the address under which its caller reached the server.
    """

    id: str
    endpoint_id: str
    owner: str
    input: dict[str, Any]
    origin: str
    is_low_priority: bool = False
    start_before: float | None = None
    webhook_url: str | None = None
    video_file: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredRequest(NewRequest):
    """A request and what became of it; times are the store's, see Store.now.

    attempts: how often it began to run, that of now included.
    ran_seconds: how long the last of them took; None where nobody saw its end.
    """

    sequence: int
    state: State
    is_cancelled: bool
    created: float
    started: float | None
    finished: float | None
    answer: Answer | None
    attempts: int
    ran_seconds: float | None

    @property
    def inference_seconds(self) -> float | None:
        """How long it ran; None while it has not ended, or if it never began."""
        if self.started is None or self.finished is None:
            return None
        if self.ran_seconds is not None:
            return self.ran_seconds
        return max(0.0, self.finished - self.started)


@dataclass(frozen=True)
class LogLine:
    """A line of a request's log; `time` in seconds since the epoch."""

    sequence: int
    time: float
    level: str
    message: str


@dataclass(frozen=True)
class Output:
    """A file that a request made."""

    path: Path
    content_type: str


@dataclass(frozen=True)
class KeptOutput:
    """A file of a finished request that is served under `token`."""

    token: str
    request_id: str
    path: Path


class Store:
    """The SQLite file. Its methods may be called from any thread, one at a time gets through.

    What a method has written is on the disk when it returns; it raises StorageFull when the disk
    does not take it. Reading goes on meanwhile.
    """

    def __init__(self, path: Path, *, max_bytes: int | None = None) -> None:
        """Open the file, or make it; one that is damaged is set aside, see Database.

        max_bytes: from which size on no request is taken in.
        """
        self._folder, self._max_bytes = path.parent, max_bytes
        self._database = Database(path, schema=SCHEMA, added=ADDED, version=VERSION)
        self._now = SteadyClock(at_least=self._latest())

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def now(self) -> float:
        """Return the time by which requests are timed: seconds since the epoch, without jumps."""
        return self._now()

    # --- the life of a request -----------------------------------------------------------------

    def submit(self, request: NewRequest, *, most: int, most_of_owner: int) -> StoredRequest:
        """Store a request as the last of the queue.

        Raises QueueFull when `most` are unfinished, or `most_of_owner` of the same owner;
        StorageFull when the disk or the database is full.
        """
        text = json.dumps(request.input)
        if len(text) > LONGEST_INPUT:
            raise ValueError(f"An input of {len(text)} bytes is not to be stored.")
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
            return _request(connection.execute(_BY_ID, (request.id,)).fetchone())

    def start(self, request_id: str) -> bool:
        """Note that a request runs from now on; False if it did not wait any more."""
        return self._database.changed(
            "UPDATE requests SET state = 'running', started = ?, attempts = attempts + 1 "
            "WHERE id = ? AND state = 'queued'",
            (self.now(), request_id),
        )

    def requeue(self, request_id: str) -> bool:
        """Note that a request whose run came to nothing waits again; False if it did not run.

        It has begun in time, so nothing ends it for waiting any more.
        """
        return self._database.changed(
            "UPDATE requests SET state = 'queued', started = NULL, start_before = NULL "
            "WHERE id = ? AND state = 'running'",
            (request_id,),
        )

    def cancel(self, request_id: str) -> bool:
        """Note that nobody wants a request any more; False if it is done."""
        return self._database.changed(
            "UPDATE requests SET is_cancelled = 1 WHERE id = ? AND state != 'done'", (request_id,)
        )

    def finish(self, request_id: str, answer: Answer, *, ran_seconds: float | None = None) -> bool:
        """Store what a request answers; False if it was done already.

        ran_seconds: how long it ran, also where its beginning could not be noted.
        """
        now = self.now()
        return self._database.changed(
            "UPDATE requests SET state = 'done', started = coalesce(started, ?), finished = ?, "
            "ran_seconds = ?, status = ?, answer = ?, error_type = ?, "
            "is_webhook_due = webhook_url IS NOT NULL WHERE id = ? AND state != 'done'",
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

    # --- what is kept, and for how long --------------------------------------------------------

    def finished_before(self, time: float, *, most: int) -> list[str]:
        """Give requests that ended before that time, the first ones first."""
        rows = self._database.rows(
            "SELECT id FROM requests WHERE state = 'done' AND finished < ? AND NOT is_webhook_due "
            "ORDER BY finished, sequence LIMIT ?",
            (time, most),
        )
        return [row["id"] for row in rows]

    def forget(self, request_ids: list[str]) -> None:
        """Remove finished requests with their logs; their files stay."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM requests WHERE id = ? AND state = 'done'",
                [(each,) for each in request_ids],
            )

    def outputs(self, request_ids: list[str] | None = None) -> list[KeptOutput]:
        """Give the files of finished requests, or of these, the first that ended first."""
        rows = self._database.rows(
            "SELECT token, request_id, path FROM outputs JOIN requests ON id = request_id "
            "WHERE state = 'done' ORDER BY finished, sequence"
        )
        kept = [
            KeptOutput(row["token"], row["request_id"], self._folder / row["path"]) for row in rows
        ]
        wanted = None if request_ids is None else set(request_ids)
        return [each for each in kept if wanted is None or each.request_id in wanted]

    def forget_outputs(self, tokens: list[str]) -> None:
        """Serve these files no more."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM outputs WHERE token = ?", [(each,) for each in tokens]
            )

    def is_large(self) -> bool:
        """Whether so much is stored that no request is taken in."""
        return self._max_bytes is not None and self._database.size() > self._max_bytes

    def shrink(self) -> None:
        """Give what was removed back to the disk."""
        self._database.shrink()

    # --- reading -------------------------------------------------------------------------------

    def get(self, request_id: str) -> StoredRequest | None:
        """Find a request."""
        rows = self._database.rows(_BY_ID, (request_id,))
        return _request(rows[0]) if rows else None

    def unfinished(self) -> list[StoredRequest]:
        """Give the requests that are not done, in the order of their submission."""
        return [_request(row) for row in self._database.rows(_UNFINISHED)]

    def count_unfinished(self) -> int:
        """Count the requests that are not done."""
        rows = self._database.rows("SELECT count(*) FROM requests WHERE state != 'done'")
        return int(rows[0][0])

    def webhooks_due(self) -> list[StoredRequest]:
        """Give the finished requests whose webhook nobody has taken over."""
        return [
            _request(row)
            for row in self._database.rows(
                "SELECT * FROM requests WHERE is_webhook_due ORDER BY sequence"
            )
        ]

    def webhook_taken(self, request_id: str) -> None:
        """Note that somebody else sees to a request's webhook."""
        self._database.changed("UPDATE requests SET is_webhook_due = 0 WHERE id = ?", (request_id,))

    # --- logs and files ------------------------------------------------------------------------

    def log(self, request_id: str, message: str, *, level: str = "INFO") -> None:
        """Add a line to a request's log."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO logs (request_id, time, level, message) VALUES (?, ?, ?, ?)",
                (request_id, time.time(), level, message),
            )

    def logs(self, request_id: str, *, after: int = 0) -> list[LogLine]:
        """Give a request's log, or what came after the line with that sequence number."""
        rows = self._database.rows(
            "SELECT sequence, time, level, message FROM logs "
            "WHERE request_id = ? AND sequence > ? ORDER BY sequence",
            (request_id, after),
        )
        return [LogLine(*row) for row in rows]

    def add_output(self, request_id: str, output: Output) -> str:
        """Give a file a name that nobody can guess, under which it is served.

        It keeps the one that it has: a process that was killed may have given it just before.
        """
        path = self._stored(output.path)
        with self._database.transaction() as connection:
            given = connection.execute(
                "SELECT token FROM outputs WHERE request_id = ? AND path = ?", (request_id, path)
            ).fetchone()
            if given is not None:
                return str(given["token"])
            token = secrets.token_urlsafe(24)
            connection.execute(
                "INSERT INTO outputs (token, request_id, path, content_type) VALUES (?, ?, ?, ?)",
                (token, request_id, path, output.content_type),
            )
        return token

    def output(self, token: str) -> Output | None:
        """Find the file of such a name."""
        rows = self._database.rows(
            "SELECT path, content_type FROM outputs WHERE token = ?", (token,)
        )
        return Output(self._folder / rows[0]["path"], rows[0]["content_type"]) if rows else None

    def owner_of_output(self, token: str) -> str | None:
        """Give whose request made the file of such a name."""
        rows = self._database.rows(
            "SELECT owner FROM requests JOIN outputs ON requests.id = outputs.request_id "
            "WHERE token = ?",
            (token,),
        )
        return rows[0]["owner"] if rows else None

    def _stored(self, path: Path) -> str:
        """Word a path so that the folder may be moved."""
        if path.is_relative_to(self._folder):
            return path.relative_to(self._folder).as_posix()
        return str(path)

    def _latest(self) -> float:
        row = self._database.rows("SELECT max(created), max(finished) FROM requests")[0]
        return max(row[0] or 0.0, row[1] or 0.0)


_BY_ID = "SELECT * FROM requests WHERE id = ?"
_UNFINISHED = "SELECT * FROM requests WHERE state != 'done' ORDER BY sequence"
_UNFINISHED_OWNERS = "SELECT owner FROM requests WHERE state != 'done'"


def _request(row: sqlite3.Row) -> StoredRequest:
    answer = None
    if row["status"] is not None:
        answer = Answer(row["status"], json.loads(row["answer"]), row["error_type"])
    return StoredRequest(
        id=row["id"],
        endpoint_id=row["endpoint_id"],
        owner=row["owner"],
        input=json.loads(row["input"]),
        origin=row["origin"],
        is_low_priority=bool(row["is_low_priority"]),
        start_before=row["start_before"],
        webhook_url=row["webhook_url"],
        video_file=row["video_file"],
        sequence=row["sequence"],
        state=row["state"],
        is_cancelled=bool(row["is_cancelled"]),
        created=row["created"],
        started=row["started"],
        finished=row["finished"],
        answer=answer,
        attempts=row["attempts"],
        ran_seconds=row["ran_seconds"],
    )
