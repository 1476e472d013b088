"""What a finished request answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Where the same request may well go through later: nothing was found wrong with it.
RETRYABLE = {"runner_disconnected", "queue_full", "storage_full", "rate_limited", "too_many_bodies"}


@dataclass(frozen=True)
class Answer:
    """What a finished request answers: a status, a JSON body, and for failures what kind it is."""

    status: int
    body: Any
    error_type: str | None = None

    @property
    def is_ok(self) -> bool:
        """Whether the request was done."""
        return self.status == 200

    @property
    def error(self) -> str | None:
        """What went wrong, in one sentence; None when nothing did."""
        if self.is_ok:
            return None
        detail = self.body["detail"]
        return detail if isinstance(detail, str) else "; ".join(each["msg"] for each in detail)

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that say more of the failure."""
        if self.error_type is None:
            return {}
        is_retryable = "true" if self.error_type in RETRYABLE else "false"
        headers = {"X-Fal-Error-Type": self.error_type, "X-Fal-Retryable": is_retryable}
        if self.error_type == "request_timeout":
            headers["X-Fal-Request-Timeout-Type"] = "user"
        return headers
