"""The sockets of a server of our own, and its life from the first call to the last."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from contextlib import suppress

from aiohttp import web

from ..pipeline import AnimateDiffV2VError

# Clients that wait for a result would otherwise hold the server up for a minute.
SECONDS_FOR_LAST_WORDS = 2.0


def bind(host: str, port: int) -> list[socket.socket]:
    """Listen at all addresses of a host; port 0 takes one that is free.

    Raises AnimateDiffV2VError where that does not go.
    """
    if not 0 <= port <= 65535:
        raise AnimateDiffV2VError(f"--port {port} is no port; it can be 0 to 65535.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise AnimateDiffV2VError(
            f"--host {host!r} is no address or name of this machine: try 127.0.0.1, or 0.0.0.0 "
            "for all its addresses."
        ) from error
    sockets: list[socket.socket] = []
    for family, _, _, _, address in dict.fromkeys(found):
        if sockets:  # port 0 was chosen for the first
            port = sockets[0].getsockname()[1]
        try:
            place = (str(address[0]), port, *address[2:])
            sockets.append(socket.create_server(place, family=family, backlog=128))
        except OSError as error:
            # A name can stand for an address of a family that is switched off here.
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and len(found) > 1:
                continue
            for each in sockets:
                each.close()
            raise AnimateDiffV2VError(_sentence(error, host, port)) from error
    if not sockets:
        raise AnimateDiffV2VError(f"--host {host!r} is no address of this machine.")
    return sockets


def _sentence(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} of {host} is in use: stop what answers there, or choose another one "
            "with --port."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"This user may not listen on port {port}: choose one above 1023 with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"--host {host!r} is no address of this machine: try 127.0.0.1, or 0.0.0.0 for all "
            "its addresses."
        )
    return f"Port {port} of {host} cannot be listened on: {error.strerror}."


def run(app: web.Application, sockets: Sequence[socket.socket]) -> None:
    """Answer on these sockets until the process is told to end, by SIGINT or SIGTERM."""
    with suppress(web.GracefulExit, KeyboardInterrupt):
        asyncio.run(_answer(app, sockets))


async def _answer(app: web.Application, sockets: Sequence[socket.socket]) -> None:
    runner = web.AppRunner(
        app, handle_signals=True, access_log=None, shutdown_timeout=SECONDS_FOR_LAST_WORDS
    )
    try:
        await runner.setup()
        for each in sockets:
            await web.SockSite(runner, each).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
