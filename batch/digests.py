"""Digests of files and requests, by which a result is recognised as done and unchanged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.request import ModelFiles, Request
from ..version import package_version
from .documents import document

# The key in the metadata of results.
MARK = "animatediff_v2v_unit"
_BLOCK_BYTES = 2**20

# Size in bytes and time of the last change in nanoseconds.
Stamp = tuple[int, int]


class DigestStore(Protocol):
    """Remembers digests of files between runs."""

    def digest_of(self, path: Path, stamp: Stamp) -> str | None:
        """Return the digest of a file that has not changed since; None if it is not known."""
        ...

    def keep_digest(self, path: Path, stamp: Stamp, digest: str) -> None:
        """Remember the digest of a file."""
        ...


def stamp_of(path: Path) -> Stamp:
    """Return what shows that a file has changed, of a folder that of its newest file.

    Raises:
        AnimateDiffV2VError: the file is not there, or cannot be accessed.
    """
    try:
        if not path.is_dir():
            found = path.stat()
            return found.st_size, found.st_mtime_ns
        stats = [each.stat() for each in _files_in(path)]
        return sum(each.st_size for each in stats), max(
            (each.st_mtime_ns for each in stats), default=0
        )
    except FileNotFoundError:
        raise AnimateDiffV2VError(f"there is no file {path}; check the path.") from None
    except OSError as error:
        raise AnimateDiffV2VError(f"{path} cannot be read: {error.strerror}.") from error


class FileDigests:
    """Digests of the contents of files, each file read once."""

    def __init__(self, store: DigestStore) -> None:
        """Use digests that are in `store`, and add new ones.

        Attributes:
            stamps: What files were like when their digests were taken.
        """
        self._store = store
        self._known: dict[Path, str] = {}
        self.stamps: dict[Path, Stamp] = {}

    def __call__(self, path: Path) -> str:
        """Return the digest of a file, or of all files of a folder.

        Raises:
            AnimateDiffV2VError: it cannot be read.
        """
        path = path.absolute()
        if path not in self._known:
            stamp = stamp_of(path)
            digest = self._store.digest_of(path, stamp)
            if digest is None:
                digest = content_digest(path)
                self._store.keep_digest(path, stamp, digest)
            self._known[path], self.stamps[path] = digest, stamp
        return self._known[path]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's contents; raise OSError if it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def content_digest(path: Path) -> str:
    """Return the digest of a file, or of all files of a folder.

    Raises:
        AnimateDiffV2VError: it cannot be read.
    """
    try:
        if not path.is_dir():
            return file_digest(path)
        contents = [[each.name, file_digest(each)] for each in _files_in(path)]
        return hashlib.sha256(json.dumps(contents).encode()).hexdigest()
    except OSError as error:
        raise AnimateDiffV2VError(f"{path} cannot be read: {error.strerror}.") from error


def _files_in(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_file())


def models_digest(files: ModelFiles, digest: Callable[[Path], str]) -> str:
    """Return a digest of model files by their contents; devices make no difference."""
    return _sha256(document(replace(files, device="auto", devices=()), path=digest))


def unit_digest(
    kind: str, request: Request, models: str, digest: Callable[[Path], str], extra: Any = None
) -> str:
    """Return a digest of everything that a unit's result depends on, but not of any path.

    Args:
        kind: The kind of unit.
        request: The request; of its output, only the suffix counts.
        models: The digest of the model files.
        digest: Returns the digest of a file.
        extra: Anything else, as data for JSON.
    """

    def described(path: Path) -> str:
        return path.suffix.lower() if path == request.output else digest(path)

    settings = document(replace(request, overwrite=False, metadata={}), path=described)
    return _sha256([package_version(), kind, settings, models, extra])


def _sha256(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
