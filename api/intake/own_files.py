"""Files of this server that a request names by their URLs: uploads, and what requests made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from ..http.answers import FILES
from ..net.fetching import InputRefused
from ..queue.store import Store
from .uploads import UploadStore


@dataclass(frozen=True)
class OwnFiles:
    """Finds the files behind URLs of this server, which are never called.

    Only the path counts: the same server has many names. An upload's URL is its own secret, a
    result belongs to the key that asked for it.
    """

    uploads: UploadStore
    store: Store

    def find(self, url: str, *, owner: str) -> Path | None:
        """Give the file behind a URL, or None if it is not of this server.

        owner: the id of the key that names it. Raises InputRefused for the result of another key,
        and for one that is gone.
        """
        if url[:5].lower() == "data:":
            return None
        upload = self.uploads.resolve(url)
        if upload is not None:
            return upload
        token = _token(url)
        output = self.store.output(token) if token else None
        if token is None or output is None:
            return None
        if self.store.owner_of_output(token) != owner:
            raise _refused("It is the result of another key: use that key, or upload the file.")
        if not output.path.is_file():
            raise _refused("It was the result of a request, and is not kept any more.")
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
