"""The LoRAs that requests name: installed, uploaded, or downloaded from a URL or Hugging Face.

Uploaded and downloaded files are cached in a folder of the service under the hash of their
content, after a check that they hold tensors. Only safetensors files are accepted, as they cannot
contain code.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from yarl import URL

from ...pipeline.errors import AnimateDiffV2VError
from ...pipeline.files.reading import read_header
from ..net.fetching import CHUNK_BYTES, FetchedFile, FetchLimits, InputRefused, fetch
from ..queue.executor import ModelLibrary
from ..storage.data_folder import own_files
from .room import Room
from .uploads import UploadStore

LORAS = "loras"
EARLIER_CACHE = "animatediff_v2v_cache"
"""The cache of earlier versions, inside models/loras, where ComfyUI listed its files."""
SUFFIX = ".safetensors"
IN_USE_SECONDS = 3600
"""A full cache drops its least recently used files, but none used within this time."""
FRESH_SECONDS = 86_400
"""A URL is not downloaded again within this time."""
LORA_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_NOTE_NAME = re.compile(r"[0-9a-f]{64}\.json")
_INCOMING = ".incoming-"
_HUB = "https://huggingface.co"
_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_HUB_NAME = re.compile(rf"({_PART}/{_PART})((?:/[\w.() +-]+)*)", re.ASCII)
_HUB_PAGE = re.compile(rf"/({_PART}/{_PART})/blob/(.+)", re.ASCII)
_LONGEST_LISTING = 4 * 2**20


class LoraShelf:
    """Finds LoRAs, and caches those that are not installed."""

    def __init__(
        self,
        library: ModelLibrary,
        uploads: UploadStore,
        limits: FetchLimits,
        *,
        folder: Path,
        cache_bytes: int = 20 * 2**30,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Find LoRAs in the library and the uploads, and download others within `limits`.

        folder: the cache, of at most `cache_bytes`.
        clock: seconds since the epoch.
        """
        self._library, self._uploads, self._limits = library, uploads, limits
        self._folder, self._clock = folder, clock
        self._room = Room(folder, LORA_NAME, most_bytes=cache_bytes)
        self._fetching: dict[str, asyncio.Lock] = {}

    async def name_of(self, reference: str) -> str:
        """Return the file of a LoRA: its name in models/loras, or an absolute path in the cache.

        reference: an installed file with or without its suffix, the URL of an upload, an http(s)
            URL or data URI, or `owner/repository[/file]` at Hugging Face.

        Raises:
            InputRefused: there is no such file, or it is too large or not a LoRA file.
            StorageFull: the cache is full of files in use.
        """
        uploaded = self._uploads.resolve(reference)
        if uploaded is not None:
            return await self._from_upload(uploaded, reference)
        if re.match(r"(https?|data):", reference, re.IGNORECASE):
            return await self._from_url(_file_at_hub(reference), reference)
        installed = await asyncio.to_thread(self._installed, reference)
        if installed is not None:
            return installed
        at_hub = _HUB_NAME.fullmatch(reference)
        if at_hub is None or ".." in PurePosixPath(reference).parts:
            raise _refused(f"{_shown(reference)} is not installed in models/{LORAS}")
        return await self._from_hub(at_hub[1], at_hub[2].lstrip("/"), reference)

    def _installed(self, reference: str) -> str | None:
        """Look a name up in the list of installed files; it is never used as a path."""
        names = {name.replace(os.sep, "/"): name for name in self._library.names(LORAS)}
        wanted = reference.replace("\\", "/")
        if wanted in names:
            return names[wanted]
        return next(
            (name for plain, name in names.items() if plain.rpartition(".")[0] == wanted), None
        )

    # --- uploads and downloads -------------------------------------------------------------------

    async def _from_upload(self, uploaded: Path, reference: str) -> str:
        await asyncio.to_thread(_check_tensors, uploaded, reference)
        kept = self._cache() / f"{await asyncio.to_thread(_hash, uploaded)}{SUFFIX}"
        if not kept.exists():
            size = min(uploaded.stat().st_size, self._room.most_bytes)
            await asyncio.to_thread(self.make_room, size)
            async with self._room.granted(size, least=size):
                await asyncio.to_thread(_link_or_copy, uploaded, kept)
        self._use(kept)
        return str(kept)

    async def _from_hub(self, repository: str, file: str, reference: str) -> str:
        if not file:
            file = await self._only_file(repository, reference)
        return await self._from_url(f"{_HUB}/{repository}/resolve/main/{quote(file)}", reference)

    async def _only_file(self, repository: str, reference: str) -> str:
        limits = FetchLimits(
            max_bytes=_LONGEST_LISTING,
            timeout_seconds=self._limits.timeout_seconds,
            max_redirects=self._limits.max_redirects,
            content_types=("application/json",),
        )
        with TemporaryDirectory() as folder:
            listing = await fetch(f"{_HUB}/api/models/{repository}", Path(folder), limits=limits)
            files = _listed_files(json.loads(listing.path.read_bytes()))
        preferred = [name for name in files if name == "pytorch_lora_weights.safetensors"]
        chosen = preferred or files
        if len(chosen) != 1:
            found = ", ".join(files[:10]) or "none"
            raise _refused(f"{_shown(reference)} has no single {SUFFIX} file ({found}): name one")
        return chosen[0]

    async def _from_url(self, url: str, reference: str) -> str:
        """Download a URL unless that was done recently; one download at a time per URL."""
        lock = self._fetching.setdefault(url, asyncio.Lock())
        try:
            async with lock:
                known = await asyncio.to_thread(self._known, url)
                if known is not None:
                    return known
                wanted = min(self._limits.max_bytes, self._room.most_bytes)
                await asyncio.to_thread(self.make_room, wanted)
                async with self._room.granted(wanted) as most:
                    return await self._fetched(
                        url, reference, replace(self._limits, max_bytes=most)
                    )
        finally:
            if not lock.locked():
                self._fetching.pop(url, None)

    async def _fetched(self, url: str, reference: str, limits: FetchLimits) -> str:
        with TemporaryDirectory(dir=self._cache(), prefix=_INCOMING) as folder:
            fetched = await fetch(url, Path(folder), limits=limits)
            return await asyncio.to_thread(self._keep, fetched, url, reference)

    def _keep(self, fetched: FetchedFile, url: str, reference: str) -> str:
        """Move a file into the cache under its content hash, and note its URL."""
        _check_tensors(fetched.path, reference)
        kept = self._cache() / f"{_hash(fetched.path)}{SUFFIX}"
        if not kept.exists():
            fetched.path.replace(kept)
        self._use(kept)
        about = {"name": kept.name, "fetched": self._clock()}
        self._note(url).write_text(json.dumps(about), encoding="utf-8")
        return str(kept)

    # --- the cache -------------------------------------------------------------------------------

    def _cache(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def _note(self, url: str) -> Path:
        return self._cache() / f"{hashlib.sha256(url.encode()).hexdigest()}.json"

    def _known(self, url: str) -> str | None:
        """Return the cached file of a URL downloaded within FRESH_SECONDS, or None."""
        try:
            note = json.loads(self._note(url).read_text(encoding="utf-8"))
            name, fetched = str(note["name"]), float(note["fetched"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None  # missing, or cut short by a crash
        path = self._cache() / PurePosixPath(name.replace(os.sep, "/")).name
        if fetched < self._clock() - FRESH_SECONDS or not path.is_file():
            return None
        self._use(path)
        return str(path)

    def _use(self, path: Path) -> None:
        """Set the file's time: a job may be about to read it."""
        now = self._clock()
        os.utime(path, (now, now))

    def make_room(self, wanted: int = 0) -> None:
        """Remove the least recently used files until `wanted` more bytes fit.

        Files used within the last hour stay: a job may be about to read them.
        """
        for left_over in self._cache().glob(f"{_INCOMING}*"):  # left by a killed process
            if left_over.stat().st_mtime < self._clock() - FRESH_SECONDS:
                shutil.rmtree(left_over)
        files = [(path.stat(), path) for path in own_files(self._cache(), LORA_NAME)]
        files.sort(key=lambda entry: entry[0].st_mtime)
        total = wanted + sum(status.st_size for status, _ in files)
        for status, path in files:
            is_in_use = status.st_mtime > self._clock() - IN_USE_SECONDS
            if total <= self._room.most_bytes or is_in_use:
                return
            path.unlink(missing_ok=True)
            total -= status.st_size

    def take_over(self) -> None:
        """Move the cache of an earlier version from models/loras into this one."""
        for folder in self._library.folders(LORAS):
            earlier = folder / EARLIER_CACHE
            for name in (LORA_NAME, _NOTE_NAME):
                for path in own_files(earlier, name):
                    kept = self._cache() / path.name
                    if not kept.exists():
                        _link_or_copy(path, kept)
                        shutil.copystat(path, kept)  # keeps the time of its last use
                    path.unlink()
            with suppress(OSError):  # missing, or it holds other files
                earlier.rmdir()


def _check_tensors(path: Path, reference: str) -> None:
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
        read_header(path)
    except AnimateDiffV2VError as error:
        # The caller must not learn the path on this machine.
        sentence = str(error).replace(str(path), _shown(reference))
        raise InputRefused(sentence, type="file_download_error") from error
    if not is_safetensors:
        raise _refused(f"{_shown(reference)} is not a {SUFFIX} file, and only those are accepted")


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _link_or_copy(source: Path, target: Path) -> None:
    new = target.with_name(f"{target.name}.{secrets.token_hex(4)}.new")
    try:
        os.link(source, new)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, new)
    new.replace(target)


def _file_at_hub(url: str) -> str:
    """Return the file's URL for the URL of its page at Hugging Face; other URLs as they are."""
    try:
        page = URL(url)
    except ValueError:
        return url
    match = _HUB_PAGE.fullmatch(page.raw_path)
    if page.host != "huggingface.co" or match is None:
        return url
    return f"{_HUB}/{match[1]}/resolve/{match[2]}"


def _listed_files(listing: Any) -> list[str]:
    siblings = listing.get("siblings") if isinstance(listing, dict) else None
    names = [each.get("rfilename") for each in siblings or () if isinstance(each, dict)]
    return sorted(name for name in names if isinstance(name, str) and name.endswith(SUFFIX))


def _shown(reference: str) -> str:
    """Return a reference for an error sentence, without query (it may hold a token) and data."""
    return repr(reference.split("?", maxsplit=1)[0].rsplit("@", maxsplit=1)[-1][:100])


def _refused(sentence: str) -> InputRefused:
    return InputRefused(f"{sentence}.", type="file_download_error")
