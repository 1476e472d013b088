"""The submission of a request: its body and headers, checked and queued."""

from __future__ import annotations

import asyncio
import random
import uuid
from functools import partial
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from ...pipeline import AnimateDiffV2VError
from ...pipeline.ranges import DRAWN_SEED
from ..events import Events
from ..intake.inputs import Inputs
from ..queue.queue_runner import QueueRunner
from ..queue.records import NewRequest, StoredRequest
from ..queue.store import QueueFull, Store
from ..queue.webhooks import WebhookSender
from ..settings import Settings
from ..wire.bodies import LARGE_AT_ONCE, BodySlots, Parser
from ..wire.endpoints import ENDPOINTS, Endpoint
from ..wire.hosts import MOUNT, own_url
from ..wire.problems import (
    QUEUE_FULL,
    Detail,
    RequestRefused,
    error_response,
    unprocessable,
    validation_answer,
)
from ..wire.schemas import RestyleInput
from .guard import caller_of


class Submission:
    """Reads calls to `run` and `submit` and queues their requests."""

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
        """Store the parts that a submission uses."""
        self._settings, self._store, self._runner = settings, store, runner
        self._inputs, self._webhooks, self._events = inputs, webhooks, events
        self._slots, self._parser = BodySlots(LARGE_AT_ONCE), Parser()

    async def submit(self, request: web.Request, host: str) -> StoredRequest:
        """Queue the request of a call to a path of `host`; raises RequestRefused."""
        endpoint = ENDPOINTS[request.path.split(f"{MOUNT}/{host}/", maxsplit=1)[1]]
        webhook_url = request.query.get("fal_webhook")
        if webhook_url is not None:
            await self._webhooks.check(webhook_url)
        timeout = _start_timeout(request)
        async with self._slots.one_for(request):
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
        except Exception as error:  # not CancelledError: then the request may have been queued
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
        """Return the input to store, and the file name of a video sent as a data URI."""
        asked, data_uris = await self._parser.read(
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
            data_uris.get(asked.video_url, asked.video_url)
        )


def _validated(endpoint: Endpoint, body: Any) -> RestyleInput:
    try:
        return endpoint.input.model_validate(body)
    except ValidationError as error:
        raise RequestRefused(validation_answer(error)) from error


def _start_timeout(request: web.Request) -> float | None:
    """Return the seconds within which a request must start to run; None for no limit."""
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
