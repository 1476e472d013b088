"""Routes of ComfyUI's server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from server import PromptServer


def add_get_route(path: str, answer: Callable[[web.Request], Awaitable[web.Response]]) -> None:
    """Answer GET requests for a path of ComfyUI's server."""
    PromptServer.instance.routes.get(path)(answer)
