"""Files that clients upload, kept until they expire.

Each upload is two files in one folder, under names that this service gives: `<id>` with the bytes
and `<id>.json` with its entry. The client's file name appears only in URLs. Reading needs the id,
writing a secret as well, so both URLs work without a key, as fal's clients expect. Everything is
on the disk, so an upload begun before a restart can be completed after it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from aiohttp import web
from yarl import URL

from ..net.fetching import CHUNK_BYTES, MEBIBYTE
from ..storage.data_folder import UPLOAD_NAME, file_size, own_files, sync_folder
from ..storage.disk import full_disk_refused
from ..wire.bodies import chunks
from ..wire.hosts import MOUNT
from ..wire.problems import RequestRefused, error_response, too_large
from .upload_entries import UploadEntry, display_name, secret_hash, usable_content_type

logger = logging.getLogger(__name__)

UPLOADS = f"{MOUNT}/uploads"
_ID_LENGTH = 32
_ID = re.compile(rf"[0-9a-f]{{{_ID_LENGTH}}}")
_NUMBER = re.compile(r"[1-9][0-9]{0,3}")
_LOOK_AGAIN_BYTES = 16 * MEBIBYTE


@dataclass(frozen=True)
class UploadLimits:
    """Limits on the size and the age of uploads."""

    max_bytes: int = 2048 * MEBIBYTE
    """Of one file."""
    total_bytes: int = 20 * 1024 * MEBIBYTE
    """Of all files together."""
    kept_seconds: float = 7 * 86_400
    """From its completion until a file is removed."""
    write_seconds: float = 6 * 3600
    """From its start until an upload can no longer be written."""


class UploadStore:
    """The uploads in one folder."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: UploadLimits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep uploads in `folder`, which is created when first needed.

        clock: seconds since the epoch, by which uploads expire.
        """
        self._folder = folder
        self._clock = clock
        self.limits = limits or UploadLimits()

    def initiate(self, *, content_type: str, file_name: str) -> tuple[str, str, str]:
        """Begin an upload and return its id, its write secret, and its path in URLs.

        Raises RequestRefused when the folder is full.
        """
        with full_disk_refused():
            self._folder.mkdir(parents=True, exist_ok=True)
        self._check_room(0)
        upload_id, secret = secrets.token_hex(16), secrets.token_urlsafe(24)
        entry = UploadEntry(
            content_type=usable_content_type(content_type),
            file_name=display_name(file_name),
            secret_hash=secret_hash(secret),
            expires=self._clock() + self.limits.write_seconds,
        )
        entry.write(self._entry_path(upload_id))
        return upload_id, secret, f"{UPLOADS}/{upload_id}/{quote(entry.file_name)}"

    def resolve(self, url: str) -> Path | None:
        """Return the file of a completed upload's URL, or None for any other URL.

        The host is ignored: the same server has many names.
        """
        try:
            parts = URL(url).path.removeprefix("/api").split("/")
        except ValueError:
            return None
        if len(parts) != 5 or "/".join(parts[:3]) != UPLOADS:
            return None
        found = self.find(parts[3])
        return found[0] if found is not None else None

    def find(self, upload_id: str) -> tuple[Path, str] | None:
        """Return file and content type of a completed upload, or None if there is none."""
        entry, data = self._entry(upload_id), self._data(upload_id)
        if entry is None or entry.secret_hash or not data.is_file():
            return None
        return data, entry.content_type

    def sweep(self) -> None:
        """Remove expired uploads and leftovers of crashes; files with other names stay.

        An upload whose entry is unreadable may be complete, so it is kept as long as any upload.
        """
        kept: dict[str, bool | None] = {}
        for path in own_files(self._folder, UPLOAD_NAME):
            upload_id = path.name[:_ID_LENGTH]
            if upload_id not in kept:
                kept[upload_id] = self._is_kept(upload_id)
            # A file without an entry may belong to an upload that is being written.
            if kept[upload_id] or (kept[upload_id] is None and not self._is_old(path)):
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s could not be removed: %s", path, error)

    def _is_kept(self, upload_id: str) -> bool | None:
        """Return whether an upload has not expired; None if it has no entry."""
        path = self._entry_path(upload_id)
        try:
            return UploadEntry.read(path).expires > self._clock()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read: %s", path, error)
            return self._clock() - _changed_at(path) < self.limits.kept_seconds

    def _is_old(self, path: Path) -> bool:
        return self._clock() - _changed_at(path) > self.limits.write_seconds

    async def write(self, upload_id: str, secret: str, request: web.Request) -> int:
        """Write a request's body as the whole upload and return its size in bytes.

        Raises RequestRefused when the upload is unknown, too large, or stalls.
        """
        entry = self._writable(upload_id, secret)
        await self._receive(request, self._data(upload_id), self.limits.max_bytes)
        await asyncio.to_thread(self._finish, upload_id, entry)
        return file_size(self._data(upload_id))

    async def write_part(
        self, upload_id: str, secret: str, number: str, request: web.Request
    ) -> str:
        """Write a request's body as part `number`, in any order, and return its ETag."""
        self._writable(upload_id, secret)
        if not _NUMBER.fullmatch(number):
            raise _wrong(f"{number[:20]!r} is not a part number; use 1 to 9999")
        path = self._part(upload_id, int(number))
        others = sum(file_size(each) for each in self._parts(upload_id) if each != path)
        return await self._receive(request, path, self.limits.max_bytes - others)

    async def complete(self, upload_id: str, secret: str, body: Any) -> int:
        """Join the listed parts in the order of their numbers and return the size in bytes."""
        entry = self._writable(upload_id, secret)
        numbers = _part_numbers(body)
        paths = [self._part(upload_id, number) for number in numbers]
        for number, path in zip(numbers, paths, strict=True):
            if not path.is_file():
                raise _wrong(f"Part {number} was not uploaded")
        await asyncio.to_thread(self._check_room, 0)
        await asyncio.to_thread(_join, paths, self._data(upload_id))
        await asyncio.to_thread(self._finish, upload_id, entry)
        return file_size(self._data(upload_id))

    # --- files -----------------------------------------------------------------------------------

    def _entry_path(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.json"

    def _data(self, upload_id: str) -> Path:
        return self._folder / upload_id

    def _part(self, upload_id: str, number: int) -> Path:
        return self._folder / f"{upload_id}.{number}.part"

    def _parts(self, upload_id: str) -> Iterator[Path]:
        return self._folder.glob(f"{upload_id}.*.part")

    def _entry(self, upload_id: str) -> UploadEntry | None:
        """Return the entry of an upload that has not expired, or None."""
        if not _ID.fullmatch(upload_id):
            return None
        try:
            entry = UploadEntry.read(self._entry_path(upload_id))
        except (OSError, ValueError):  # missing, damaged or foreign
            return None
        return entry if entry.expires > self._clock() else None

    def _finish(self, upload_id: str, entry: UploadEntry) -> None:
        expires = self._clock() + self.limits.kept_seconds
        done = replace(entry, secret_hash="", expires=expires)
        done.write(self._entry_path(upload_id))
        for part in self._parts(upload_id):
            part.unlink(missing_ok=True)
        sync_folder(self._folder)

    def _writable(self, upload_id: str, secret: str) -> UploadEntry:
        entry = self._entry(upload_id)
        if entry is None or not hmac.compare_digest(entry.secret_hash, secret_hash(secret)):
            raise RequestRefused(_NO_UPLOAD)
        return entry

    def _check_room(self, wanted: int) -> None:
        if self._used() + wanted <= self.limits.total_bytes:
            return
        self.sweep()
        if self._used() + wanted > self.limits.total_bytes:
            raise RequestRefused(_FULL)

    def _used(self) -> int:
        return sum(file_size(path) for path in own_files(self._folder, UPLOAD_NAME))

    async def _receive(self, request: web.Request, path: Path, allowed: int) -> str:
        """Stream a body into a file that appears only when complete, and return its ETag."""
        expected = request.content_length or 0
        await asyncio.to_thread(self._check_room, expected)
        if expected > allowed:
            raise too_large(self.limits.max_bytes)
        digest, size = hashlib.sha256(), 0
        incoming = path.with_name(f"{path.name}.{secrets.token_hex(4)}.incoming")
        try:
            # Unbuffered, so that the size that others see is the size so far.
            with full_disk_refused(), incoming.open("xb", buffering=0) as file:
                async for chunk in chunks(request):
                    size += len(chunk)
                    if size > allowed:
                        raise too_large(self.limits.max_bytes)
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
                    # Others write at the same time, and Content-Length may be missing.
                    if size // _LOOK_AGAIN_BYTES > (size - len(chunk)) // _LOOK_AGAIN_BYTES:
                        await asyncio.to_thread(self._check_room, 0)
                await asyncio.to_thread(_sync, file)
            incoming.replace(path)
        finally:
            incoming.unlink(missing_ok=True)
        return digest.hexdigest()


_NO_UPLOAD = error_response(
    404, "There is no such upload, or it is complete or has expired", "not_found"
)
_FULL = error_response(507, "The server's folder for uploads is full", "storage_full")


def _wrong(sentence: str) -> RequestRefused:
    return RequestRefused(error_response(400, sentence, "bad_request"))


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _part_numbers(body: Any) -> list[int]:
    parts = body.get("parts") if isinstance(body, dict) else None
    listed = parts if isinstance(parts, list) else []
    found = [each.get("partNumber") if isinstance(each, dict) else None for each in listed]
    numbers = [number for number in found if type(number) is int and 0 < number < 10_000]
    if not numbers or len(numbers) != len(found):
        raise _wrong('The body must be {"parts": [{"partNumber": 1, "etag": "..."}, ...]}')
    return sorted(set(numbers))


def _join(parts: list[Path], whole: Path) -> None:
    joined = whole.with_name(f"{whole.name}.{secrets.token_hex(4)}.incoming")
    try:
        with full_disk_refused(), joined.open("xb") as file:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, file, CHUNK_BYTES)
            _sync(file)
        joined.replace(whole)
    finally:
        joined.unlink(missing_ok=True)
