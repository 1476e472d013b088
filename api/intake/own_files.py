"""This server's own files that a request refers to by URL: uploads, and outputs of requests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from ..net.fetching import InputRefused
from ..queue.store import Store
from ..wire.hosts import FILES
from .uploads import UploadStore


@dataclass(frozen=True)
class OwnFiles:
    """Finds the files behind this server's own URLs without an HTTP call.

    The host is ignored: the same server has many names. An upload's URL is its own secret; an
    output belongs to the key that requested it.
    """

    uploads: UploadStore
    store: Store

    def find(self, url: str, *, owner: str) -> Path | None:
        """Return the file behind a URL, or None if the URL is not this server's.

        owner: the id of the caller's key.
        Raises InputRefused for an output of another key, and for one that was removed.
        """
        if url[:5].lower() == "data:":
            return None
        upload = self.uploads.resolve(url)
        if upload is not None:
            return upload
        token = _token(url)
        output = self.store.outputs.find(token) if token else None
        if token is None or output is None:
            return None
        if self.store.outputs.owner(token) != owner:
            raise _refused("It is an output of another key: use that key, or upload the file.")
        if not output.path.is_file():
            raise _refused("It was an output of a request and has been removed.")
        return output.path


def _token(url: str) -> str | None:
    try:
        path = URL(url).path.removeprefix("/api")
    except ValueError:
        return None
    parts = path.removeprefix(f"{FILES}/").split("/")
    return parts[0] if path.startswith(f"{FILES}/") and len(parts) == 2 else None


def _refused(reason: str) -> InputRefused:
    return InputRefused(f"Failed to download the file. {reason}", type="file_download_error")
