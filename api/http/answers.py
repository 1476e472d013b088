"""Requests as the clients are told of them: status, queue position, logs, URLs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote

from ..queue.executor import VIDEO_TYPE, JobResult
from ..queue.store import LogLine, StoredRequest
from ..wire.hosts import MOUNT, QUEUE
from ..wire.outcome import Answer
from ..wire.schemas import ENDPOINTS

MODEL_HEADERS = {
    "checkpoint": "X-Animatediff-Checkpoint",
    "motion_module": "X-Animatediff-Motion-Module",
}
FILES = "/animatediff-v2v/files"


def queue_urls(request: StoredRequest, origin: str) -> dict[str, str]:
    """Where a request is followed, by somebody who calls this server `origin`."""
    app = ENDPOINTS[request.endpoint_id].app_id
    base = f"{origin}{MOUNT}/{QUEUE}/{app}/requests/{request.id}"
    return {
        "request_id": request.id,
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
    }


def submitted(request: StoredRequest, origin: str, *, queue_position: int) -> dict[str, Any]:
    """The answer to a submission."""
    return {
        "status": "IN_QUEUE",
        "queue_position": queue_position,
        "gateway_request_id": request.id,
        **queue_urls(request, origin),
    }


def status(
    request: StoredRequest, origin: str, *, queue_position: int, logs: Iterable[LogLine] | None
) -> dict[str, Any]:
    """The status of a request; failed and cancelled ones are COMPLETED, too.

    logs: the lines to give with it; None where they were not asked for.
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
    """A line of a log with all that some client reads."""
    return {
        "timestamp": datetime.fromtimestamp(line.time, timezone.utc).isoformat(),
        "message": line.message,
        "level": line.level,
        "source": "USER",
        "labels": {},
    }


def result(request: StoredRequest, origin: str) -> Any:
    """What a finished request answers, with the addresses of its files under `origin`."""
    assert request.answer is not None
    body = request.answer.body
    if not request.answer.is_ok:
        return body
    return body | {"video": body["video"] | {"url": origin + body["video"]["url"]}}


def models(request: StoredRequest) -> dict[str, str]:
    """Response headers that name the model files of a request, as in a URL."""
    chosen = request.input.get("models", {})
    return {name: quote(chosen[kind]) for kind, name in MODEL_HEADERS.items() if kind in chosen}


def output(request: StoredRequest, made: JobResult, token: str) -> Answer:
    """What a request answers whose video is served under `token`."""
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
