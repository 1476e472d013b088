"""Requests, their logs and their results, in one SQLite file that outlives the process."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..pipeline import AnimateDiffV2VError
from .problems import Answer

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
    is_webhook_due INTEGER NOT NULL DEFAULT 0
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
BUSY_SECONDS = 30


class QueueFull(AnimateDiffV2VError):
    """There are as many unfinished requests as the owner allows."""


@dataclass(frozen=True, kw_only=True)
class NewRequest:
    """What is asked for.

    input: the checked input as JSON; owner: the key's name, empty without keys.
    start_before: seconds since the epoch at which an unstarted request ends; None for never.
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
    """A request and what became of it; times are seconds since the epoch."""

    sequence: int
    state: State
    is_cancelled: bool
    created: float
    started: float | None
    finished: float | None
    answer: Answer | None

    @property
    def inference_seconds(self) -> float | None:
        """How long it ran; None while it has not ended, or if it never began."""
        if self.started is None or self.finished is None:
            return None
        return self.finished - self.started


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


class Store:
    """The SQLite file. Its methods may be called from any thread, one at a time gets through.

    What a method has written is on the disk when it returns.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or make it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.executescript(SCHEMA)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    # --- the life of a request -----------------------------------------------------------------

    def submit(self, request: NewRequest, *, most: int, most_of_owner: int) -> StoredRequest:
        """Store a request as the last of the queue.

        Raises QueueFull when `most` are unfinished, or `most_of_owner` of the same owner.
        """
        row = {
            "id": request.id,
            "endpoint_id": request.endpoint_id,
            "owner": request.owner,
            "input": json.dumps(request.input),
            "is_low_priority": request.is_low_priority,
            "start_before": request.start_before,
            "webhook_url": request.webhook_url,
            "video_file": request.video_file,
            "origin": request.origin,
            "created": time.time(),
        }
        columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
        with self._transaction() as connection:
            owners = [each["owner"] for each in connection.execute(_UNFINISHED_OWNERS)]
            if len(owners) >= most or owners.count(request.owner) >= most_of_owner:
                raise QueueFull("The queue is full.")
            connection.execute(f"INSERT INTO requests ({columns}) VALUES ({values})", row)
            return _request(connection.execute(_BY_ID, (request.id,)).fetchone())

    def start(self, request_id: str) -> bool:
        """Note that a request runs from now on; False if it did not wait any more."""
        return self._changed(
            "UPDATE requests SET state = 'running', started = ? WHERE id = ? AND state = 'queued'",
            (time.time(), request_id),
        )

    def cancel(self, request_id: str) -> bool:
        """Note that nobody wants a request any more; False if it is done."""
        return self._changed(
            "UPDATE requests SET is_cancelled = 1 WHERE id = ? AND state != 'done'", (request_id,)
        )

    def finish(self, request_id: str, answer: Answer) -> bool:
        """Store what a request answers; False if it was done already."""
        return self._changed(
            "UPDATE requests SET state = 'done', finished = ?, status = ?, answer = ?, "
            "error_type = ?, is_webhook_due = webhook_url IS NOT NULL "
            "WHERE id = ? AND state != 'done'",
            (time.time(), answer.status, json.dumps(answer.body), answer.error_type, request_id),
        )

    def forget(self, *, finished_before: float) -> int:
        """Remove requests that ended before that time, and say how many; their files stay."""
        with self._transaction() as connection:
            return connection.execute(
                "DELETE FROM requests WHERE state = 'done' AND finished < ? AND NOT is_webhook_due",
                (finished_before,),
            ).rowcount

    # --- reading -------------------------------------------------------------------------------

    def get(self, request_id: str) -> StoredRequest | None:
        """Find a request."""
        rows = self._rows(_BY_ID, (request_id,))
        return _request(rows[0]) if rows else None

    def unfinished(self) -> list[StoredRequest]:
        """Give the requests that are not done, in the order of their submission."""
        return [_request(row) for row in self._rows(_UNFINISHED)]

    def webhooks_due(self) -> list[StoredRequest]:
        """Give the finished requests whose webhook nobody has taken over."""
        return [
            _request(row)
            for row in self._rows("SELECT * FROM requests WHERE is_webhook_due ORDER BY sequence")
        ]

    def webhook_taken(self, request_id: str) -> None:
        """Note that somebody else sees to a request's webhook."""
        self._changed("UPDATE requests SET is_webhook_due = 0 WHERE id = ?", (request_id,))

    # --- logs and files ------------------------------------------------------------------------

    def log(self, request_id: str, message: str, *, level: str = "INFO") -> None:
        """Add a line to a request's log."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO logs (request_id, time, level, message) VALUES (?, ?, ?, ?)",
                (request_id, time.time(), level, message),
            )

    def logs(self, request_id: str, *, after: int = 0) -> list[LogLine]:
        """Give a request's log, or what came after the line with that sequence number."""
        rows = self._rows(
            "SELECT sequence, time, level, message FROM logs "
            "WHERE request_id = ? AND sequence > ? ORDER BY sequence",
            (request_id, after),
        )
        return [LogLine(*row) for row in rows]

    def add_output(self, request_id: str, output: Output) -> str:
        """Give a file a name that nobody can guess, under which it is served."""
        token = secrets.token_urlsafe(24)
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO outputs (token, request_id, path, content_type) VALUES (?, ?, ?, ?)",
                (token, request_id, str(output.path), output.content_type),
            )
        return token

    def output(self, token: str) -> Output | None:
        """Find the file of such a name."""
        rows = self._rows("SELECT path, content_type FROM outputs WHERE token = ?", (token,))
        return Output(Path(rows[0]["path"]), rows[0]["content_type"]) if rows else None

    def owner_of_output(self, token: str) -> str | None:
        """Give whose request made the file of such a name."""
        rows = self._rows(
            "SELECT owner FROM requests JOIN outputs ON requests.id = outputs.request_id "
            "WHERE token = ?",
            (token,),
        )
        return rows[0]["owner"] if rows else None

    # --- SQLite --------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _changed(self, statement: str, values: tuple[Any, ...]) -> bool:
        with self._transaction() as connection:
            return connection.execute(statement, values).rowcount == 1

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock, closing(self._connection.execute(query, values)) as found:
            return found.fetchall()


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
    )


class FolderLock:
    """Keeps a second process off a folder: two queues would each run the same requests."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; raises AnimateDiffV2VError while another process has it."""
        folder.mkdir(parents=True, exist_ok=True)
        # The operating system lets go of SQLite's locks when a process ends, however it ends.
        self._connection = sqlite3.connect(
            folder / "in_use.sqlite", timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            self._connection.close()
            raise AnimateDiffV2VError(
                f"Another process answers the API from {folder}: stop it, or give this one a "
                "folder of its own."
            ) from error

    def release(self) -> None:
        """Let the next process have it."""
        self._connection.close()
