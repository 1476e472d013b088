"""The door: Host, key, rate and size are judged here, before any handler sees a request.

Everything under the paths of the hosted API needs a key, save what `needs_no_key` marks: files
whose URL is the secret, what is public anyway, and what the page of the API is made of.
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
from ..wire.hosts import MOUNT
from ..wire.outcome import Answer
from ..wire.problems import RequestRefused, error_response, too_large
from .cors import Cors
from .loopback import is_own_call
from .rate_limit import RateLimit

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
_FOREIGN_PAGE = error_response(403, "A page of another site may not call this server", "forbidden")
_TOO_MANY = error_response(
    403, "This key makes too many calls; wait a minute, or raise the limit", "rate_limited"
)


def needs_no_key(handler: _H) -> _H:
    """Mark a handler that answers without a key."""
    setattr(handler, _OPEN, True)
    return handler


def caller_of(request: web.Request) -> Caller:
    """Who makes a request that the guard has let through to a handler that needs a key."""
    del request  # it has no place for this that all versions of aiohttp have
    return _CALLER.get()


class Guard:
    """Judges the requests for the hosted API, and leaves all others alone."""

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

        keyless_loopback: let this user's own programs on this machine in, whatever key they have.
        allowed_origins: sites whose pages may call, as browsers write them.
        allowed_hosts: names, beside localhost and IP addresses, under which clients may call.
        requests_per_minute: of one key, what only asks (GET) not counted.
        """
        self._keys, self._keyless_loopback = keys, keyless_loopback
        self._hosts = {"localhost", *(host.lower().rstrip(".") for host in allowed_hosts)}
        self.cors = Cors(allowed_origins, is_ours=self.watches)
        self._events = events or Events()
        self._max_body_bytes = max_body_bytes
        self._rate = RateLimit(requests_per_minute)
        self._prefixes = tuple(prefixes)

    def watches(self, path: str) -> bool:
        """Whether a path belongs to the hosted API; ComfyUI offers each again under /api."""
        path = path.removeprefix("/api")
        return any(path == each or path.startswith(f"{each}/") for each in self._prefixes)

    @property
    def middleware(self) -> Middleware:
        """Give what to put first among an application's middlewares."""

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
                caller = self._judged(inner)
                # Requests of one connection share a context: nobody inherits a caller.
                token = _CALLER.set(caller) if caller is not None else None
                return await handler(inner)
            except RequestRefused as refusal:
                response = as_response(refusal.answer)
                if not request.content.is_eof():
                    # What else comes on the connection would be taken for the next request.
                    response.force_close()
                return response
            finally:
                if token is not None:
                    _CALLER.reset(token)

        return guarded

    def _judged(self, request: web.Request) -> Caller | None:
        """Give who calls, None where that does not matter; raises RequestRefused."""
        if getattr(request.match_info.handler, _OPEN, False):
            return None  # these have limits of their own for what is sent
        caller = self._checked_caller(request)
        if (request.content_length or 0) > self._max_body_bytes:
            raise too_large(self._max_body_bytes)
        return caller

    def _check_host(self, request: web.Request) -> None:
        """Refuse names that are not ours: a page whose name was pointed here would use them."""
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
        # A page cannot send a key that it does not know, but where none is needed it needs none.
        if caller is LOCAL and _is_foreign_page(request):
            raise RequestRefused(_FOREIGN_PAGE)
        if request.method in _CHANGING and not self._rate.allows(caller.key_id):
            logger.warning("The key %r makes too many calls.", caller.name)
            raise RequestRefused(_TOO_MANY)
        return caller


def as_response(answer: Answer) -> web.Response:
    """Give an answer as a response."""
    return web.json_response(answer.body, status=answer.status, headers=answer.headers)


def _shown_id(authorization: str | None) -> str:
    """What of a key may be logged: its first half, which opens nothing."""
    split = credentials(authorization)
    return split[0][:60] if split is not None else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_foreign_page(request: web.Request) -> bool:
    """Whether a browser says that a page of another origin is calling."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    origin = request.headers.get("Origin")
    own = [f"{scheme}://{request.host.lower()}" for scheme in ("http", "https")]
    return origin is not None and origin.lower() not in own
