"""Clips at URLs such as s3://bucket/clips: found by fsspec, and copied to this machine."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from ..pipeline.errors import AnimateDiffV2VError, DiskFull
from ..pipeline.part_folder import PartFolder
from ..pipeline.video.suffixes import PICTURE_SUFFIXES, VIDEO_SUFFIXES

# In the output folder, so that machines which share it share the copies too.
INPUTS_FOLDER = ".inputs"
INSTALL = 'python -m pip install "animatediff-v2v[remote]"'
_COPIES_AT_A_TIME = 8
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Characters of a URL that some file system does not take in names.
_UNSAFE = re.compile(r'[%/\\:*?"<>|\x00-\x1f]')
# What filesystems call the version of a file, the surest first.
_VERSIONS = (
    "ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "updated", "mtime",
    "created",
)  # fmt: skip


def is_url(text: str) -> bool:
    """Return whether a text is the URL of a file or folder; a Windows drive is none."""
    return _URL.match(text) is not None


def filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's filesystem of a URL, and the path in it.

    Raises:
        ImportError: the package of its protocol is not installed.
        ValueError: no such protocol is known.
    """
    import fsspec  # noqa: PLC0415 - optional, and only URLs need it

    # Others have no folders, or make them when a file is written.
    options = {"auto_mkdir": True} if url.startswith(("file:", "local:")) else {}
    opened, path = fsspec.url_to_fs(url, **options)
    return opened, str(path)


@contextmanager
def in_words(url: str, *, doing: str) -> Iterator[None]:
    """Raise errors of a filesystem as sentences.

    Args:
        url: The file or folder.
        doing: The participle in "cannot be …".
    """
    try:
        yield
    except AnimateDiffV2VError:
        raise
    except ImportError as error:
        raise AnimateDiffV2VError(
            f"{url} needs a package that is not installed: {error}. Besides it, `{INSTALL}`."
        ) from error
    except FileNotFoundError as error:
        raise AnimateDiffV2VError(f"There is no {url}; check the address.") from error
    except PermissionError as error:
        raise AnimateDiffV2VError(
            f"{url} cannot be {doing}: access is denied ({error}); check this machine's "
            "credentials and the rights that they have."
        ) from error
    except Exception as error:  # each protocol has its own package, and each package its own errors
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DiskFull(f"{url} was not {doing}: the disk is full; free some space.") from error
        raise AnimateDiffV2VError(
            f"{url} cannot be {doing}: {str(error) or type(error).__name__}. Check the address and "
            "the network; the same command goes on where it was."
        ) from error


def local_name(url: str) -> Path:
    """Return the relative path that a URL's file has on this machine; see `url_of`.

    >>> local_name("s3://bucket/deep/a.mp4").as_posix()
    's3/bucket/deep/a.mp4'
    """
    protocol, _, rest = url.rstrip("/").partition("://")
    names = rest.lstrip("/").split("/")
    if any(name in ("", ".", "..") for name in names):
        raise AnimateDiffV2VError(f"{url} has an empty or relative part; give a plain address.")
    names[0] = "/" * (len(rest) - len(rest.lstrip("/"))) + names[0]
    return Path(protocol, *(_UNSAFE.sub(lambda each: f"%{ord(each[0]):02X}", n) for n in names))


def url_of(name: Path) -> str:
    """Return the URL that `local_name` turned into a path.

    >>> url_of(local_name("file:///clips/a:b.mp4"))
    'file:///clips/a:b.mp4'
    """
    protocol, *names = name.parts
    return f"{protocol}://" + "/".join(map(unquote, names))


@dataclass(frozen=True)
class RemoteInputs:
    """Local copies of files at URLs; a file that is unchanged is not copied again."""

    folder: Path
    """The folder of the copies."""
    without: str = ""
    """The URL of the output folder, in which no clips are looked for."""

    def paths(self, url: str) -> list[Path]:
        """Return the copies of a file, of a folder, or of all that match a pattern.

        Raises:
            AnimateDiffV2VError: there is none, or it cannot be read.
            DiskFull: there is no space for the copies.
        """
        url = url.rstrip("/")
        target = self.folder / local_name(url)
        with in_words(url, doing="copied"):
            files, path = filesystem(url)
            files.invalidate_cache()
            try:
                entry = files.info(path)
            except FileNotFoundError:
                if not has_magic(path):
                    raise
                return [copy for each in self._matches(files, url) for copy in self.paths(each)]
            if entry["type"] == "directory":
                self._copy_all(files, self._clips(files, url, path), target)
            else:
                self._copy_all(files, {path: (entry, target)}, target)
            return [target]

    def beside(self, table: Path, given: str) -> Path:
        """Return the path of a file that a table names, by a URL or relative to the table.

        Raises:
            AnimateDiffV2VError: it is at a URL, and cannot be read.
        """
        if not is_url(given):
            if not table.is_relative_to(self.folder) or Path(given).is_absolute():
                return table.parent / given
            given = url_of(table.parent.relative_to(self.folder)) + "/" + given
        paths = self.paths(given)
        if len(paths) > 1:
            raise AnimateDiffV2VError(f"{given} matches {len(paths)} files; give a row for each.")
        return paths[0]

    @staticmethod
    def _matches(files: Any, url: str) -> list[str]:
        """Return the URLs that match a pattern, in order."""
        base = url[: url.rindex("/", 0, re.search(r"[*?\[]", url).start())]  # type: ignore[union-attr]
        root = filesystem(base)[1]
        names = sorted(str(each)[len(root) :] for each in files.glob(root + url[len(base) :]))
        found = [base + each for each in names if not PurePosixPath(each).name.startswith(".")]
        if not found:
            raise AnimateDiffV2VError(f"No file matches {url}; check the pattern.")
        return found

    def _clips(self, files: Any, url: str, path: str) -> dict[str, tuple[dict[str, Any], Path]]:
        """Return the videos and pictures of a folder at any depth: entries and copies by path."""
        results = filesystem(self.without)[1].rstrip("/") + "/" if self.without else None
        found = {}
        for each, entry in files.find(path, detail=True).items():
            name = PurePosixPath(each[len(path) :].lstrip("/"))
            is_clip = name.suffix.lower() in VIDEO_SUFFIXES | PICTURE_SUFFIXES
            is_hidden = any(part.startswith(".") for part in name.parts)
            if is_clip and not is_hidden and not (results and each.startswith(results)):
                found[each] = (entry, self.folder / local_name(f"{url}/{name}"))
        if not found:
            raise AnimateDiffV2VError(f"The folder {url} holds no video and no pictures.")
        return found

    @staticmethod
    def _copy_all(files: Any, found: dict[str, tuple[dict[str, Any], Path]], target: Path) -> None:
        """Copy files that are not there unchanged, and remove copies of files that are gone."""
        wanted = {copy for _, copy in found.values()}
        for each in target.rglob("*") if target.is_dir() else ():
            if each not in wanted and each.suffix.lower() in VIDEO_SUFFIXES | PICTURE_SUFFIXES:
                each.unlink()
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = PartFolder(target)

        def copy(item: tuple[int, tuple[str, tuple[dict[str, Any], Path]]]) -> None:
            number, (path, (entry, made)) = item
            copy_file(files, path, entry, made, part=unfinished.path / str(number))

        try:
            with ThreadPoolExecutor(_COPIES_AT_A_TIME) as threads:
                list(threads.map(copy, enumerate(found.items())))
        finally:
            unfinished.remove()


def copy_file(files: Any, path: str, entry: dict[str, Any], target: Path, *, part: Path) -> None:
    """Copy a file to this machine, unless its copy is of the same size and version.

    Args:
        files: The filesystem.
        path: The file in it.
        entry: Its size and version, as the filesystem lists them.
        target: The copy, which is replaced when the new one is complete.
        part: The name of the copy until then.
    """
    version = next((str(entry[key]) for key in _VERSIONS if entry.get(key)), "")
    # The copy's time of change stands for the version, so that no list of copies is needed.
    changed = int(hashlib.sha256(version.encode()).hexdigest()[:7], 16)
    if version and target.is_file():
        found = target.stat()
        if int(found.st_mtime) == changed and entry.get("size") in (None, found.st_size):
            return
    files.get_file(path, str(part))
    os.utime(part, (changed, changed))
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)
