"""Routes on ComfyUI's server, and its application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from server import PromptServer


def add_get_route(path: str, answer: Callable[[web.Request], Awaitable[web.Response]]) -> None:
    """Add a GET route to ComfyUI's server."""
    PromptServer.instance.routes.get(path)(answer)


def add_route(route: web.RouteDef) -> None:
    """Add a route to ComfyUI's server; ComfyUI adds the same one under /api.

    The route's options are dropped: ComfyUI cannot copy a route that has any, even aiohttp's
    defaults.
    """
    PromptServer.instance.routes.route(route.method, route.path)(route.handler)


def application() -> web.Application:
    """Return ComfyUI's aiohttp application, which is not running yet while packs are loaded."""
    app: web.Application = PromptServer.instance.app
    return app
