"""The table of files that requests produced, each served under an unguessable token."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from ..storage.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS outputs (
    token TEXT PRIMARY KEY,
    request_id TEXT NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    content_type TEXT NOT NULL
);
"""


@dataclass(frozen=True)
class Output:
    """A file that a request produced."""

    path: Path
    content_type: str


@dataclass(frozen=True)
class KeptOutput:
    """A file of a finished request, served under `token`."""

    token: str
    request_id: str
    path: Path


class OutputTable:
    """The outputs of all requests. Its methods may be called from any thread."""

    def __init__(self, database: Database, folder: Path) -> None:
        """Use the tables of `database`; paths inside `folder` are stored relative to it."""
        self._database, self._folder = database, folder

    def add(self, request_id: str, output: Output) -> str:
        """Return the token of a file, creating one unless the file already has one.

        A process that was killed may have created the token just before.
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

    def find(self, token: str) -> Output | None:
        """Return the file served under a token, or None."""
        rows = self._database.rows(
            "SELECT path, content_type FROM outputs WHERE token = ?", (token,)
        )
        return Output(self._folder / rows[0]["path"], rows[0]["content_type"]) if rows else None

    def owner(self, token: str) -> str | None:
        """Return the owner of the request that produced the file of a token, or None."""
        rows = self._database.rows(
            "SELECT owner FROM requests JOIN outputs ON requests.id = outputs.request_id "
            "WHERE token = ?",
            (token,),
        )
        return rows[0]["owner"] if rows else None

    def of_finished(self, request_ids: list[str] | None = None) -> list[KeptOutput]:
        """Return the files of finished requests, all or these, in the order they finished."""
        rows = self._database.rows(
            "SELECT token, request_id, path FROM outputs JOIN requests ON id = request_id "
            "WHERE state = 'done' ORDER BY finished, sequence"
        )
        kept = [
            KeptOutput(row["token"], row["request_id"], self._folder / row["path"]) for row in rows
        ]
        wanted = None if request_ids is None else set(request_ids)
        return [each for each in kept if wanted is None or each.request_id in wanted]

    def forget(self, tokens: list[str]) -> None:
        """Stop serving the files of these tokens."""
        with self._database.transaction() as connection:
            connection.executemany(
                "DELETE FROM outputs WHERE token = ?", [(each,) for each in tokens]
            )

    def _stored(self, path: Path) -> str:
        """Return a path as it is stored: relative to the folder, so that the folder may move."""
        if path.is_relative_to(self._folder):
            return path.relative_to(self._folder).as_posix()
        return str(path)
