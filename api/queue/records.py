"""Requests as the store keeps them: as submitted, and with their outcome."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from ..wire.outcome import Answer

State = Literal["queued", "running", "done"]


@dataclass(frozen=True, kw_only=True)
class NewRequest:
    """A request as submitted.

    input: the validated input as JSON. owner: the id of the caller's key.
    start_before: time (of Store.now) at which the request ends unless it has started; None for
        never.
    video_file: name in the input folder of a video sent within the request itself.
    origin: the URL at which the caller reached the server.
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
    """A request with its state and outcome; times are those of Store.now.

    attempts: the number of times that it started to run, including the current run.
    ran_seconds: the duration of the last run; None where its end was not observed.
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
        """The duration of the run; None before its end, or if it never started."""
        if self.started is None or self.finished is None:
            return None
        if self.ran_seconds is not None:
            return self.ran_seconds
        return max(0.0, self.finished - self.started)


def from_row(row: sqlite3.Row) -> StoredRequest:
    """Return the request of a row of the table `requests`."""
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
