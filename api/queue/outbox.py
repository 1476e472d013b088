"""The table of webhooks that are to be delivered."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from ..storage.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS webhooks (
    request_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    url TEXT NOT NULL,
    body BLOB NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL,
    written REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS webhooks_to_send ON webhooks (due) WHERE due IS NOT NULL;
"""


@dataclass(frozen=True)
class Delivery:
    """A webhook: its receiver, its body, and how often it has been sent."""

    request_id: str
    user_id: str
    url: str
    body: bytes
    attempts: int = 0


class Outbox:
    """The deliveries. Methods may be called from any thread; times are seconds since the epoch."""

    def __init__(self, database: Database) -> None:
        """Use the table `webhooks` of `database`."""
        self._database = database

    @staticmethod
    def insert(connection: sqlite3.Connection, delivery: Delivery, *, now: float) -> None:
        """Add a delivery, due at once, within a transaction; a request has one at most."""
        connection.execute(
            "INSERT OR IGNORE INTO webhooks (request_id, user_id, url, body, due, written) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (delivery.request_id, delivery.user_id, delivery.url, delivery.body, now, now),
        )

    def due(self, now: float, *, most: int) -> list[Delivery]:
        """Return up to `most` deliveries that are due, the earliest first."""
        rows = self._database.rows(
            "SELECT request_id, user_id, url, body, attempts FROM webhooks "
            "WHERE due <= ? ORDER BY due LIMIT ?",
            (now, most),
        )
        return [Delivery(*row) for row in rows]

    def next_due(self, now: float) -> float | None:
        """Return when the next delivery that is not due yet becomes due; None if there is none."""
        statement = "SELECT min(due) FROM webhooks WHERE due > ?"
        later: float | None = self._database.rows(statement, (now,))[0][0]
        return later

    def attempted(self, request_id: str, attempts: int, *, due: float | None) -> None:
        """Store the number of attempts and the time of the next one, None if it is the last."""
        self._database.changed(
            "UPDATE webhooks SET attempts = ?, due = ? WHERE request_id = ?",
            (attempts, due, request_id),
        )

    def bring_forward(self, now: float, *, latest: float) -> None:
        """Make deliveries due now that are due after `latest`, as after the clock was set back."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE webhooks SET due = ? WHERE due > ?", (now, latest))

    def forget(self, before: float) -> None:
        """Remove deliveries added before that time that were delivered or given up."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM webhooks WHERE due IS NULL AND written < ?", (before,))
