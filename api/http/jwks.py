"""Routes at which receivers of webhooks find the public key."""

from __future__ import annotations

from aiohttp import web

from ..queue.signing import Signer
from ..wire.hosts import MOUNT, OLD_REST, REST
from .guard import needs_no_key


def jwks_routes(signer: Signer | None) -> list[web.RouteDef]:
    """Give the routes at which receivers of webhooks find the public key."""

    @needs_no_key
    async def jwks(_request: web.Request) -> web.Response:
        # The time that fal's documentation tells receivers to keep it for.
        keys = signer.jwks() if signer is not None else {"keys": []}
        return web.json_response(keys, headers={"Cache-Control": "max-age=86400"})

    places = ("", f"{MOUNT}/{REST}", f"{MOUNT}/{OLD_REST}")
    return [web.get(f"{place}/.well-known/jwks.json", jwks) for place in places]
