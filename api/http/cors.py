"""CORS for pages of the sites that the settings allow."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from aiohttp import web
from multidict import CIMultiDict

from .answers import MODEL_HEADERS

SECONDS_UNTIL_ASKED_AGAIN = 600
READABLE = (
    "X-Fal-Request-Id",
    "X-Fal-Error-Type",
    "X-Fal-Retryable",
    "X-Fal-Request-Timeout-Type",
    "Content-Range",
    "ETag",
    *MODEL_HEADERS.values(),
)
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_\-, ]{1,1000}")
# Carries the origin of a request whose Origin header was removed.
_ORIGIN = "X-Animatediff-Allowed-Origin"


class Cors:
    """Answers preflights and adds response headers for the pages of allowed origins."""

    def __init__(self, origins: Collection[str], *, is_ours: Callable[[str], bool]) -> None:
        """Allow these origins, written as browsers do: scheme, name, port.

        is_ours: returns whether a path belongs to the hosted API.
        """
        self._origins, self._is_ours = frozenset(origins), is_ours

    def allows(self, request: web.Request) -> bool:
        """Return whether a request comes from a page of an allowed origin."""
        return request.headers.get("Origin", "").lower() in self._origins

    def preflight(self, request: web.Request) -> web.Response | None:
        """Return the answer to a preflight request, or None for any other request."""
        method = request.headers.get("Access-Control-Request-Method")
        if request.method != "OPTIONS" or method is None or not self.allows(request):
            return None
        headers = {
            "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT",
            "Access-Control-Max-Age": str(SECONDS_UNTIL_ASKED_AGAIN),
        }
        names = request.headers.get("Access-Control-Request-Headers", "")
        if _HEADER_NAMES.fullmatch(names):
            headers["Access-Control-Allow-Headers"] = names
        if request.headers.get("Access-Control-Request-Private-Network") == "true":
            headers["Access-Control-Allow-Private-Network"] = "true"
        return web.Response(status=204, headers=headers)

    def as_own(self, request: web.Request) -> web.Request:
        """Return a request from an allowed page without its Origin header.

        ComfyUI's own middleware, which runs after the guard, refuses pages of other sites.
        """
        headers = CIMultiDict(request.headers)
        headers[_ORIGIN] = headers.pop("Origin")
        headers.popall("Sec-Fetch-Site", None)
        own = request.clone(headers=headers)
        own._match_info = request._match_info
        return own

    async def let_read(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers that let the page read a response; for `on_response_prepare`."""
        origin = request.headers.get("Origin") or request.headers.get(_ORIGIN) or ""
        if origin.lower() in self._origins and self._is_ours(request.path):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = ", ".join(READABLE)
            response.headers.add("Vary", "Origin")
