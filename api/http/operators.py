"""The routes for operators: health check and metrics."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from ..metrics import Metrics, free_bytes
from ..queue.executor import CHECKPOINTS, MOTION_MODULES, ModelLibrary
from ..wire.hosts import HEALTH
from ..wire.problems import error_response
from .guard import as_response, needs_no_key

METRICS = "/animatediff-v2v/metrics"


@dataclass(frozen=True)
class OperatorRoutes:
    """Answers health checks and Prometheus.

    folder: the server's data folder.
    queue_length: returns the number of requests that run or wait.
    metrics: the metrics, or the sentence that says why there are none.
    """

    folder: Path
    library: ModelLibrary
    queue_length: Callable[[], int]
    metrics: Metrics | str

    def table(self, *, is_own_server: bool) -> list[web.RouteDef]:
        """Return the routes; /metrics only where the server serves nothing but this API."""
        usual = [web.get("/metrics", self.tell_metrics)] if is_own_server else []
        return [web.get(HEALTH, self.health), web.get(METRICS, self.tell_metrics), *usual]

    @needs_no_key
    async def health(self, _request: web.Request) -> web.Response:
        """Return 200 if requests can be run, else 503 with the reason."""
        body = await asyncio.to_thread(self._health)
        status = 200 if body["status"] == "ok" else 503
        return web.json_response(body, status=status, headers={"Cache-Control": "no-store"})

    async def tell_metrics(self, _request: web.Request) -> web.Response:
        """Return the metrics for Prometheus."""
        if isinstance(self.metrics, str):
            return as_response(error_response(501, self.metrics, "not_installed"))
        body = await asyncio.to_thread(self.metrics.text)
        return web.Response(body=body, headers={"Content-Type": self.metrics.content_type})

    def _health(self) -> dict[str, Any]:
        is_readable = all(map(self._is_readable, (CHECKPOINTS, MOTION_MODULES)))
        free = free_bytes(self.folder)
        return {
            "status": "ok" if is_readable and free > 0 else "unavailable",
            "queue_length": self.queue_length(),
            "disk_free_bytes": free,
            "models_readable": is_readable,
        }

    def _is_readable(self, kind: str) -> bool:
        folders = self.library.folders(kind)
        return any(os.access(each, os.R_OK | os.X_OK) for each in folders) and bool(
            self.library.names(kind)
        )
