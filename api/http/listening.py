"""The sockets of the standalone server, and its run from start to shutdown."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware

from ...pipeline import AnimateDiffV2VError

# Clients that wait for a result would otherwise delay the shutdown by a minute.
SHUTDOWN_SECONDS = 2.0
SECONDS_OF_SILENCE = 30.0
# An idle connection stays open this long; proxies close theirs earlier (nginx: after 60).
SECONDS_BETWEEN_CALLS = 75.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def bind(host: str, port: int) -> list[socket.socket]:
    """Listen on a port at all addresses of a host; port 0 chooses a free one.

    Listening at once keeps a second server from taking the port; callers wait until `run` answers.

    Raises AnimateDiffV2VError when host or port cannot be used.
    """
    if not 0 <= port <= 65535:
        raise AnimateDiffV2VError(f"--port is {port}; it must be from 0 to 65535.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise AnimateDiffV2VError(
            f"--host {host!r} is not an address or name of this machine: try 127.0.0.1, or 0.0.0.0 "
            "for all its addresses."
        ) from error
    sockets: list[socket.socket] = []
    for family, _, _, _, address in dict.fromkeys(found):
        if sockets:  # if port was 0, use the one chosen for the first
            port = sockets[0].getsockname()[1]
        try:
            sockets.append(_bound(family, (str(address[0]), port, *address[2:])))
        except OSError as error:
            # A name may have an address of a family that is disabled on this machine.
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and len(found) > 1:
                continue
            for each in sockets:
                each.close()
            raise AnimateDiffV2VError(_sentence(error, host, port)) from error
    if not sockets:
        raise AnimateDiffV2VError(f"--host {host!r} is not an address of this machine.")
    return sockets


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere two servers could share the port
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(address)
        taken.listen()
    except BaseException:
        taken.close()
        raise
    return taken


def _sentence(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} of {host} is in use: stop the program that uses it, or choose another "
            "port with --port."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"This user may not listen on port {port}: choose one above 1023 with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"--host {host!r} is not an address of this machine: try 127.0.0.1, or 0.0.0.0 for all "
            "its addresses."
        )
    return f"Port {port} of {host} cannot be listened on: {error.strerror}."


def run(
    app: web.Application, sockets: Sequence[socket.socket], *, when_ready: Callable[[], None]
) -> None:
    """Answer on these sockets until SIGINT or SIGTERM.

    when_ready: called once the application has started and answers calls.
    """
    with suppress(web.GracefulExit, KeyboardInterrupt):
        asyncio.run(_answer(app, sockets, when_ready))


async def _answer(
    app: web.Application, sockets: Sequence[socket.socket], when_ready: Callable[[], None]
) -> None:
    callers = _Callers()
    app.middlewares.insert(0, callers.middleware)
    runner = web.AppRunner(
        app,
        handle_signals=True,
        access_log=None,
        shutdown_timeout=SHUTDOWN_SECONDS,
        keepalive_timeout=SECONDS_BETWEEN_CALLS,
    )
    try:
        await runner.setup()
        for each in sockets:
            await web.SockSite(runner, each).start()
        when_ready()
        assert runner.server is not None
        await callers.hang_up_on_silent(runner.server)
    finally:
        await runner.cleanup()


class _Callers:
    """The connections that have sent no request yet, which aiohttp would keep open forever."""

    def __init__(self) -> None:
        self._heard: set[int] = set()

    @property
    def middleware(self) -> Middleware:
        """Notes the connections that have sent the complete headers of a request."""

        @web.middleware
        async def hear(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._heard.add(id(request.protocol))
            return await handler(request)

        return hear

    async def hang_up_on_silent(self, server: web.Server) -> None:
        """Close connections that send no request in time; never returns."""
        silent: dict[int, float] = {}
        while True:
            await asyncio.sleep(SECONDS_OF_SILENCE / 4)
            now, connections = time.monotonic(), {id(each): each for each in server.connections}
            self._heard &= connections.keys()
            silent = {
                each: silent.get(each, now) for each in connections if each not in self._heard
            }
            for each, since in silent.items():
                if now - since >= SECONDS_OF_SILENCE:
                    connections[each].force_close()
