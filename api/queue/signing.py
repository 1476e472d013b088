"""Signatures of webhooks, like fal's: Ed25519 over request, user, time and the body's hash."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import AnimateDiffV2VError
from ..storage.data_folder import SIGNING_KEY, set_aside, write_durably

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE_NAME = SIGNING_KEY


class Signer:
    """Signs with a private key and publishes the public one."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Sign with `key`."""
        self._key = key

    @staticmethod
    def load(folder: Path) -> Signer:
        """Load the key in `folder`, or generate one and save it there.

        A file that is not such a key is set aside. Raises AnimateDiffV2VError when the package
        `cryptography` is missing.
        """
        try:
            from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
            from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415
        except ImportError as error:
            raise AnimateDiffV2VError(
                "Webhooks are signed, which needs the Python package 'cryptography': run "
                "`python -m pip install cryptography` with the Python that runs the server."
            ) from error
        path = folder / FILE_NAME
        key = _private_key(path) if path.exists() else None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            if path.exists():
                set_aside(path, "is not an Ed25519 private key")
            key = ed25519.Ed25519PrivateKey.generate()
            pem = key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, pem, mode=0o600)
        return Signer(key)

    def headers(
        self, *, request_id: str, user_id: str, timestamp: int, body: bytes
    ) -> dict[str, str]:
        """Return the headers that prove the sender; `timestamp` in seconds since the epoch."""
        digest = hashlib.sha256(body).hexdigest()
        message = "\n".join((request_id, user_id, str(timestamp), digest)).encode()
        return {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": user_id,
            "X-Fal-Webhook-Timestamp": str(timestamp),
            "X-Fal-Webhook-Signature": self._key.sign(message).hex(),
        }

    def jwks(self) -> dict[str, Any]:
        """Return the public key as a JSON Web Key Set (RFC 8037)."""
        public = self._key.public_key().public_bytes_raw()
        # With padding, which RFC 7515 leaves out: the verifier in fal's documentation uses Python's
        # urlsafe_b64decode, which requires it; other verifiers accept it.
        x = base64.urlsafe_b64encode(public).decode()
        kid = hashlib.sha256(public).hexdigest()[:16]
        key = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": kid, "x": x}
        return {"keys": [key]}


def _private_key(path: Path) -> Any:
    """Load a private key of any kind; return None if the file holds none."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - see Signer.load

    try:
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        return None
