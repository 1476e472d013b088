"""Reading of request bodies, with limits on size, speed and number at once."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiohttp import web
from pydantic_core import from_json

from .problems import RequestRefused, error_response, too_large

CHUNK_BYTES = 1 << 18
# A body may pause for IDLE_SECONDS; after PATIENCE_SECONDS a minimum rate applies.
IDLE_SECONDS = 30.0
SLOWEST_BYTES_PER_SECOND = 8 * 1024
PATIENCE_SECONDS = 60.0
# Bodies up to this size need no slot and are parsed in the event loop.
SMALL_BYTES = 1 << 20
LARGE_AT_ONCE = 4
UPLOADS_AT_ONCE = 32

_NO_JSON = error_response(400, "The body is not valid JSON", "bad_request")
_STALLED = error_response(
    400, "The body did not arrive in time, or is shorter than its Content-Length", "bad_request"
)
_BUSY = error_response(
    503, "The server is busy with other large bodies; try again", "too_many_bodies"
)
# Always a key: inside a string, quotes have a backslash before them.
_KEY = b'"video_url"'
_DATA_URI = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*"(?=data:)', re.IGNORECASE)
_T = TypeVar("_T")


async def chunks(request: web.Request) -> AsyncIterator[bytes]:
    """Yield a body in chunks; raises RequestRefused when it stalls or is malformed."""
    clock = asyncio.get_running_loop().time
    began, size = clock(), 0
    while True:
        allowed = PATIENCE_SECONDS + size / SLOWEST_BYTES_PER_SECOND - (clock() - began)
        try:
            chunk = await asyncio.wait_for(
                request.content.read(CHUNK_BYTES), max(0.0, min(IDLE_SECONDS, allowed))
            )
        except (TimeoutError, asyncio.TimeoutError, web.RequestPayloadError) as error:
            raise RequestRefused(_STALLED) from error
        if not chunk:
            return
        size += len(chunk)
        yield chunk


class BodySlots:
    """A limit on the large bodies that are read at once; others wait for a slot."""

    def __init__(self, count: int) -> None:
        """Provide `count` slots."""
        self._free = asyncio.Semaphore(count)

    @asynccontextmanager
    async def one_for(self, request: web.Request) -> AsyncIterator[None]:
        """Take a slot unless the body is known to be small.

        Raises RequestRefused when no slot becomes free in time.
        """
        length = request.content_length
        if length is not None and length <= SMALL_BYTES:
            yield
            return
        try:
            await asyncio.wait_for(self._free.acquire(), PATIENCE_SECONDS)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise RequestRefused(_BUSY) from error
        try:
            yield
        finally:
            self._free.release()


class Parser:
    """Parses JSON; large bodies one by one in a thread of its own.

    Parsing holds the interpreter's lock, for 0.2 s with a data URI of 95 MB, and no other call is
    answered meanwhile. So a data URI is cut out before parsing and kept as the received bytes.
    """

    def __init__(self) -> None:
        """Prepare the thread, which starts with the first large body."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bodies")

    async def read(
        self, request: web.Request, *, max_bytes: int, check: Callable[[Any], _T]
    ) -> tuple[_T, Mapping[str, memoryview]]:
        """Read a body as JSON and return what `check`, called in any thread, returns for it.

        The second value holds the data URI that was cut out of a large body, under the text that
        `check` sees in its place.

        Raises RequestRefused when the body is larger than `max_bytes`, too slow or not JSON, and
        the exceptions of `check`.
        """
        body = await _whole(request, max_bytes)
        if len(body) <= SMALL_BYTES:
            return check(_parsed(body)), {}
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: _checked(body, check))

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


async def read_json(request: web.Request, *, max_bytes: int) -> Any:
    """Read a small body as JSON; an empty body is an empty object.

    Raises RequestRefused when it is larger than `max_bytes`, too slow or not JSON.
    """
    return _parsed(await _whole(request, max_bytes))


async def _whole(request: web.Request, max_bytes: int) -> bytearray:
    if (request.content_length or 0) > max_bytes:
        raise too_large(max_bytes)
    body = bytearray()
    async for chunk in chunks(request):
        body += chunk
        if len(body) > max_bytes:
            raise too_large(max_bytes)
    return body


def _parsed(body: bytearray) -> Any:
    try:
        # pydantic's parser is twice as fast, but rejects lone surrogates, which json accepts.
        return from_json(body) if len(body) > SMALL_BYTES else json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise RequestRefused(_NO_JSON) from error


def _checked(body: bytearray, check: Callable[[Any], _T]) -> tuple[_T, Mapping[str, memoryview]]:
    rest, data_uris = _without_data_uri(body)
    return check(_parsed(rest)), data_uris


def _without_data_uri(body: bytearray) -> tuple[bytearray, Mapping[str, memoryview]]:
    """Cut the first data URI out of a body, unless it is written with escapes.

    The placeholder is random, so that only the field that had the URI gets it back: another
    object within the body may have a `video_url` as well.
    """
    key = body.find(_KEY)
    found = _DATA_URI.match(body, key + len(_KEY)) if key >= 0 else None
    if found is None:
        return body, {}
    start = found.end()
    end = body.find(b'"', start)
    if end < 0 or body.find(b"\\", start, end) >= 0:
        return body, {}
    view, stand_in = memoryview(body), f"data:#{secrets.token_hex(16)}"
    rest = bytearray(b"".join([view[:start], stand_in.encode(), view[end:]]))
    return rest, {stand_in: view[start:end]}
