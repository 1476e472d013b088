"""The keys of callers, stored as hashes.

A key is `<id>:<secret>`, the form of FAL_KEY, sent as `Authorization: Key <id>:<secret>`. In
ComfyUI's folder `custom_nodes` (with the pip package the module is `animatediff_v2v.cli`):

    python -m animatediff-v2v.cli keys add laptop
    python -m animatediff-v2v.cli keys list
    python -m animatediff-v2v.cli keys remove laptop

The key is shown only once. A running server applies changes at once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

from .storage.data_folder import KEYS, write_durably

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[\w.@ -]{1,60}")
_LONGEST_HEADER = 1000
_NOBODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Caller:
    """A caller with a valid key.

    key_id: the first half of the key; "local" for a call without a key from this machine.
    name: the name that the owner of the server gave the key.
    """

    key_id: str
    name: str


LOCAL = Caller(key_id="local", name="local")


class KeyRing:
    """The keys in a file, which is read again whenever it changes."""

    def __init__(self, folder: Path) -> None:
        """Use api-keys.json in `folder`, which is created when the first key is added."""
        self._path = folder / KEYS
        self._read_at: tuple[int, int] | None = None
        self._keys: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def check(self, authorization: str | None) -> Caller | None:
        """Return the caller, or None if the key is unknown.

        authorization: the header, `Key <id>:<secret>` or `Bearer <id>:<secret>`.
        """
        key_id, secret = credentials(authorization) or ("", "")
        try:
            stored = self._current().get(key_id)
        except ValueError as error:
            logger.error("%s", error)
            stored = None
        # Do the same work for an unknown id as for a wrong secret: timing must not tell them apart.
        matches = hmac.compare_digest(_hash(secret), stored["hash"] if stored else _NOBODY)
        if stored and matches:
            return Caller(key_id=key_id, name=stored["name"])
        return None

    def add(self, name: str) -> str:
        """Create a key and return it; only its hash is stored.

        Raises ValueError if the name is already in use or malformed.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is not a name: use up to 60 letters, digits, . @ - and spaces."
            )
        with self._lock:
            keys = self._current()
            if any(each["name"] == name for each in keys.values()):
                raise ValueError(
                    f"There is a key {name!r} already: remove it, or choose another name."
                )
            key_id, secret = str(uuid.uuid4()), secrets.token_hex(32)
            self._write(keys | {key_id: {"name": name, "hash": _hash(secret)}})
        return f"{key_id}:{secret}"

    def remove(self, name: str) -> None:
        """Remove a key; raises ValueError if no key has this name."""
        with self._lock:
            keys = self._current()
            kept = {key_id: each for key_id, each in keys.items() if each["name"] != name}
            if len(kept) == len(keys):
                known = ", ".join(self.names()) or "none"
                raise ValueError(f"There is no key {name!r}; there are: {known}.")
            self._write(kept)

    def names(self) -> list[str]:
        """Return the names of the keys, sorted."""
        return sorted(each["name"] for each in self._current().values())

    def _current(self) -> dict[str, dict[str, str]]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._read_at, self._keys = None, {}
            return self._keys
        if self._read_at != (status.st_mtime_ns, status.st_ino):
            self._keys = self._read()
            self._read_at = (status.st_mtime_ns, status.st_ino)
        return self._keys

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            keys = json.loads(self._path.read_text(encoding="utf-8-sig"))
            return {
                str(key): {"name": each["name"], "hash": each["hash"]} for key, each in keys.items()
            }
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{self._path} is damaged: delete it and add the keys again."
            ) from error

    def _write(self, keys: dict[str, dict[str, str]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(self._path, json.dumps(keys, indent=1).encode(), mode=0o600)


def credentials(authorization: str | None) -> tuple[str, str] | None:
    """Split an Authorization header into id and secret; None if it is malformed."""
    if not authorization or len(authorization) > _LONGEST_HEADER:
        return None
    scheme, _, key = authorization.partition(" ")
    key_id, colon, secret = key.strip().partition(":")
    if scheme.lower() not in ("key", "bearer") or not (key_id and colon and secret):
        return None
    return key_id, secret


def _hash(secret: str) -> str:
    # Secrets are 256 random bits, so a slow hash would add no protection.
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
