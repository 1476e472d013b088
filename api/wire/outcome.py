"""The answer of a finished request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Error types with which the same request may succeed later.
RETRYABLE = {"runner_disconnected", "queue_full", "storage_full", "rate_limited", "too_many_bodies"}


@dataclass(frozen=True)
class Answer:
    """HTTP status, JSON body, and for failures fal's error type."""

    status: int
    body: Any
    error_type: str | None = None

    @property
    def is_ok(self) -> bool:
        """True when the request succeeded."""
        return self.status == 200

    @property
    def error(self) -> str | None:
        """The error in one sentence; None for a success."""
        if self.is_ok:
            return None
        detail = self.body["detail"]
        return detail if isinstance(detail, str) else "; ".join(each["msg"] for each in detail)

    @property
    def headers(self) -> dict[str, str]:
        """The response headers that describe a failure."""
        if self.error_type is None:
            return {}
        is_retryable = "true" if self.error_type in RETRYABLE else "false"
        headers = {"X-Fal-Error-Type": self.error_type, "X-Fal-Retryable": is_retryable}
        if self.error_type == "request_timeout":
            headers["X-Fal-Request-Timeout-Type"] = "user"
        return headers
