"""How fal's documentation tells receivers to verify a webhook; the key set's URL is given."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import urllib.request

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LEEWAY_SECONDS = 300


def is_genuine(headers, body, jwks_url):
    timestamp = headers["X-Fal-Webhook-Timestamp"]
    if abs(time.time() - int(timestamp)) > LEEWAY_SECONDS:
        return False
    message = "\n".join(
        [
            headers["X-Fal-Webhook-Request-Id"],
            headers["X-Fal-Webhook-User-Id"],
            timestamp,
            hashlib.sha256(body).hexdigest(),
        ]
    ).encode()
    signature = bytes.fromhex(headers["X-Fal-Webhook-Signature"])
    with urllib.request.urlopen(jwks_url) as answer:
        keys = json.load(answer)["keys"]
    for key in keys:
        public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"]))
        try:
            public.verify(signature, message)
        except InvalidSignature:
            continue
        return True
    return False
