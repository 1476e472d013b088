"""Metrics for Prometheus, if its client is installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..pipeline import AnimateDiffV2VError
from .queue.records import StoredRequest

SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """Counters of one service, in a registry of their own."""

    content_type: str

    def __init__(self, *, queue_length: Callable[[], int], folder: Path) -> None:
        """Create the counters at zero.

        queue_length: returns the number of requests that run or wait.
        folder: the folder whose disk is measured.
        Raises AnimateDiffV2VError without the package prometheus-client.
        """
        try:
            import prometheus_client as prometheus  # noqa: PLC0415 - an optional extra
        except ImportError as error:
            raise AnimateDiffV2VError(
                "/metrics needs the Python package 'prometheus-client': run `python -m pip "
                "install prometheus-client` with the Python that runs the server, and restart it."
            ) from error
        self._prometheus, self._registry = prometheus, prometheus.CollectorRegistry()
        self.content_type = prometheus.CONTENT_TYPE_LATEST
        own: dict[str, Any] = {"namespace": "animatediff_v2v", "registry": self._registry}
        self.submitted = prometheus.Counter(
            "requests_submitted", "Requests that were queued.", ["endpoint"], **own
        )
        self.ended = prometheus.Counter(
            "requests_ended", "Requests that are done.", ["endpoint", "status"], **own
        )
        self.seconds = prometheus.Histogram(
            "request_seconds", "Seconds that requests ran.", ["endpoint"], buckets=SECONDS, **own
        )
        self.frames = prometheus.Counter("frames_made", "Frames of finished videos.", **own)
        self.refused = prometheus.Counter("keys_refused", "Calls without a valid key.", **own)
        queued = prometheus.Gauge("queue_length", "Requests that run or wait.", **own)
        queued.set_function(queue_length)
        free = prometheus.Gauge(
            "disk_free_bytes", "Free bytes on the disk of the data folder.", **own
        )
        free.set_function(lambda: free_bytes(folder))

    def ended_with(self, request: StoredRequest, *, frames: int | None) -> None:
        """Count the end of a request."""
        assert request.answer is not None
        self.ended.labels(request.endpoint_id, str(request.answer.status)).inc()
        if request.inference_seconds is not None:
            self.seconds.labels(request.endpoint_id).observe(request.inference_seconds)
        self.frames.inc(frames or 0)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return bytes(self._prometheus.generate_latest(self._registry))


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder; 0 where they cannot be measured."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
