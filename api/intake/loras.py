"""Find the file that a request means by a LoRA: installed, uploaded, or somewhere in the world.

What comes from elsewhere is kept in a folder of the service under the hash of its content, and is
read once to see that it holds tensors. Only safetensors files come in, which cannot hold programs.
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
"""In models/loras, where earlier versions kept what they brought in, and ComfyUI listed it."""
SUFFIX = ".safetensors"
IN_USE_SECONDS = 3600
"""Beyond its size what was used longest ago goes, but nothing of the last hour."""
FRESH_SECONDS = 86_400
"""How long a URL is taken to give what it gave."""
LORA_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_NOTE_NAME = re.compile(r"[0-9a-f]{64}\.json")
_INCOMING = ".incoming-"
_HUB = "https://huggingface.co"
_PART = r"[A-Za-z0-9][\w.-]{0,95}"
_HUB_NAME = re.compile(rf"({_PART}/{_PART})((?:/[\w.() +-]+)*)", re.ASCII)
_HUB_PAGE = re.compile(rf"/({_PART}/{_PART})/blob/(.+)", re.ASCII)
_LONGEST_LISTING = 4 * 2**20


class LoraShelf:
    """The LoRAs that requests can name."""

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
        """Look among the installed files, the uploads, and in the world within `limits`.

        folder: where what was brought in is kept, `cache_bytes` of it; clock: seconds since the
            epoch.
        """
        self._library, self._uploads, self._limits = library, uploads, limits
        self._folder, self._clock = folder, clock
        self._room = Room(folder, LORA_NAME, most_bytes=cache_bytes)
        self._fetching: dict[str, asyncio.Lock] = {}

    async def name_of(self, reference: str) -> str:
        """Give the file that a request calls `path`: its name in models/loras, or a whole path.

        reference: an installed file with or without its suffix, the URL of an upload, an http(s)
            URL or data URI, `owner/repository` or `owner/repository/file` at Hugging Face.

        Raises:
            InputRefused: nothing is found, or what is found is too large or no LoRA file.
            StorageFull: there is no room for it as long as others are used.
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
        """Look the name up in the list of what is installed: no path is ever made of it."""
        names = {name.replace(os.sep, "/"): name for name in self._library.names(LORAS)}
        wanted = reference.replace("\\", "/")
        if wanted in names:
            return names[wanted]
        return next(
            (name for plain, name in names.items() if plain.rpartition(".")[0] == wanted), None
        )

    # --- from elsewhere ------------------------------------------------------------------------

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
        """Fetch a URL, unless that was done a short while ago; one at a time for each URL."""
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
        """Put a file into the cache under its content hash, and note where it came from."""
        _check_tensors(fetched.path, reference)
        kept = self._cache() / f"{_hash(fetched.path)}{SUFFIX}"
        if not kept.exists():
            fetched.path.replace(kept)
        self._use(kept)
        about = {"name": kept.name, "fetched": self._clock()}
        self._note(url).write_text(json.dumps(about), encoding="utf-8")
        return str(kept)

    # --- the cache -----------------------------------------------------------------------------

    def _cache(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def _note(self, url: str) -> Path:
        return self._cache() / f"{hashlib.sha256(url.encode()).hexdigest()}.json"

    def _known(self, url: str) -> str | None:
        """Give what a URL gave a short while ago, if it is still here."""
        try:
            note = json.loads(self._note(url).read_text(encoding="utf-8"))
            name, fetched = str(note["name"]), float(note["fetched"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None  # there is none, or a crash cut it short
        path = self._cache() / PurePosixPath(name.replace(os.sep, "/")).name
        if fetched < self._clock() - FRESH_SECONDS or not path.is_file():
            return None
        self._use(path)
        return str(path)

    def _use(self, path: Path) -> None:
        """Note by the file's time that a job may be about to read it."""
        now = self._clock()
        os.utime(path, (now, now))

    def make_room(self, wanted: int = 0) -> None:
        """Remove what was used longest ago, until `wanted` bytes more may be kept.

        Nothing that was used within the last hour goes: a job may be about to read it.
        """
        for left_over in self._cache().glob(f"{_INCOMING}*"):  # by a process that was ended
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
        """Move here what an earlier version kept among the installed LoRAs."""
        for folder in self._library.folders(LORAS):
            earlier = folder / EARLIER_CACHE
            for name in (LORA_NAME, _NOTE_NAME):
                for path in own_files(earlier, name):
                    kept = self._cache() / path.name
                    if not kept.exists():
                        _link_or_copy(path, kept)
                        shutil.copystat(path, kept)  # says when it was used
                    path.unlink()
            with suppress(OSError):  # there is none, or somebody else's files are in it
                earlier.rmdir()


def _check_tensors(path: Path, reference: str) -> None:
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
        read_header(path)
    except AnimateDiffV2VError as error:
        # Where the server keeps its files is nobody's business.
        sentence = str(error).replace(str(path), _shown(reference))
        raise InputRefused(sentence, type="file_download_error") from error
    if not is_safetensors:
        raise _refused(f"{_shown(reference)} is no {SUFFIX} file, and only those are taken in")


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
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(source, new)
    new.replace(target)


def _file_at_hub(url: str) -> str:
    """Give the file where a URL names the page about it at Hugging Face."""
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
    """What of a reference may be repeated: no query, which may hold a token, and no data."""
    return repr(reference.split("?", maxsplit=1)[0].rsplit("@", maxsplit=1)[-1][:100])


def _refused(sentence: str) -> InputRefused:
    return InputRefused(f"{sentence}.", type="file_download_error")
