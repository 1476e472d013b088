"""The entry of an upload: a JSON file beside its bytes."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from ..storage.data_folder import write_durably
from ..storage.disk import full_disk_refused

_CONTENT_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}", re.ASCII)


@dataclass(frozen=True)
class UploadEntry:
    """The properties of an upload."""

    content_type: str
    file_name: str
    secret_hash: str
    """Hash of the secret that allows writing; empty once the file is complete."""
    expires: float
    """Seconds since the epoch."""

    @staticmethod
    def read(path: Path) -> UploadEntry:
        """Read an entry; raises OSError, or ValueError when it is damaged."""
        try:
            entry = UploadEntry(**json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, RecursionError) as error:
            raise ValueError("it is not the entry of an upload") from error
        texts = (entry.content_type, entry.file_name, entry.secret_hash)
        is_time = isinstance(entry.expires, int | float) and not isinstance(entry.expires, bool)
        if not all(isinstance(each, str) for each in texts) or not is_time:
            raise ValueError("it is not the entry of an upload")
        return entry

    def write(self, path: Path) -> None:
        """Write the entry; raises StorageFull when the disk is full."""
        with full_disk_refused():
            write_durably(path, json.dumps(asdict(self)).encode())


def usable_content_type(content_type: str) -> str:
    """Return a client's content type if it is well formed, else application/octet-stream."""
    return content_type if _CONTENT_TYPE.fullmatch(content_type) else "application/octet-stream"


def display_name(file_name: str) -> str:
    """Return a client's file name, reduced to what is safe in a URL or a header.

    It is never used in a path on this machine.

    >>> display_name("C:/evil/../dance 1.mp4")
    'dance_1.mp4'
    """
    last = re.split(r"[/\\]", file_name)[-1]
    return re.sub(r"[^\w.-]+", "_", last, flags=re.ASCII).lstrip(".")[-80:] or "file"


def secret_hash(secret: str) -> str:
    """Return the SHA-256 of a secret, in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
