"""Bodies of requests: how large, how slow, how many at once; large JSON off the event loop."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiohttp import web
from pydantic_core import from_json

from ..wire.problems import RequestRefused, error_response, too_large

CHUNK_BYTES = 1 << 18
# How long nothing may come, and how much must have come in a longer while.
IDLE_SECONDS = 30.0
SLOWEST_BYTES_PER_SECOND = 8 * 1024
PATIENCE_SECONDS = 60.0
# Bodies up to this size take no place and are read where they are.
SMALL_BYTES = 1 << 20
LARGE_AT_ONCE = 4
UPLOADS_AT_ONCE = 32

_NO_JSON = error_response(400, "The body is no JSON", "bad_request")
_STALLED = error_response(
    400, "The body did not arrive in time, or not as long as was told", "bad_request"
)
_BUSY = error_response(
    503, "The server reads as many large bodies as it can at once; try again", "too_many_bodies"
)
# A key and not part of a string, whose own quotes have a backslash before them.
_KEY = b'"video_url"'
_DATA_URI = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*"(?=data:)', re.IGNORECASE)
_CUT_OUT = "data:#body"
_T = TypeVar("_T")


async def chunks(request: web.Request) -> AsyncIterator[bytes]:
    """Give a body piece by piece; raises RequestRefused where it stalls or is malformed."""
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


class Places:
    """How many bodies are read at once; who finds no place waits a while."""

    def __init__(self, count: int) -> None:
        """Have so many places."""
        self._free = asyncio.Semaphore(count)

    @asynccontextmanager
    async def one_for(self, request: web.Request) -> AsyncIterator[None]:
        """Take a place unless the body is known to be small.

        Raises RequestRefused where none becomes free in time.
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
    """Parses JSON; large bodies one after the other in a thread of its own.

    JSON is parsed without a pause for other threads: 0.2 s for a data URI of 95 MB. It is
    therefore left out of what is parsed, and stays the bytes that it came as.
    """

    def __init__(self) -> None:
        """Make a thread, which starts with the first large body."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bodies")

    async def read(
        self, request: web.Request, *, max_bytes: int, check: Callable[[Any], _T]
    ) -> tuple[_T, memoryview | None]:
        """Read a body as JSON and return what `check` makes of it, called in whatever thread.

        The second value is the data URI of a large body's `video_url`; `check` sees a short one in
        its place.

        Raises RequestRefused where the body is larger than `max_bytes`, slow or no JSON, and what
        `check` raises.
        """
        body = await _whole(request, max_bytes)
        if len(body) <= SMALL_BYTES:
            return check(_parsed(body)), None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: _checked(body, check))

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


async def read_json(request: web.Request, *, max_bytes: int) -> Any:
    """Read a small body as JSON, no further than `max_bytes`; an empty one is an empty object.

    Raises RequestRefused where it is larger, slow or no JSON.
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
        # Of large bodies the parser that is twice as fast; the other one takes every text.
        return from_json(body) if len(body) > SMALL_BYTES else json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise RequestRefused(_NO_JSON) from error


def _checked(body: bytearray, check: Callable[[Any], _T]) -> tuple[_T, memoryview | None]:
    rest, data_uri = _without_data_uri(body)
    return check(_parsed(rest)), data_uri


def _without_data_uri(body: bytearray) -> tuple[bytearray, memoryview | None]:
    """Cut the data URI out of a body, unless it is written with escapes."""
    key = body.find(_KEY)
    found = _DATA_URI.match(body, key + len(_KEY)) if key >= 0 else None
    if found is None:
        return body, None
    start = found.end()
    end = body.find(b'"', start)
    if end < 0 or body.find(b"\\", start, end) >= 0:
        return body, None
    view = memoryview(body)
    return bytearray(b"".join([view[:start], _CUT_OUT.encode(), view[end:]])), view[start:end]
