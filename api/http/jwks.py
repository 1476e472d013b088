"""The routes that publish the public key for receivers of webhooks."""

from __future__ import annotations

from aiohttp import web

from ..queue.signing import Signer
from ..wire.hosts import MOUNT, OLD_REST, REST
from .guard import needs_no_key


def jwks_routes(signer: Signer | None) -> list[web.RouteDef]:
    """Return the routes that publish the public key."""

    @needs_no_key
    async def jwks(_request: web.Request) -> web.Response:
        # As long as fal's documentation tells receivers to cache it.
        keys = signer.jwks() if signer is not None else {"keys": []}
        return web.json_response(keys, headers={"Cache-Control": "max-age=86400"})

    prefixes = ("", f"{MOUNT}/{REST}", f"{MOUNT}/{OLD_REST}")
    return [web.get(f"{prefix}/.well-known/jwks.json", jwks) for prefix in prefixes]
