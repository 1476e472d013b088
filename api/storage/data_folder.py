"""The data folder: the names of the service's files in it.

    FOLDER/                  the owner's; only api.json is read
      api.json
      animatediff-v2v/       the service's, identified by format.json
        format.json          {"format": ..., "version": 1}
        api.sqlite           requests, logs, results, webhooks
        api-keys.json, webhook-key.pem, in_use.sqlite
        uploads/ loras/ inputs/ outputs/

Even in its own folder the service removes only files with names that it gives itself.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .folder_lock import LOCK, FolderLock, FolderRefused

logger = logging.getLogger(__name__)

OWN = "animatediff-v2v"
MARKER = "format.json"
FORMAT = "animatediff-v2v hosted API"
VERSION = 1
DATABASE = "api.sqlite"
KEYS = "api-keys.json"
SIGNING_KEY = "webhook-key.pem"

_ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
UPLOAD_NAME = re.compile(
    r"[0-9a-f]{32}(\.json|\.new|(\.[1-9][0-9]{0,3}\.part)?((\.[0-9a-f]{8})?\.incoming)?)"
)
INPUT_NAME = re.compile(rf"[0-9a-f]{{32}}(\.[A-Za-z0-9]{{1,12}})?|{_ID}\.mp4")
OUTPUT_NAME = re.compile(rf"{_ID}(_[0-9]+_)?\.mp4")


@dataclass(frozen=True)
class DataFolder:
    """The service's own folder inside the owner's data folder."""

    path: Path

    @staticmethod
    def open(root: Path) -> DataFolder:
        """Find or create the service's folder in `root`; move files of earlier versions into it.

        Raises FolderRefused when a folder of that name is foreign or of a newer version, when a
        process of an earlier version runs, or when the folder is not writable.
        """
        own = root.absolute() / OWN
        try:
            own.mkdir(parents=True, exist_ok=True)
            _check_marker(own)
            _take_over(root.absolute(), own)
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise FolderRefused(
                f"{own} cannot be used for the service's data: {reason}."
            ) from error
        return DataFolder(own)

    @property
    def database(self) -> Path:
        """The SQLite file of requests and webhooks."""
        return self.path / DATABASE

    @property
    def uploads(self) -> Path:
        """The uploads of clients."""
        return self.path / "uploads"

    @property
    def loras(self) -> Path:
        """The cache of downloaded and uploaded LoRAs."""
        return self.path / "loras"

    @property
    def inputs(self) -> Path:
        """Input videos of requests; in ComfyUI its input folder is used instead."""
        return self.path / "inputs"

    @property
    def outputs(self) -> Path:
        """Finished videos; in ComfyUI its output folder is used instead."""
        return self.path / "outputs"


def own_files(folder: Path, name: re.Pattern[str]) -> list[Path]:
    """Return the files of `folder` whose full names match; none if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            ]
    except FileNotFoundError:
        return []


def file_size(path: Path) -> int:
    """Return a file's size in bytes; 0 if it has just been moved or removed."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def set_aside(path: Path, reason: str) -> None:
    """Rename an unusable file and the side files of SQLite; nothing is deleted."""
    day = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    kept = path.with_name(f"{path.name}.damaged-{day}-{os.getpid()}")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{kept}{suffix}")
    logger.error("%s %s: it is kept as %s, and a new one is created.", path, reason, kept.name)


def keep_private(path: Path, mode: int) -> None:
    """Set a mode such as 0o600; log a warning where the disk has no modes."""
    try:
        path.chmod(mode)
    except OSError as error:
        logger.warning("%s may be readable by others: %s", path, error)


def write_durably(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that after a crash it is either complete or unchanged."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to the disk, where the system supports it."""
    with suppress(OSError):  # Windows cannot open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- the marker --------------------------------------------------------------------------------


def _check_marker(own: Path) -> None:
    marker = own / MARKER
    if not marker.exists():
        if {path.name for path in own.iterdir()} - {marker.with_suffix(".new").name}:
            raise FolderRefused(
                f"{own} holds files but no {MARKER}, so it is not the service's: move it away, or "
                "use another folder."
            )
        about = {"format": FORMAT, "version": VERSION}
        write_durably(marker, json.dumps(about).encode())
        return
    about = _json(marker)
    version = about.get("version") if isinstance(about, dict) else None
    if not isinstance(about, dict) or about.get("format") != FORMAT or type(version) is not int:
        raise FolderRefused(
            f"{marker} is not the service's: move {own} away, or use another folder."
        )
    if version > VERSION:
        raise FolderRefused(
            f"{own} was written by a newer version (format {version}; this one knows {VERSION}): "
            "update animatediff-v2v, or use another folder."
        )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None


# --- folders of earlier versions ---------------------------------------------------------------


def _take_over(root: Path, own: Path) -> None:
    """Move the files that earlier versions kept in `root`; may be repeated after a crash."""
    found = [
        name
        for name, is_ours in (
            (DATABASE, _is_our_database),
            (KEYS, _are_our_keys),
            (SIGNING_KEY, _is_our_signing_key),
        )
        if (root / name).is_file() and not (own / name).exists() and is_ours(root / name)
    ]
    if not found:
        return
    old, new = FolderLock(root), FolderLock(own)
    try:
        if DATABASE in found:
            _move_own(root / "uploads", own / "uploads", UPLOAD_NAME)
            _move_own(root / "inputs", own / "inputs", INPUT_NAME)
            _move_own(root / "outputs", own / "outputs", OUTPUT_NAME)
            _relocate_outputs(root / DATABASE, own)
        for name in reversed(found):  # the database last: a repetition after a crash needs it
            (root / name).rename(own / name)
        sync_folder(own)
    finally:
        old.release()
        new.release()
    (root / LOCK).unlink(missing_ok=True)
    logger.info("The data in %s was moved to %s.", root, own)


def _is_our_database(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return {"requests", "logs", "outputs"} <= {name for (name,) in found}
    except sqlite3.DatabaseError as error:
        logger.error("%s is not a database of this service (%s); it is left alone.", path, error)
        return False


def _are_our_keys(path: Path) -> bool:
    keys = _json(path)
    return isinstance(keys, dict) and all(
        isinstance(each, dict) and {"name", "hash"} <= each.keys() for each in keys.values()
    )


def _is_our_signing_key(path: Path) -> bool:
    return path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")


def _move_own(source: Path, target: Path, name: re.Pattern[str]) -> None:
    target.mkdir(exist_ok=True)
    for path in own_files(source, name):
        shutil.move(path, target / path.name)
    with suppress(OSError):  # it holds other files
        source.rmdir()


def _relocate_outputs(database: Path, own: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("BEGIN IMMEDIATE")
        for token, path in connection.execute("SELECT token, path FROM outputs").fetchall():
            name = re.split(r"[/\\]", path)[-1]
            if OUTPUT_NAME.fullmatch(name) and (own / "outputs" / name).is_file():
                connection.execute(
                    "UPDATE outputs SET path = ? WHERE token = ?", (f"outputs/{name}", token)
                )
        connection.execute("COMMIT")
