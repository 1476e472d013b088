from collections.abc import Callable
from typing import Any

from aiohttp import web

class PromptServer:
    instance: PromptServer
    app: web.Application
    routes: web.RouteTableDef
    client_id: str | None
    sockets: dict[str | None, Any]
    sockets_metadata: dict[str, dict[str, Any]]
    # execution.PromptQueue
    prompt_queue: Any
    def add_on_prompt_handler(
        self, handler: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> None: ...
    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None: ...
    def send_progress_text(self, text: str, node_id: str, sid: str | None = None) -> None: ...
