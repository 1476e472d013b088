"""Routes of ComfyUI's server, and the server itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from server import PromptServer


def add_get_route(path: str, answer: Callable[[web.Request], Awaitable[web.Response]]) -> None:
    """Answer GET requests for a path of ComfyUI's server."""
    PromptServer.instance.routes.get(path)(answer)


def add_route(route: web.RouteDef) -> None:
    """Answer a route of ComfyUI's server; ComfyUI adds the same under /api.

    Its options are left out: ComfyUI cannot repeat a route that has some, even aiohttp's defaults.
    """
    PromptServer.instance.routes.route(route.method, route.path)(route.handler)


def application() -> web.Application:
    """ComfyUI's server as an aiohttp application; it does not run yet while packs are loaded."""
    app: web.Application = PromptServer.instance.app
    return app
