"""The upload routes of fal's clients: whole files, parts, and uploads with a token."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from datetime import datetime, timezone
from typing import Any

from aiohttp import web

from ..events import Events
from ..intake.uploads import UPLOADS, UploadStore
from ..wire.bodies import UPLOADS_AT_ONCE, BodySlots, read_json
from ..wire.hosts import CDN, MOUNT, OLD_REST, REST, own_url
from ..wire.problems import RequestRefused, error_response
from .guard import needs_no_key

TOKEN_SECONDS = 3600
_LONGEST_JSON = 1 << 20
# Browsers may display these; anything else is sent as an attachment.
_SHOWN = ("video/", "audio/", "image/png", "image/jpeg", "image/webp", "image/gif")
_NO_FILE = error_response(404, "There is no such file, or it has expired", "not_found")
_NO_TOKEN = error_response(
    401, "The token is unknown or has expired; ask for another", "unauthorized"
)


def upload_routes(store: UploadStore, events: Events) -> list[web.RouteDef]:
    """Return the upload routes of all clients, and the route that reads an uploaded file."""
    handlers = _Handlers(store, events)
    file = f"{UPLOADS}/{{id}}/{{name}}"
    rest = [
        web.post(f"{MOUNT}/{host}/storage/{path}", handler)
        for host in (REST, OLD_REST)
        for path, handler in (
            ("upload/initiate", handlers.initiate),
            ("upload/initiate-multipart", handlers.initiate),
            ("auth/token", handlers.token),
        )
    ]
    return [
        *rest,
        web.post(f"{MOUNT}/{CDN}/files/upload", handlers.whole_with_token),
        web.post(f"{MOUNT}/{CDN}/files/upload/multipart", handlers.initiate_with_token),
        # The JavaScript clients write to the upload_url that they were given;
        web.put(f"{file}/write/{{secret}}", handlers.whole),
        web.put(f"{file}/write/{{secret}}/{{number}}", handlers.part),
        web.post(f"{file}/write/{{secret}}/complete", handlers.complete),
        # the Python client builds its URL from the file's URL and the uploadId.
        web.put(f"{file}/multipart/{{secret}}/{{number}}", handlers.part),
        web.post(f"{file}/multipart/{{secret}}/complete", handlers.complete),
        web.get(file, handlers.read),
    ]


class _Handlers:
    def __init__(self, store: UploadStore, events: Events) -> None:
        self._store, self._events = store, events
        self._slots = BodySlots(UPLOADS_AT_ONCE)
        # Maps tokens to their expiry (monotonic clock). Lost at a restart; clients get new ones.
        self._tokens: dict[str, float] = {}

    # --- beginning -------------------------------------------------------------------------------

    async def initiate(self, request: web.Request) -> web.Response:
        body = await read_json(request, max_bytes=_LONGEST_JSON)
        asked = body if isinstance(body, dict) else {}
        _, secret, path = await asyncio.to_thread(
            self._store.initiate,
            content_type=_text(asked.get("content_type")),
            file_name=_text(asked.get("file_name")),
        )
        file_url = own_url(request) + path
        return web.json_response({"upload_url": f"{file_url}/write/{secret}", "file_url": file_url})

    async def token(self, request: web.Request) -> web.Response:
        now = time.monotonic()
        self._tokens = {token: end for token, end in self._tokens.items() if end > now}
        token, expires = secrets.token_urlsafe(32), time.time() + TOKEN_SECONDS
        self._tokens[token] = now + TOKEN_SECONDS
        return web.json_response(
            {
                "token": token,
                "token_type": "Bearer",
                "base_url": f"{own_url(request)}{MOUNT}/{CDN}",
                "expires_at": datetime.fromtimestamp(expires, timezone.utc).isoformat(),
            }
        )

    @needs_no_key
    async def initiate_with_token(self, request: web.Request) -> web.Response:
        _, secret, path = await self._begun_with_token(request)
        return web.json_response({"access_url": own_url(request) + path, "uploadId": secret})

    @needs_no_key
    async def whole_with_token(self, request: web.Request) -> web.Response:
        upload_id, secret, path = await self._begun_with_token(request)
        async with self._slots.one_for(request):
            size = await self._store.write(upload_id, secret, request)
        self._events.uploaded(size)
        return web.json_response({"access_url": own_url(request) + path})

    async def _begun_with_token(self, request: web.Request) -> tuple[str, str, str]:
        _, _, given = request.headers.get("Authorization", "").partition(" ")
        now, offered = time.monotonic(), given.encode("utf-8", "surrogateescape")
        if not any(
            hmac.compare_digest(token.encode(), offered) and end > now
            for token, end in self._tokens.items()
        ):
            raise RequestRefused(_NO_TOKEN)
        return await asyncio.to_thread(
            self._store.initiate,
            content_type=request.content_type,
            file_name=request.headers.get("X-Fal-File-Name", ""),
        )

    # --- writing and reading: the URL is the secret ----------------------------------------------

    @needs_no_key
    async def whole(self, request: web.Request) -> web.Response:
        async with self._slots.one_for(request):
            size = await self._store.write(*_id_and_secret(request), request)
        self._events.uploaded(size)
        return web.json_response({})

    @needs_no_key
    async def part(self, request: web.Request) -> web.Response:
        number = request.match_info["number"]
        async with self._slots.one_for(request):
            etag = await self._store.write_part(*_id_and_secret(request), number, request)
        answer = {"partNumber": int(number), "etag": etag}
        return web.json_response(answer, headers={"ETag": f'"{etag}"'})

    @needs_no_key
    async def complete(self, request: web.Request) -> web.Response:
        body = await read_json(request, max_bytes=_LONGEST_JSON)
        self._events.uploaded(await self._store.complete(*_id_and_secret(request), body))
        return web.json_response({})

    @needs_no_key
    async def read(self, request: web.Request) -> web.StreamResponse:
        found = await asyncio.to_thread(self._store.find, request.match_info["id"])
        if found is None:
            raise RequestRefused(_NO_FILE)
        path, content_type = found
        headers = {
            "Content-Type": content_type,
            "X-Content-Type-Options": "nosniff",
            "Access-Control-Allow-Origin": "*",
        }
        if not content_type.startswith(_SHOWN):
            headers["Content-Disposition"] = "attachment"
        return web.FileResponse(path, headers=headers)


def _id_and_secret(request: web.Request) -> tuple[str, str]:
    return request.match_info["id"], request.match_info["secret"]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
