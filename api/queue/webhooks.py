"""Delivery of webhooks to the URLs that requests named, repeated until it succeeds.

A delivery is stored with the end of its request, so a restart loses none. A receiver may get the
same one twice, as from fal; `request_id` tells which are the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import aiohttp
from yarl import URL

from ...pipeline.errors import AnimateDiffV2VError
from ..net.addresses import AddressRefused, Lookup, check_literal, open_session
from ..storage.disk import StorageFull
from ..switch import FILE_NAME as SETTINGS_FILE
from ..wire.outcome import Answer
from ..wire.problems import Detail, RequestRefused, unprocessable
from .outbox import Delivery, Outbox
from .signing import Signer

logger = logging.getLogger(__name__)

ATTEMPTS = 10
FIRST_PAUSE_SECONDS = 14.0
"""The pause doubles, so that the tenth attempt comes 2 hours after the first."""
TIMEOUT_SECONDS = 15.0
AT_ONCE = 8
KEPT_SECONDS = 30 * 86_400
_LONGEST_URL = 4_000
_UNREACHABLE = (
    aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError, AnimateDiffV2VError
)  # fmt: skip


class WebhookSender:
    """Delivers the webhooks of an outbox."""

    def __init__(
        self,
        outbox: Outbox,
        signer: Signer | None,
        *,
        allow_private_targets: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Store the settings; nothing is delivered before `start`.

        signer: None where signing is impossible; then `check` refuses every target.
        clock: seconds since the epoch, by which deliveries are due.
        allow_private_targets: also call addresses that are not on the public internet.
        """
        self._outbox, self._signer = outbox, signer
        self._allow_private = allow_private_targets
        self._clock = clock
        self._news = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._rest_until: dict[str, float] = {}
        """Deliveries that a fault in this module ended, and when they are tried again."""
        self._lookup = Lookup()

    async def check(self, url: str) -> None:
        """Check that a target may be called; raises RequestRefused.

        A host name that does not resolve now is accepted: it may when the request ends.
        """
        if self._signer is None:
            raise _refused(
                "Webhooks are signed, and this server lacks the Python package 'cryptography'",
                "feature_not_supported",
            )
        try:
            target = URL(url) if len(url) <= _LONGEST_URL else URL()
        except ValueError:
            target = URL()
        if target.scheme not in ("http", "https") or not target.host or not target.port:
            raise _refused("fal_webhook must be an http or https URL")
        if not self._allow_private:
            try:
                await self._lookup.check(target)
            except AddressRefused as error:
                raise _refused(
                    f"fal_webhook cannot be called: {error} The owner of the server can allow it: "
                    f"private_webhooks in {SETTINGS_FILE}"
                ) from error

    async def start(self) -> None:
        """Start delivering, including what an earlier process left undelivered.

        Where signing is impossible, deliveries stay in the outbox.
        """
        now = self._clock()
        with suppress(StorageFull):  # tried again at the next start
            # If the clock has been set back, deliveries would otherwise come that much later.
            latest = now + FIRST_PAUSE_SECONDS * 2**ATTEMPTS
            await asyncio.to_thread(self._outbox.bring_forward, now, latest=latest)
        if self._signer is not None:
            self._loop_task = asyncio.create_task(self._deliver_all())

    async def stop(self) -> None:
        """Stop; deliveries under way are tried again at the next start."""
        tasks = [*self._under_way.values(), *([self._loop_task] if self._loop_task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._lookup.close()

    def wake(self) -> None:
        """Look at the outbox now: a delivery was added."""
        self._news.set()

    def sweep(self) -> None:
        """Remove deliveries that were delivered or given up long ago."""
        self._outbox.forget(self._clock() - KEPT_SECONDS)

    # --- delivering ------------------------------------------------------------------------------

    async def _deliver_all(self) -> None:
        public_only = not self._allow_private
        async with open_session(seconds=TIMEOUT_SECONDS, public_only=public_only) as session:
            while True:
                self._news.clear()
                # Both queries use the same time, so that no delivery is missed between them.
                now = self._clock()
                try:
                    await self._begin_due(session, now)
                    until = await asyncio.to_thread(self._outbox.next_due, now)
                except sqlite3.Error:
                    logger.exception("The webhooks cannot be read; trying again in a minute.")
                    until = self._clock() + 60
                await self._wait(until)

    async def _begin_due(self, session: aiohttp.ClientSession, now: float) -> None:
        # A delivery that ends during the query may still be read as due: skip it here. Its end
        # triggers another query.
        busy = set(self._under_way)
        for delivery in await asyncio.to_thread(self._outbox.due, now, most=2 * AT_ONCE):
            is_free = delivery.request_id not in busy
            is_rested = self._rest_until.get(delivery.request_id, now) <= now
            if len(self._under_way) < AT_ONCE and is_free and is_rested:
                self._rest_until.pop(delivery.request_id, None)
                task = asyncio.create_task(self._deliver(session, delivery))
                self._under_way[delivery.request_id] = task
                task.add_done_callback(partial(self._ended, delivery.request_id))

    def _ended(self, request_id: str, task: asyncio.Task[None]) -> None:
        del self._under_way[request_id]
        error = None if task.cancelled() else task.exception()
        if error is None:
            self._news.set()
        else:  # a bug in this module: the delivery is still due, and would be retried at once
            logger.error("The webhook of request %s failed.", request_id, exc_info=error)
            self._rest_until[request_id] = self._clock() + FIRST_PAUSE_SECONDS
            asyncio.get_running_loop().call_later(FIRST_PAUSE_SECONDS, self._news.set)

    async def _wait(self, until: float | None) -> None:
        seconds = None if until is None else max(0.0, until - self._clock())
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
            return

    async def _deliver(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        try:
            status = await self._call(session, delivery)
            is_delivered, outcome = 200 <= status < 300, f"answered {status}"
        except _UNREACHABLE as error:
            is_delivered, outcome = False, f"could not be called ({type(error).__name__})"
        attempts = delivery.attempts + 1
        is_over = is_delivered or attempts >= ATTEMPTS
        pause = FIRST_PAUSE_SECONDS * 2 ** (attempts - 1)
        due = None if is_over else self._clock() + pause
        await asyncio.to_thread(self._outbox.attempted, delivery.request_id, attempts, due=due)
        if not is_delivered:
            # The URL stays out of the log: it may hold a secret of the receiver's.
            logger.warning(
                "The webhook of request %s %s; %s.",
                delivery.request_id,
                outcome,
                "it was given up" if is_over else f"again in {pause:.0f} s",
            )

    async def _call(self, session: aiohttp.ClientSession, delivery: Delivery) -> int:
        assert self._signer is not None
        url = URL(delivery.url)
        if not self._allow_private:
            check_literal(url)
        headers = self._signer.headers(
            request_id=delivery.request_id,
            user_id=delivery.user_id,
            timestamp=int(time.time()),
            body=delivery.body,
        )
        headers |= {"Content-Type": "application/json", "User-Agent": "animatediff-v2v"}
        # Redirects are not followed: the target is the URL that was checked.
        async with session.post(
            url, data=delivery.body, headers=headers, allow_redirects=False
        ) as response:
            return response.status


def delivery_of(*, request_id: str, user_id: str, url: str, answer: Answer) -> Delivery:
    """Return the webhook that reports the answer of a request to `url`."""
    body: dict[str, Any] = {"request_id": request_id, "gateway_request_id": request_id}
    if answer.is_ok:
        body |= {"status": "OK", "payload": answer.body}
    else:
        error = f"Invalid status code: {answer.status}"
        body |= {"status": "ERROR", "error": error, "payload": answer.body}
    return Delivery(request_id, user_id, url, json.dumps(body).encode())


def _refused(sentence: str, type: str = "value_error") -> RequestRefused:
    return RequestRefused(unprocessable(Detail(["query", "fal_webhook"], sentence, type)))
