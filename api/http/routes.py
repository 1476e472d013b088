"""The paths of the hosted API: run, submit, status, result, cancel, files and the proxy.

`service.py` puts the parts together and mounts them; `hosts.py` says how fal's hosts became paths.
"""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import ValidationError

from ...pipeline import AnimateDiffV2VError
from ...pipeline.ranges import DRAWN_SEED
from ..events import Events
from ..intake.inputs import Inputs
from ..queue.queue_runner import QueueRunner
from ..queue.store import NewRequest, QueueFull, Store, StoredRequest
from ..queue.webhooks import WebhookSender
from ..settings import Settings
from ..wire.hosts import HOSTS, MOUNT, QUEUE, RUN, local_path, own_url
from ..wire.problems import (
    IN_PROGRESS,
    NOT_FOUND,
    QUEUE_FULL,
    Detail,
    RequestRefused,
    error_response,
    unprocessable,
    validation_answer,
)
from ..wire.schemas import APP_IDS, ENDPOINTS, Endpoint, RestyleInput
from . import answers
from .bodies import LARGE_AT_ONCE, Parser, Places
from .guard import as_response, caller_of, needs_no_key
from .openapi import openapi, page

SECONDS_BETWEEN_PINGS = 15
REQUEST_ID = "x-fal-request-id"
UNPROXIED = error_response(412, "The target of the proxy must be a URL of fal's", "bad_target")


class Routes:
    """Answers requests; what is shared between them lives in the store and the runner."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        runner: QueueRunner,
        inputs: Inputs,
        webhooks: WebhookSender,
        events: Events,
    ) -> None:
        """Connect the parts."""
        self._events = events
        self._settings, self._store, self._runner = settings, store, runner
        self._inputs, self._webhooks = inputs, webhooks
        self._places, self._parser = Places(LARGE_AT_ONCE), Parser()

    def table(self) -> list[web.RouteDef]:
        """List the routes, for any application."""
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
            web.get(f"{answers.FILES}/{{token}}/{{name}}", self.file),
            web.route("*", f"{MOUNT}/proxy", self.proxy),
            web.get("/animatediff-v2v/openapi.json", self.openapi),
            web.get("/animatediff-v2v", self.page),
            web.route("*", f"{MOUNT}/{{tail:.*}}", self.unknown),
        ]

    # --- asking for work -----------------------------------------------------------------------

    async def run(self, request: web.Request) -> web.Response:
        """Do what is asked and answer when it is done."""
        stored = await self._submitted(request, RUN)
        while stored.state != "done":
            await self._runner.changed(stored.id, seconds=SECONDS_BETWEEN_PINGS)
            stored = await self._found(stored.id)
        return self._result(stored, request)

    async def submit(self, request: web.Request) -> web.Response:
        """Queue what is asked."""
        stored = await self._submitted(request, QUEUE)
        position = self._runner.queue_position(stored)
        return _json(
            answers.submitted(stored, own_url(request), queue_position=position),
            request_id=stored.id,
        )

    async def _submitted(self, request: web.Request, host: str) -> StoredRequest:
        endpoint = ENDPOINTS[request.path.split(f"{MOUNT}/{host}/", maxsplit=1)[1]]
        webhook_url = request.query.get("fal_webhook")
        if webhook_url is not None:
            await self._webhooks.check(webhook_url)
        timeout = _start_timeout(request)
        async with self._places.one_for(request):
            asked, video_file = await self._read(endpoint, request)
        try:
            stored = await self._runner.submit(
                NewRequest(
                    id=str(uuid.uuid4()),
                    endpoint_id=endpoint.endpoint_id,
                    owner=caller_of(request).key_id,
                    input=asked,
                    origin=own_url(request),
                    is_low_priority=request.headers.get("x-fal-queue-priority") == "low",
                    start_before=None if timeout is None else self._store.now() + timeout,
                    webhook_url=webhook_url,
                    video_file=video_file,
                )
            )
        except Exception as error:  # a call that breaks off may have been queued all the same
            if video_file is not None:
                (self._inputs.executor.input_folder / video_file).unlink(missing_ok=True)
            if isinstance(error, QueueFull):
                raise RequestRefused(QUEUE_FULL) from error
            raise
        self._events.submitted(
            stored,
            key_name=caller_of(request).name,
            queue_position=self._runner.queue_position(stored),
        )
        return stored

    async def _read(
        self, endpoint: Endpoint, request: web.Request
    ) -> tuple[dict[str, Any], str | None]:
        """Give the input to store, and the file of a video that came within it."""
        asked, data_uri = await self._parser.read(
            request, max_bytes=self._settings.max_body_bytes, check=partial(_validated, endpoint)
        )
        owner = caller_of(request).key_id
        try:
            models = await asyncio.to_thread(self._inputs.checked, endpoint, asked, owner=owner)
        except RequestRefused:
            raise
        except AnimateDiffV2VError as error:  # no model is installed at all
            raise RequestRefused(
                error_response(500, str(error), "internal_server_error")
            ) from error
        values = asked.model_dump() | {"models": models}
        if asked.seed is None:
            values["seed"] = random.SystemRandom().randint(DRAWN_SEED.low, DRAWN_SEED.high)
        if asked.video_url[:5].lower() != "data:":
            return values, None
        return values | {"video_url": "data:"}, await self._inputs.unpack(
            asked.video_url if data_uri is None else data_uri
        )

    # --- following it --------------------------------------------------------------------------

    async def status(self, request: web.Request) -> web.Response:
        """Tell how a request stands, with all its logs so far if they are asked for."""
        stored = await self._asked_for(request)
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
        """Tell of each change of a request as it comes, with the logs that are new."""
        stored = await self._asked_for(request)
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-cache",
                REQUEST_ID: stored.id,
            }
        )
        await response.prepare(request)
        with suppress(ConnectionResetError):  # the client has heard enough
            await self._stream(stored, response, request)
        return response

    async def _stream(
        self, stored: StoredRequest, response: web.StreamResponse, request: web.Request
    ) -> None:
        after, last = 0, None
        while True:
            lines = await asyncio.to_thread(self._store.logs, stored.id, after=after)
            # A line of after this moment comes with the next event: read the state second.
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
        """Give what a finished request made, or why it did not."""
        stored = await self._asked_for(request)
        if stored.state != "done":
            raise RequestRefused(IN_PROGRESS)
        return self._result(stored, request)

    async def cancel(self, request: web.Request) -> web.Response:
        """End a request that has not ended."""
        try:
            stored = await self._asked_for(request)
        except RequestRefused:
            return web.json_response({"status": "NOT_FOUND"}, status=404)
        said = await self._runner.cancel(stored.id)
        status = 202 if said == "CANCELLATION_REQUESTED" else 400
        return _json({"status": said}, request_id=stored.id, status=status)

    async def _asked_for(self, request: web.Request) -> StoredRequest:
        """The request that a path names, if it is its caller's and of this app."""
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

    # --- the rest ------------------------------------------------------------------------------

    @needs_no_key
    async def file(self, request: web.Request) -> web.StreamResponse:
        """Give a file that a request made; the path is the secret, as on a content network."""
        output = await asyncio.to_thread(self._store.output, request.match_info["token"])
        if output is None or not await asyncio.to_thread(output.path.is_file):
            raise RequestRefused(error_response(404, "There is no such file any more", "not_found"))
        headers = {
            "Content-Type": output.content_type,
            "X-Content-Type-Options": "nosniff",
            "Access-Control-Allow-Origin": "*",
        }
        return web.FileResponse(output.path, headers=headers)

    async def proxy(self, request: web.Request) -> web.StreamResponse:
        """Answer what the clients send to a proxy of fal's; nothing is fetched for it."""
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
        # The handler sees the request as if it had come to its own path.
        inner = request.clone(rel_url=path)
        match = await request.app.router.resolve(inner)
        if match.http_exception is not None:
            raise RequestRefused(_unknown(path))
        match.add_app(request.app)
        inner._match_info = match
        return await match.handler(inner)

    @needs_no_key
    async def openapi(self, request: web.Request) -> web.Response:
        """Describe the API."""
        return web.json_response(openapi(own_url(request)))

    @needs_no_key
    async def page(self, _request: web.Request) -> web.Response:
        """Give a page to try the API."""
        return page()

    async def unknown(self, request: web.Request) -> web.Response:
        """Answer what is nowhere."""
        return as_response(_unknown(request.path))


def _validated(endpoint: Endpoint, body: Any) -> RestyleInput:
    try:
        return endpoint.input.model_validate(body)
    except ValidationError as error:
        raise RequestRefused(validation_answer(error)) from error


def _unknown(path: str) -> Any:
    parts = urlsplit(path).path.removeprefix(f"{MOUNT}/").split("/", maxsplit=1)
    named = parts[1] if len(parts) > 1 and parts[0] in HOSTS else "this path"
    return error_response(
        404,
        f"Nothing answers at {named[:200]}; there are {', '.join(ENDPOINTS)}",
        "not_found",
    )


def _json(body: Any, *, request_id: str, status: int = 200) -> web.Response:
    return web.json_response(body, status=status, headers={REQUEST_ID: request_id})


def _wants_logs(request: web.Request) -> bool:
    return request.query.get("logs", "0").lower() in ("1", "true")


def _start_timeout(request: web.Request) -> float | None:
    """After how many seconds a request that has not begun is to end."""
    text = request.headers.get("x-fal-request-timeout")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < 10**9:
        sentence = "x-fal-request-timeout must be a number of seconds above 0"
        loc = ["header", "x-fal-request-timeout"]
        raise RequestRefused(unprocessable(Detail(loc, sentence, "greater_than", {"gt": 0})))
    return seconds
