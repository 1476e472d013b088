"""The routes of the hosted API: run, submit, status, result, cancel, files and the proxy.

`service.py` mounts them; `wire/hosts.py` maps fal's hosts to paths of this server.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from ..queue.queue_runner import QueueRunner
from ..queue.records import StoredRequest
from ..queue.store import Store
from ..wire.endpoints import APP_IDS, ENDPOINTS
from ..wire.hosts import FILES, HOSTS, MOUNT, QUEUE, RUN, local_path, own_url
from ..wire.problems import (
    IN_PROGRESS,
    NOT_FOUND,
    RequestRefused,
    error_response,
)
from . import answers
from .guard import as_response, caller_of, needs_no_key
from .openapi import openapi, page
from .submission import Submission

SECONDS_BETWEEN_PINGS = 15
REQUEST_ID = "x-fal-request-id"
NO_FILE = error_response(404, "There is no such file, or it was removed", "not_found")
UNPROXIED = error_response(412, "The target of the proxy must be a URL of fal's", "bad_target")


class Routes:
    """The handlers. They share nothing but the store, the runner and the submission."""

    def __init__(
        self,
        *,
        store: Store,
        runner: QueueRunner,
        submission: Submission,
    ) -> None:
        """Store the parts that the handlers use."""
        self._store, self._runner, self._submission = store, runner, submission

    def table(self) -> list[web.RouteDef]:
        """Return the routes, for any application."""
        request = "requests/{request_id}"
        queue = f"{MOUNT}/{QUEUE}"
        return [
            *(web.post(f"{MOUNT}/{RUN}/{each}", self.run) for each in ENDPOINTS),
            *(web.post(f"{queue}/{each}", self.submit) for each in ENDPOINTS),
            *(
                route
                for app in APP_IDS
                for route in (
                    web.get(f"{queue}/{app}/{request}/status", self.status),
                    web.get(f"{queue}/{app}/{request}/status/stream", self.stream),
                    web.get(f"{queue}/{app}/{request}", self.result),
                    web.put(f"{queue}/{app}/{request}/cancel", self.cancel),
                )
            ),
            web.get(f"{FILES}/{{token}}/{{name}}", self.file),
            web.route("*", f"{MOUNT}/proxy", self.proxy),
            web.get("/animatediff-v2v/openapi.json", self.openapi),
            web.get("/animatediff-v2v", self.page),
            web.route("*", f"{MOUNT}/{{tail:.*}}", self.unknown),
        ]

    # --- submitting ------------------------------------------------------------------------------

    async def run(self, request: web.Request) -> web.Response:
        """Queue a request and answer when it is done."""
        stored = await self._submission.submit(request, RUN)
        while stored.state != "done":
            await self._runner.changed(stored.id, seconds=SECONDS_BETWEEN_PINGS)
            stored = await self._found(stored.id)
        return self._result(stored, request)

    async def submit(self, request: web.Request) -> web.Response:
        """Queue a request and answer at once."""
        stored = await self._submission.submit(request, QUEUE)
        position = self._runner.queue_position(stored)
        return _json(
            answers.submitted(stored, own_url(request), queue_position=position),
            request_id=stored.id,
        )

    # --- following a request ---------------------------------------------------------------------

    async def status(self, request: web.Request) -> web.Response:
        """Return the status of a request, with its logs so far if the query asks for them."""
        stored = await self._named(request)
        lines = (
            await asyncio.to_thread(self._store.logs, stored.id) if _wants_logs(request) else None
        )
        body = answers.status(
            stored,
            own_url(request),
            queue_position=self._runner.queue_position(stored),
            logs=lines,
        )
        return _json(body, request_id=stored.id, status=200 if stored.state == "done" else 202)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Stream each change of a request as an event, with the new log lines."""
        stored = await self._named(request)
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-cache",
                REQUEST_ID: stored.id,
            }
        )
        await response.prepare(request)
        with suppress(ConnectionResetError):  # the client hung up
            await self._stream(stored, response, request)
        return response

    async def _stream(
        self, stored: StoredRequest, response: web.StreamResponse, request: web.Request
    ) -> None:
        after, last = 0, None
        while True:
            lines = await asyncio.to_thread(self._store.logs, stored.id, after=after)
            # The state is read after the logs: a line added in between comes with the next event.
            stored = await self._found(stored.id)
            after = lines[-1].sequence if lines else after
            body = answers.status(
                stored,
                own_url(request),
                queue_position=self._runner.queue_position(stored),
                logs=lines if _wants_logs(request) else None,
            )
            news = b": ping\n\n" if body == last else f"data: {json.dumps(body)}\n\n".encode()
            await response.write(news)
            if stored.state == "done":
                return
            last = (
                body
                if "logs" not in body
                else body | {"logs": [] if body["logs"] else body["logs"]}
            )
            await self._runner.changed(stored.id, seconds=SECONDS_BETWEEN_PINGS)

    async def result(self, request: web.Request) -> web.Response:
        """Return the output of a finished request, or why it failed."""
        stored = await self._named(request)
        if stored.state != "done":
            raise RequestRefused(IN_PROGRESS)
        return self._result(stored, request)

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a request that has not ended."""
        try:
            stored = await self._named(request)
        except RequestRefused:
            return web.json_response({"status": "NOT_FOUND"}, status=404)
        said = await self._runner.cancel(stored.id)
        status = 202 if said == "CANCELLATION_REQUESTED" else 400
        return _json({"status": said}, request_id=stored.id, status=status)

    async def _named(self, request: web.Request) -> StoredRequest:
        """Return the request in the path; raises RequestRefused if it is another caller's."""
        stored = await self._found(request.match_info["request_id"])
        app_id = ENDPOINTS[stored.endpoint_id].app_id
        if stored.owner != caller_of(request).key_id or f"/{app_id}/requests/" not in request.path:
            raise RequestRefused(NOT_FOUND)
        return stored

    async def _found(self, request_id: str) -> StoredRequest:
        stored = await asyncio.to_thread(self._store.get, request_id)
        if stored is None:
            raise RequestRefused(NOT_FOUND)
        return stored

    def _result(self, stored: StoredRequest, request: web.Request) -> web.Response:
        assert stored.answer is not None
        response = _json(
            answers.result(stored, own_url(request)),
            request_id=stored.id,
            status=stored.answer.status,
        )
        response.headers.update(stored.answer.headers | answers.models(stored))
        return response

    # --- other routes ----------------------------------------------------------------------------

    @needs_no_key
    async def file(self, request: web.Request) -> web.StreamResponse:
        """Send a file that a request made. Its URL is the secret, as on fal's CDN."""
        output = await asyncio.to_thread(self._store.outputs.find, request.match_info["token"])
        if output is None or not await asyncio.to_thread(output.path.is_file):
            raise RequestRefused(NO_FILE)
        headers = {
            "Content-Type": output.content_type,
            "X-Content-Type-Options": "nosniff",
            "Access-Control-Allow-Origin": "*",
        }
        return web.FileResponse(output.path, headers=headers)

    async def proxy(self, request: web.Request) -> web.StreamResponse:
        """Answer a client in proxy mode with its target's handler; no other server is called."""
        if request.method not in ("GET", "POST", "PUT"):
            raise RequestRefused(
                error_response(405, "The proxy takes GET, POST and PUT", "bad_method")
            )
        target = request.headers.get("x-fal-target-url")
        if not target:
            raise RequestRefused(
                error_response(400, "The header x-fal-target-url is missing", "bad_target")
            )
        path = local_path(target)
        if path is None:
            raise RequestRefused(UNPROXIED)
        # The handler sees the request as if it had been sent to the target path.
        inner = request.clone(rel_url=path)
        match = await request.app.router.resolve(inner)
        if match.http_exception is not None:
            raise RequestRefused(_unknown(path))
        match.add_app(request.app)
        inner._match_info = match
        return await match.handler(inner)

    @needs_no_key
    async def openapi(self, request: web.Request) -> web.Response:
        """Return the OpenAPI description."""
        return web.json_response(openapi(own_url(request)))

    @needs_no_key
    async def page(self, _request: web.Request) -> web.Response:
        """Return the page for trying out the API."""
        return page()

    async def unknown(self, request: web.Request) -> web.Response:
        """Answer calls to unknown paths."""
        return as_response(_unknown(request.path))


def _unknown(path: str) -> Any:
    parts = urlsplit(path).path.removeprefix(f"{MOUNT}/").split("/", maxsplit=1)
    named = parts[1] if len(parts) > 1 and parts[0] in HOSTS else "this path"
    return error_response(
        404,
        f"There is no endpoint {named[:200]}; there are {', '.join(ENDPOINTS)}",
        "not_found",
    )


def _json(body: Any, *, request_id: str, status: int = 200) -> web.Response:
    return web.json_response(body, status=status, headers={REQUEST_ID: request_id})


def _wants_logs(request: web.Request) -> bool:
    return request.query.get("logs", "0").lower() in ("1", "true")
