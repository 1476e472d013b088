"""Events of requests, reported to operators as log lines and metrics."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from .metrics import Metrics
from .queue.records import StoredRequest
from .rate_limit import RateLimit

logger = logging.getLogger(__name__)

# Keeps somebody who tries thousands of keys from flooding the log.
REFUSALS_PER_MINUTE = 60


class Events:
    """Logs and counts events, with ids and names, never with prompts, keys or URLs."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        """Count in `metrics`; with None, only log."""
        self._metrics = metrics
        self._refusals = RateLimit(REFUSALS_PER_MINUTE)
        self._frames: dict[str, int] = {}

    def submitted(self, request: StoredRequest, *, key_name: str, queue_position: int) -> None:
        """Report that a request was queued."""
        _tell(
            logging.INFO,
            "request submitted",
            request=request.id,
            endpoint=request.endpoint_id,
            key=key_name,
            position=queue_position,
        )
        self._count(lambda metrics: metrics.submitted.labels(request.endpoint_id).inc())

    def started(self, request: StoredRequest, *, waited_seconds: float) -> None:
        """Report that a request started to run."""
        _tell(logging.INFO, "request started", request=request.id, waited_seconds=waited_seconds)

    def made(self, request: StoredRequest, *, frames: int | None) -> None:
        """Note the frame count of a request's video, None if unknown, for `ended`."""
        if frames is not None:
            self._frames[request.id] = frames

    def ended(self, request: StoredRequest) -> None:
        """Report that a request ended, whatever its outcome."""
        assert request.answer is not None
        seconds, frames = request.inference_seconds, self._frames.pop(request.id, None)
        is_fault = request.answer.status >= 500
        level = logging.ERROR if is_fault else logging.INFO
        if not request.answer.is_ok and not is_fault:
            level = logging.WARNING
        _tell(
            level,
            "request ended",
            request=request.id,
            status=request.answer.status,
            seconds=seconds,
            frames=frames,
            error=request.answer.error_type,
        )
        self._count(lambda metrics: metrics.ended_with(request, frames=frames))

    def uploaded(self, size: int) -> None:
        """Report a completed upload by its bytes alone: its id is the secret that reads it."""
        _tell(logging.INFO, "upload received", bytes=size)

    def key_refused(self, remote: str, *, key_id: str) -> None:
        """Report a call with an invalid key or none."""
        if self._refusals.allows(""):
            _tell(logging.WARNING, "key refused", remote=remote, key_id=key_id or None)
        self._count(lambda metrics: metrics.refused.inc())

    def _count(self, count: Callable[[Metrics], None]) -> None:
        if self._metrics is not None:
            count(self._metrics)


def _tell(level: int, event: str, **fields: Any) -> None:
    """Log an event as text, and its fields for the JSON format."""
    known = {name: value for name, value in fields.items() if value is not None}
    text = "".join(f" {name}={_shown(value)}" for name, value in known.items())
    logger.log(level, "%s%s", event, text, extra={"event": event, "fields": known})


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text else json.dumps(text)
