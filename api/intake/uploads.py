"""Files that clients hand in, kept until they expire, under names of our own.

Each upload is two files in one folder: `<id>` with the bytes and `<id>.json` with what is known of
it. The id is drawn here; the name that a client gives appears in URLs and nowhere else. Reading
needs the id, writing a secret besides, so both URLs work without a key, as the clients expect.
Nothing is kept in memory alone, so an upload begun before a restart can be ended after it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from aiohttp import web
from yarl import URL

from ..http.bodies import chunks
from ..net.fetching import CHUNK_BYTES, MEBIBYTE
from ..storage.data_folder import UPLOAD_NAME, file_size, own_files, sync_folder, write_durably
from ..storage.disk import full_disk_refused
from ..wire.hosts import MOUNT
from ..wire.problems import RequestRefused, error_response, too_large

logger = logging.getLogger(__name__)

UPLOADS = f"{MOUNT}/uploads"
_ID_LENGTH = 32
_ID = re.compile(rf"[0-9a-f]{{{_ID_LENGTH}}}")
_NUMBER = re.compile(r"[1-9][0-9]{0,3}")
_LOOK_AGAIN_BYTES = 16 * MEBIBYTE
_CONTENT_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}", re.ASCII)


@dataclass(frozen=True)
class UploadLimits:
    """What uploads may cost."""

    max_bytes: int = 2048 * MEBIBYTE
    """Of one file."""
    total_bytes: int = 20 * 1024 * MEBIBYTE
    """Of all files together."""
    kept_seconds: float = 7 * 86_400
    """How long a file stays after it was handed in."""
    write_seconds: float = 6 * 3600
    """How long after it was asked for an upload can be written."""


@dataclass(frozen=True)
class _About:
    """What is known of an upload."""

    content_type: str
    file_name: str
    secret_hash: str
    """Of what allows writing; empty once the file is whole."""
    expires: float
    """Seconds since the epoch."""


class UploadStore:
    """The uploads in one folder."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: UploadLimits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep uploads in `folder`, which is made when it is first needed.

        clock: seconds since the epoch, by which uploads expire.
        """
        self._folder = folder
        self._clock = clock
        self.limits = limits or UploadLimits()

    def initiate(self, *, content_type: str, file_name: str) -> tuple[str, str, str]:
        """Begin an upload: give its id, the secret that writes it, and its path in URLs.

        Raises RequestRefused when the folder is full.
        """
        with full_disk_refused():
            self._folder.mkdir(parents=True, exist_ok=True)
        self._check_room(0)
        upload_id, secret = secrets.token_hex(16), secrets.token_urlsafe(24)
        about = _About(
            content_type=content_type if _CONTENT_TYPE.fullmatch(content_type) else _ANYTHING,
            file_name=display_name(file_name),
            secret_hash=_hash(secret),
            expires=self._clock() + self.limits.write_seconds,
        )
        self._write_about(upload_id, about)
        return upload_id, secret, f"{UPLOADS}/{upload_id}/{quote(about.file_name)}"

    def resolve(self, url: str) -> Path | None:
        """Give the file behind a URL of a finished upload, or None if it is not one.

        Only the path counts: the same server has many names.
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
        """Give file and content type of a finished upload, or None where there is none."""
        about, data = self._about(upload_id), self._data(upload_id)
        if about is None or about.secret_hash or not data.is_file():
            return None
        return data, about.content_type

    def sweep(self) -> None:
        """Remove what has expired, and what crashes left; only files under names of our own.

        What cannot be read may be whole: it goes when nothing as old as it is kept any more.
        """
        kept: dict[str, bool | None] = {}
        for path in own_files(self._folder, UPLOAD_NAME):
            upload_id = path.name[:_ID_LENGTH]
            if upload_id not in kept:
                kept[upload_id] = self._is_kept(upload_id)
            # What has no entry may belong to one that is just being written.
            if kept[upload_id] or (kept[upload_id] is None and not self._is_old(path)):
                continue
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s could not be removed: %s", path, error)

    def _is_kept(self, upload_id: str) -> bool | None:
        """Whether an upload has not expired; None where it has no entry."""
        path = self._entry(upload_id)
        try:
            return _read_about(path).expires > self._clock()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read: %s", path, error)
            return self._clock() - _changed_at(path) < self.limits.kept_seconds

    def _is_old(self, path: Path) -> bool:
        return self._clock() - _changed_at(path) > self.limits.write_seconds

    async def write(self, upload_id: str, secret: str, request: web.Request) -> int:
        """Write a request's body as the whole upload; give its bytes.

        Raises RequestRefused where that fails.
        """
        about = self._writable(upload_id, secret)
        await self._receive(request, self._data(upload_id), self.limits.max_bytes)
        await asyncio.to_thread(self._finish, upload_id, about)
        return file_size(self._data(upload_id))

    async def write_part(
        self, upload_id: str, secret: str, number: str, request: web.Request
    ) -> str:
        """Write a request's body as part `number`, in any order; give its ETag."""
        self._writable(upload_id, secret)
        if not _NUMBER.fullmatch(number):
            raise _wrong(f"There is no part {number[:20]!r}, only 1 to 9999")
        path = self._part(upload_id, int(number))
        others = sum(file_size(each) for each in self._parts(upload_id) if each != path)
        return await self._receive(request, path, self.limits.max_bytes - others)

    async def complete(self, upload_id: str, secret: str, body: Any) -> int:
        """Put the listed parts together, in the order of their numbers; give their bytes."""
        about = self._writable(upload_id, secret)
        numbers = _part_numbers(body)
        paths = [self._part(upload_id, number) for number in numbers]
        for number, path in zip(numbers, paths, strict=True):
            if not path.is_file():
                raise _wrong(f"Part {number} was not uploaded")
        await asyncio.to_thread(self._check_room, 0)
        await asyncio.to_thread(_join, paths, self._data(upload_id))
        await asyncio.to_thread(self._finish, upload_id, about)
        return file_size(self._data(upload_id))

    # --- files -----------------------------------------------------------------------------

    def _entry(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.json"

    def _data(self, upload_id: str) -> Path:
        return self._folder / upload_id

    def _part(self, upload_id: str, number: int) -> Path:
        return self._folder / f"{upload_id}.{number}.part"

    def _parts(self, upload_id: str) -> Iterator[Path]:
        return self._folder.glob(f"{upload_id}.*.part")

    def _about(self, upload_id: str) -> _About | None:
        """Read what is known of an upload that has not expired."""
        if not _ID.fullmatch(upload_id):
            return None
        try:
            about = _read_about(self._entry(upload_id))
        except (OSError, ValueError):  # there is none, or it is damaged or somebody else's
            return None
        return about if about.expires > self._clock() else None

    def _write_about(self, upload_id: str, about: _About) -> None:
        with full_disk_refused():
            write_durably(self._entry(upload_id), json.dumps(asdict(about)).encode())

    def _finish(self, upload_id: str, about: _About) -> None:
        expires = self._clock() + self.limits.kept_seconds
        self._write_about(upload_id, replace(about, secret_hash="", expires=expires))
        for part in self._parts(upload_id):
            part.unlink(missing_ok=True)
        sync_folder(self._folder)

    def _writable(self, upload_id: str, secret: str) -> _About:
        about = self._about(upload_id)
        if about is None or not hmac.compare_digest(about.secret_hash, _hash(secret)):
            raise RequestRefused(_NO_UPLOAD)
        return about

    def _check_room(self, wanted: int) -> None:
        if self._used() + wanted <= self.limits.total_bytes:
            return
        self.sweep()
        if self._used() + wanted > self.limits.total_bytes:
            raise RequestRefused(_FULL)

    def _used(self) -> int:
        return sum(file_size(path) for path in own_files(self._folder, UPLOAD_NAME))

    async def _receive(self, request: web.Request, path: Path, allowed: int) -> str:
        """Stream a body into a file that appears when it is whole; give the ETag of its bytes."""
        expected = request.content_length or 0
        await asyncio.to_thread(self._check_room, expected)
        if expected > allowed:
            raise too_large(self.limits.max_bytes)
        digest, size = hashlib.sha256(), 0
        incoming = path.with_name(f"{path.name}.{secrets.token_hex(4)}.incoming")
        try:
            # Unbuffered, so that what others measure is what is there.
            with full_disk_refused(), incoming.open("xb", buffering=0) as file:
                async for chunk in chunks(request):
                    size += len(chunk)
                    if size > allowed:
                        raise too_large(self.limits.max_bytes)
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
                    # Others write at the same time, and no length need have been told.
                    if size // _LOOK_AGAIN_BYTES > (size - len(chunk)) // _LOOK_AGAIN_BYTES:
                        await asyncio.to_thread(self._check_room, 0)
                await asyncio.to_thread(_sync, file)
            incoming.replace(path)
        finally:
            incoming.unlink(missing_ok=True)
        return digest.hexdigest()


_ANYTHING = "application/octet-stream"
_NO_UPLOAD = error_response(404, "There is no such upload, or it has ended", "not_found")
_FULL = error_response(507, "The server's folder for uploads is full", "storage_full")


def display_name(file_name: str) -> str:
    """Give what of a client's name may stand in a URL and in a header; never in a path here.

    >>> display_name("C:/evil/../dance 1.mp4")
    'dance_1.mp4'
    """
    last = re.split(r"[/\\]", file_name)[-1]
    return re.sub(r"[^\w.-]+", "_", last, flags=re.ASCII).lstrip(".")[-80:] or "file"


def _wrong(sentence: str) -> RequestRefused:
    return RequestRefused(error_response(400, sentence, "bad_request"))


def _read_about(path: Path) -> _About:
    """Read an upload's entry; raises OSError, or ValueError where it is damaged."""
    try:
        about = _About(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, RecursionError) as error:
        raise ValueError("it is no entry of an upload") from error
    texts = (about.content_type, about.file_name, about.secret_hash)
    is_time = isinstance(about.expires, int | float) and not isinstance(about.expires, bool)
    if not all(isinstance(each, str) for each in texts) or not is_time:
        raise ValueError("it is no entry of an upload")
    return about


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


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
