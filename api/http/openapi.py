"""The OpenAPI description, and a page for trying out the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from ..wire.endpoints import APP_IDS, ENDPOINTS, Endpoint
from ..wire.hosts import HEALTH, MOUNT, QUEUE, RUN
from ..wire.schemas import json_schema

PAGE = Path(__file__).with_name("page.html")
# The page is one file and calls only its own server.
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
TEXT, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
URLS = dict.fromkeys(("request_id", "response_url", "status_url", "cancel_url"), TEXT)


def page() -> web.Response:
    """Return the page for trying out the API."""
    headers = {"Content-Security-Policy": PAGE_POLICY, "X-Content-Type-Options": "nosniff"}
    return web.Response(
        text=PAGE.read_text(encoding="utf-8"), content_type="text/html", headers=headers
    )


def openapi(origin: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description; `origin` is this server's URL for the caller."""
    paths: dict[str, Any] = {}
    for endpoint in ENDPOINTS.values():
        paths[f"{MOUNT}/{RUN}/{endpoint.endpoint_id}"] = {"post": _run(endpoint)}
        paths[f"{MOUNT}/{QUEUE}/{endpoint.endpoint_id}"] = {"post": _submit(endpoint)}
    for app_id in APP_IDS:
        paths |= _followed(app_id)
    paths[HEALTH] = {"get": _health()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AnimateDiff V2V",
            "version": "0.1.0",
            "description": "The hosted AnimateDiff video-to-video models on your own machine.",
        },
        "servers": [{"url": origin}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": {"key": _KEY}},
    }


_KEY = {
    "type": "apiKey",
    "in": "header",
    "name": "Authorization",
    "description": "The word Key, a space, and a key of this server.",
}


def _run(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "summary": endpoint.summary,
        "description": "Responds when the video is finished.",
        "operationId": _name("run", endpoint.endpoint_id),
        "requestBody": _body(endpoint.input),
        "responses": {"200": _answer("The video.", _ref(endpoint.output)), **_failures(run=True)},
    }


def _submit(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "summary": f"{endpoint.summary}, queued",
        "operationId": _name("submit", endpoint.endpoint_id),
        "parameters": [
            _parameter(
                "fal_webhook", "query", TEXT, "URL that is called, signed, when the request ends."
            ),
            _parameter(
                "x-fal-queue-priority",
                "header",
                {"enum": ["normal", "low"]},
                "low runs after all other requests.",
            ),
            _parameter(
                "x-fal-request-timeout",
                "header",
                {"type": "number", "exclusiveMinimum": 0},
                "Seconds after which a request that has not started is ended.",
            ),
        ],
        "requestBody": _body(endpoint.input),
        "responses": {"200": _answer("Queued.", _ref_to("QueueStatus")), **_failures()},
    }


def _followed(app_id: str) -> dict[str, Any]:
    base = f"{MOUNT}/{QUEUE}/{app_id}/requests/{{request_id}}"
    request_id = _parameter("request_id", "path", TEXT, "From the submission.")
    logs = _parameter(
        "logs", "query", {"enum": ["0", "1", "true", "false"]}, "1 includes the logs."
    )
    status = _answer("The status.", _ref_to("QueueStatus"))
    unfinished = _answer("It is still in progress.", _ref_to("Problem"))

    def get(verb: str, summary: str, responses: dict[str, Any], *more: Any) -> dict[str, Any]:
        return {
            "get": {
                "summary": summary,
                "operationId": _name(verb, app_id),
                "parameters": [request_id, *more],
                "responses": responses | _failures(found=True),
            }
        }

    stream = {"description": "Events.", "content": {"text/event-stream": {"schema": TEXT}}}
    output = _answer("The video.", {"type": "object"})
    cancelled = _answer("The outcome.", _object({"status": TEXT}))
    cancel = {
        "summary": "Cancel a request",
        "operationId": _name("cancel", app_id),
        "parameters": [request_id],
        "responses": _failures(found=True, cancel=True)
        | {"202": cancelled, "400": cancelled, "404": cancelled},
    }
    return {
        base: get("result", "The output of a request", {"200": output, "400": unfinished}),
        f"{base}/status": get(
            "status", "The status of a request", {"200": status, "202": status}, logs
        ),
        f"{base}/status/stream": get("stream", "The status as events", {"200": stream}, logs),
        f"{base}/cancel": {"put": cancel},
    }


def _health() -> dict[str, Any]:
    fields = {"status": {"enum": ["ok", "unavailable"]}, "models_readable": {"type": "boolean"}}
    body = _object({**fields, "queue_length": INTEGER, "disk_free_bytes": INTEGER})
    return {
        "summary": "Health check",
        "operationId": "health",
        "security": [],
        "responses": {
            "200": _answer("Requests can be done.", body),
            "503": _answer("No models are readable, or the disk is full.", body),
        },
    }


def _failures(
    *, run: bool = False, found: bool = False, cancel: bool = False
) -> dict[str, dict[str, Any]]:
    described = {"401": "Unknown key.", "403": "Forbidden origin, or rate limited."}
    if found:
        described |= {"404": "This key has no such request."}
    else:
        described |= {
            "400": "The body is not JSON.",
            "413": "Too large.",
            "503": "The queue is full.",
        }
    if run or (found and not cancel):
        described |= {"499": "It was cancelled.", "500": "Internal server error."}
        described |= {"504": "It did not start in time."}
    problems = {code: _answer(text, _ref_to("Problem")) for code, text in described.items()}
    if not cancel:
        problems["422"] = _answer("Part of the input is invalid.", _ref_to("InputProblems"))
    return problems


def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for endpoint in ENDPOINTS.values():
        for model in (endpoint.input, endpoint.output):
            schema = json_schema(model)
            schemas |= schema.pop("$defs", {})
            schemas[model.__name__] = schema
    log = {"timestamp": TEXT, "message": TEXT, "level": TEXT, "source": TEXT, "labels": {}}
    return schemas | {
        "QueueStatus": {
            "type": "object",
            "required": ["status", "request_id"],
            "properties": {
                "status": {"enum": ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]},
                "queue_position": INTEGER,
                "logs": {"anyOf": [{"type": "null"}, {"type": "array", "items": _object(log)}]},
                "metrics": _object({"inference_time": NUMBER}),
                "error": TEXT,
                "error_type": TEXT,
                **URLS,
            },
        },
        "Problem": {
            "type": "object",
            "required": ["detail"],
            "properties": {"detail": TEXT, "error_type": TEXT},
        },
        "InputProblems": _object({"detail": {"type": "array", "items": _object(_DETAIL)}}),
    }


_DETAIL = {"loc": {"type": "array"}, "msg": TEXT, "type": TEXT, "url": TEXT, "ctx": {}, "input": {}}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _body(model: type[BaseModel]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": _ref(model)}}}


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _parameter(name: str, where: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    required = where == "path"
    return {
        "name": name,
        "in": where,
        "required": required,
        "schema": schema,
        "description": description,
    }


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return _ref_to(model.__name__)


def _ref_to(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _name(verb: str, path: str) -> str:
    return "_".join([verb, *path.replace("-", "_").split("/")])
