"""The JSON answers about requests: status, queue position, logs, URLs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from ..queue.executor import VIDEO_TYPE, JobResult
from ..queue.records import StoredRequest
from ..queue.store import LogLine
from ..wire.endpoints import ENDPOINTS
from ..wire.hosts import FILES, MOUNT, QUEUE
from ..wire.outcome import Answer

MODEL_HEADERS = {
    "checkpoint": "X-Animatediff-Checkpoint",
    "motion_module": "X-Animatediff-Motion-Module",
}


def queue_urls(request: StoredRequest, origin: str) -> dict[str, str]:
    """Return the URLs for following a request; `origin` is this server's URL for the caller."""
    app = ENDPOINTS[request.endpoint_id].app_id
    base = f"{origin}{MOUNT}/{QUEUE}/{app}/requests/{request.id}"
    return {
        "request_id": request.id,
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
    }


def submitted(request: StoredRequest, origin: str, *, queue_position: int) -> dict[str, Any]:
    """Return the answer to a submission."""
    return {
        "status": "IN_QUEUE",
        "queue_position": queue_position,
        "gateway_request_id": request.id,
        **queue_urls(request, origin),
    }


def status(
    request: StoredRequest, origin: str, *, queue_position: int, logs: Iterable[LogLine] | None
) -> dict[str, Any]:
    """Return the status of a request; failed and cancelled ones are COMPLETED as well.

    logs: the lines to include; None where the caller did not ask for them.
    """
    urls = queue_urls(request, origin)
    if request.state == "queued":
        return {"status": "IN_QUEUE", "queue_position": queue_position, **urls}
    lines = None if logs is None else [log_line(each) for each in logs]
    if request.answer is None:
        return {"status": "IN_PROGRESS", "logs": lines, "metrics": {}, **urls}
    seconds = request.inference_seconds
    completed = {
        "status": "COMPLETED",
        "logs": lines,
        "metrics": {} if seconds is None else {"inference_time": round(seconds, 3)},
        **urls,
    }
    if request.answer.error is not None:
        completed |= {"error": request.answer.error, "error_type": request.answer.error_type}
    return completed


def log_line(line: LogLine) -> dict[str, Any]:
    """Return a log line with all the fields that any client reads."""
    return {
        "timestamp": datetime.fromtimestamp(line.time, timezone.utc).isoformat(),
        "message": line.message,
        "level": line.level,
        "source": "USER",
        "labels": {},
    }


def result(request: StoredRequest, origin: str) -> Any:
    """Return the answer of a finished request, with the URLs of its files under `origin`."""
    assert request.answer is not None
    body = request.answer.body
    if not request.answer.is_ok:
        return body
    return body | {"video": body["video"] | {"url": origin + body["video"]["url"]}}


def models(request: StoredRequest) -> dict[str, str]:
    """Return the response headers that name the model files of a request, percent-encoded."""
    chosen = request.input.get("models", {})
    return {name: quote(chosen[kind]) for kind, name in MODEL_HEADERS.items() if kind in chosen}


def output(request: StoredRequest, made: JobResult, token: str) -> Answer:
    """Return the answer of a request whose video is served under `token`."""
    endpoint = ENDPOINTS[request.endpoint_id]
    asked = endpoint.input.model_validate(request.input)
    name = made.path.name
    video = {
        "url": f"{FILES}/{token}/{quote(name)}",
        "content_type": VIDEO_TYPE,
        "file_name": name,
        "file_size": made.path.stat().st_size,
    }
    values = {"video": video, "seed": asked.usable_seed, "timings": made.timings}
    return Answer(200, endpoint.output.model_validate(values).model_dump())
