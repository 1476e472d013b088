"""The guard in front of all handlers: checks Host, key, rate and size of every call.

All paths of the hosted API need a key except handlers marked by `needs_no_key`: files whose URL is
the secret, public data, and the page of the API.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from typing import TypeVar
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from ..events import Events
from ..keys import LOCAL, Caller, KeyRing, credentials
from ..rate_limit import RateLimit
from ..wire.hosts import MOUNT
from ..wire.outcome import Answer
from ..wire.problems import RequestRefused, error_response, too_large
from .cors import Cors
from .loopback import is_own_call

logger = logging.getLogger(__name__)

Handler = Callable[..., Awaitable[web.StreamResponse]]
_H = TypeVar("_H", bound=Handler)

_CALLER: ContextVar[Caller] = ContextVar("caller")
PREFIXES = (MOUNT, "/fal-ai", "/animatediff-v2v", "/.well-known/jwks.json")
_OPEN = "needs_no_key"
_CHANGING = ("POST", "PUT", "PATCH", "DELETE")

_UNKNOWN_KEY = error_response(401, "No user found for Key ID and Secret", "unauthorized")
_MALFORMED_KEY = error_response(
    401,
    "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'.",
    "unauthorized",
)
_FOREIGN_PAGE = error_response(403, "Pages of other sites may not call this server", "forbidden")
_TOO_MANY = error_response(
    403,
    "Too many calls with this key; wait a minute, or raise requests_per_minute",
    "rate_limited",
)


def needs_no_key(handler: _H) -> _H:
    """Mark a handler that needs no key."""
    setattr(handler, _OPEN, True)
    return handler


def caller_of(request: web.Request) -> Caller:
    """Return the caller of a request, in a handler that needs a key."""
    del request  # no attribute of it works in all versions of aiohttp
    return _CALLER.get()


class Guard:
    """Checks the calls to the hosted API and lets all others pass."""

    def __init__(
        self,
        keys: KeyRing,
        *,
        keyless_loopback: bool = False,
        allowed_hosts: Collection[str] = (),
        allowed_origins: Collection[str] = (),
        events: Events | None = None,
        max_body_bytes: int,
        requests_per_minute: int,
        prefixes: Collection[str] = PREFIXES,
    ) -> None:
        """Set the limits.

        keyless_loopback: let this user's own programs on this machine call without a key.
        allowed_origins: sites whose pages may call, as browsers write them.
        allowed_hosts: host names that clients may use, besides localhost and IP addresses.
        requests_per_minute: the limit of one key; GET requests do not count.
        """
        self._keys, self._keyless_loopback = keys, keyless_loopback
        self._hosts = {"localhost", *(host.lower().rstrip(".") for host in allowed_hosts)}
        self.cors = Cors(allowed_origins, is_ours=self.watches)
        self._events = events or Events()
        self._max_body_bytes = max_body_bytes
        self._rate = RateLimit(requests_per_minute)
        self._prefixes = tuple(prefixes)

    def watches(self, path: str) -> bool:
        """Return whether a path belongs to the hosted API, as such or under /api as in ComfyUI."""
        path = path.removeprefix("/api")
        return any(path == each or path.startswith(f"{each}/") for each in self._prefixes)

    @property
    def middleware(self) -> Middleware:
        """The middleware, to be the first of an application."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self.watches(request.path):
                return await handler(request)
            token = None
            try:
                self._check_host(request)
                if self.cors.allows(request):
                    inner = self.cors.as_own(request)
                    preflight = self.cors.preflight(request)
                    if preflight is not None:
                        return preflight
                else:
                    inner = request
                caller = self._checked(inner)
                # Requests of one connection share a context, so the caller is reset below.
                token = _CALLER.set(caller) if caller is not None else None
                return await handler(inner)
            except RequestRefused as refusal:
                response = as_response(refusal.answer)
                if not request.content.is_eof():
                    # The rest of the body would be read as the next request of the connection.
                    response.force_close()
                return response
            finally:
                if token is not None:
                    _CALLER.reset(token)

        return guarded

    def _checked(self, request: web.Request) -> Caller | None:
        """Return the caller, None for handlers without a key; raises RequestRefused."""
        if getattr(request.match_info.handler, _OPEN, False):
            return None  # these handlers limit the body themselves
        caller = self._checked_caller(request)
        if (request.content_length or 0) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        return caller

    def _check_host(self, request: web.Request) -> None:
        """Refuse unknown host names: a page's own name may resolve here (DNS rebinding)."""
        try:
            host = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        except ValueError:
            host = ""
        if host.rstrip(".") in self._hosts or _is_address(host):
            return
        raise RequestRefused(
            error_response(
                403,
                f"This server does not answer to the name {host[:100]!r}: call it by its address, "
                "or add the name to allowed_hosts",
                "forbidden",
            )
        )

    def _checked_caller(self, request: web.Request) -> Caller:
        authorization = request.headers.get("Authorization")
        caller = self._keys.check(authorization)
        if caller is None and self._keyless_loopback and is_own_call(request):
            caller = LOCAL
        if caller is None:
            self._events.key_refused(request.remote or "", key_id=_shown_id(authorization))
            unsplit = authorization is not None and credentials(authorization) is None
            raise RequestRefused(_MALFORMED_KEY if unsplit else _UNKNOWN_KEY)
        # Without a key, a page of another site could call just as this user's programs do.
        if caller is LOCAL and _is_foreign_page(request):
            raise RequestRefused(_FOREIGN_PAGE)
        if request.method in _CHANGING and not self._rate.allows(caller.key_id):
            logger.warning("The key %r exceeds its limit of calls.", caller.name)
            raise RequestRefused(_TOO_MANY)
        return caller


def as_response(answer: Answer) -> web.Response:
    """Return an answer as a response."""
    return web.json_response(answer.body, status=answer.status, headers=answer.headers)


def _shown_id(authorization: str | None) -> str:
    """Return the part of a key that may be logged: its id, which is useless without the secret."""
    split = credentials(authorization)
    return split[0][:60] if split is not None else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_foreign_page(request: web.Request) -> bool:
    """Return whether a browser reports that a page of another origin calls."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    origin = request.headers.get("Origin")
    own = [f"{scheme}://{request.host.lower()}" for scheme in ("http", "https")]
    return origin is not None and origin.lower() not in own
