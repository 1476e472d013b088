"""One SQLite file, written in transactions; a damaged file is set aside."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from ...pipeline import AnimateDiffV2VError
from .data_folder import set_aside
from .disk import StorageFull

BUSY_SECONDS = 30
_INCREMENTAL = 2


class _Damaged(Exception):
    """The file is not a SQLite database, or not one of this service."""


class Database:
    """A connection to the file. Methods may be called from any thread; they run in turn.

    A transaction is on the disk when it ends.
    """

    def __init__(
        self, path: Path, *, schema: str, added: Mapping[str, Mapping[str, str]], version: int
    ) -> None:
        """Open or create the file; a damaged or foreign one is set aside first.

        added: for each table the columns that earlier versions lack, with their types.
        Raises AnimateDiffV2VError when it cannot be opened, or was written by a newer version.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._schema, self._added, self._version = path, schema, added, version
        self._lock = threading.Lock()
        try:
            try:
                self._connection = self._opened()
            except _Damaged as error:
                set_aside(path, str(error))
                self._connection = self._opened()
        except (sqlite3.Error, OSError) as error:
            raise AnimateDiffV2VError(f"{path} cannot be opened: {error}.") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit all writes of the block, or none; raises StorageFull when the disk is full."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                # A failed commit leaves the transaction open; a full disk may have ended it.
                if self._connection.in_transaction:
                    with suppress(sqlite3.OperationalError):
                        self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise StorageFull from error
                raise

    def changed(self, statement: str, values: tuple[Any, ...] | dict[str, Any]) -> bool:
        """Execute one statement and return whether it changed exactly one row."""
        with self.transaction() as connection:
            return connection.execute(statement, values).rowcount == 1

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """Return the rows of a query."""
        with self._lock, closing(self._connection.execute(query, values)) as found:
            return found.fetchall()

    def size(self) -> int:
        """Return the bytes in use, without free pages."""
        pages, free, size = (
            self.rows(f"PRAGMA {name}")[0][0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def shrink(self) -> None:
        """Return free pages to the disk."""
        with self._lock:
            # execute() would stop after one page, as the statement returns no rows.
            self._connection.executescript("PRAGMA incremental_vacuum")
        self.rows("PRAGMA wal_checkpoint(TRUNCATE)")

    # --- opening ---------------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection)
        except BaseException as error:
            connection.close()
            # DatabaseError itself means a malformed file; its subclasses mean other errors.
            if type(error) is sqlite3.DatabaseError:
                raise _Damaged(f"is not a valid SQLite database ({error})") from error
            raise
        connection.row_factory = sqlite3.Row
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > self._version:
            raise AnimateDiffV2VError(
                f"{self._path} was written by a newer version (format {version}; this one knows "
                f"{self._version}): update animatediff-v2v, or use another folder."
            )
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise _Damaged(f"is damaged ({found})")
        self._check_columns(connection)
        if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
            connection.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
            with suppress(sqlite3.OperationalError):  # no room for a copy: done at a later start
                connection.execute("VACUUM")
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        for table, columns in self._added.items():
            there = _columns(connection, table)
            for name, type_ in columns.items():
                if there and name not in there:
                    connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {type_}")
        connection.executescript(self._schema)
        if version != self._version:
            connection.execute(f"PRAGMA user_version = {self._version}")

    def _check_columns(self, connection: sqlite3.Connection) -> None:
        """Check that existing tables have this service's columns; raises _Damaged."""
        with closing(sqlite3.connect(":memory:")) as model:
            model.executescript(self._schema)
            tables = [
                row[0] for row in model.execute("SELECT name FROM sqlite_master WHERE type='table'")
            ]
            for table in tables:
                there = _columns(connection, table)
                missing = _columns(model, table) - there - set(self._added.get(table, ()))
                if there and missing:
                    raise _Damaged(f"is not the service's ({table} lacks {min(missing)})")


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
