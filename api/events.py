"""What operators are told: a log line for each event of a request's life, and numbers of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from .http.rate_limit import RateLimit
from .metrics import Metrics
from .queue.store import StoredRequest

logger = logging.getLogger(__name__)

# Whoever tries keys by the thousand does not fill the log as well.
REFUSALS_PER_MINUTE = 60


class Events:
    """Logs and counts. Neither prompts nor keys nor URLs are told, only ids and names."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        """Count in `metrics`, if there are any."""
        self._metrics = metrics
        self._refusals = RateLimit(REFUSALS_PER_MINUTE)
        self._frames: dict[str, int] = {}

    def submitted(self, request: StoredRequest, *, key_name: str, queue_position: int) -> None:
        """A request was queued."""
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
        """A request runs from now on."""
        _tell(logging.INFO, "request started", request=request.id, waited_seconds=waited_seconds)

    def made(self, request: StoredRequest, *, frames: int | None) -> None:
        """The video of a request is there, with so many frames as far as anybody knows."""
        if frames is not None:
            self._frames[request.id] = frames

    def ended(self, request: StoredRequest) -> None:
        """A request is done, one way or the other."""
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
        """A file of so many bytes was handed in whole; its id is the secret that reads it."""
        _tell(logging.INFO, "upload received", bytes=size)

    def key_refused(self, remote: str, *, key_id: str) -> None:
        """Somebody came with a key that is none, or without one."""
        if self._refusals.allows(""):
            _tell(logging.WARNING, "key refused", remote=remote, key_id=key_id or None)
        self._count(lambda metrics: metrics.refused.inc())

    def _count(self, count: Callable[[Metrics], None]) -> None:
        if self._metrics is not None:
            count(self._metrics)


def _tell(level: int, event: str, **fields: Any) -> None:
    """Log an event as a sentence that also names its fields, for whoever writes objects."""
    known = {name: value for name, value in fields.items() if value is not None}
    text = "".join(f" {name}={_shown(value)}" for name, value in known.items())
    logger.log(level, "%s%s", event, text, extra={"event": event, "fields": known})


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return text if text.isascii() and text.isprintable() and " " not in text else json.dumps(text)
