"""Tell the address that a request named how the request ended, as often as it takes.

A delivery is written down before it is tried, so a restart forgets none. A receiver may get the
same one twice, as from fal, and is told apart by `request_id`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from ...pipeline.errors import AnimateDiffV2VError
from ..net.addresses import AddressRefused, Lookup, check_literal, open_session
from ..settings import FILE_NAME as SETTINGS_FILE
from ..wire.outcome import Answer
from ..wire.problems import Detail, RequestRefused, unprocessable
from .signing import Signer

logger = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS webhooks (
    request_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    url TEXT NOT NULL,
    body BLOB NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL,
    written REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS webhooks_to_send ON webhooks (due) WHERE due IS NOT NULL;
"""
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


@dataclass(frozen=True)
class _Delivery:
    request_id: str
    user_id: str
    url: str
    body: bytes
    attempts: int


class WebhookSender:
    """Delivers webhooks, from a table of its own in the server's database."""

    def __init__(
        self,
        database: Path,
        signer: Signer | None,
        *,
        allow_private_targets: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Deliver what is in `database`, an SQLite file that others may use too.

        signer: None where signing is impossible; then `check` refuses every target.
        clock: seconds since the epoch, by which deliveries are due.
        allow_private_targets: call addresses that are not on the public internet as well.
        """
        self._database, self._signer = database, signer
        self._allow_private = allow_private_targets
        self._clock = clock
        self._news = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._rest_until: dict[str, float] = {}  # deliveries that a fault of ours ended
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="webhooks")
        self._connection: sqlite3.Connection | None = None
        self._lookup = Lookup()

    async def check(self, url: str) -> None:
        """Refuse a target that cannot be called; raises RequestRefused.

        A name that cannot be looked up now may be there when the request ends.
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
        """Take up the deliveries that an earlier process left.

        They wait on where they cannot be signed.
        """
        await self._run(self._open)
        if self._signer is not None:
            self._loop_task = asyncio.create_task(self._deliver_all())

    async def stop(self) -> None:
        """Stop; what is under way is tried again at the next start."""
        tasks = [*self._under_way.values(), *([self._loop_task] if self._loop_task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._run(self._close)
        self._thread.shutdown()
        self._lookup.close()

    async def enqueue(self, *, request_id: str, user_id: str, url: str, answer: Answer) -> None:
        """Deliver how a request ended. A second call for the same request changes nothing."""
        body = json.dumps(payload(request_id, answer)).encode()
        await self._run(self._insert, request_id, user_id, url, body)
        self._news.set()

    def sweep(self) -> None:
        """Forget what was delivered, or given up, long ago; from another thread than the loop's."""
        self._thread.submit(self._forget_old).result()

    # --- delivering ------------------------------------------------------------------------

    async def _deliver_all(self) -> None:
        public_only = not self._allow_private
        async with open_session(seconds=TIMEOUT_SECONDS, public_only=public_only) as session:
            while True:
                self._news.clear()
                # One moment for both questions: nothing becomes due between them unseen.
                now = self._clock()
                try:
                    await self._begin_due(session, now)
                    until = await self._run(self._next_due, now)
                except sqlite3.Error:
                    logger.exception("The table of webhooks cannot be used; again in a minute.")
                    until = self._clock() + 60
                await self._wait(until)

    async def _begin_due(self, session: aiohttp.ClientSession, now: float) -> None:
        for delivery in await self._run(self._due, now):
            is_free = delivery.request_id not in self._under_way
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
        else:  # of ours: it is still due, and would be again at once
            logger.error("The webhook of request %s failed.", request_id, exc_info=error)
            self._rest_until[request_id] = self._clock() + FIRST_PAUSE_SECONDS
            asyncio.get_running_loop().call_later(FIRST_PAUSE_SECONDS, self._news.set)

    async def _wait(self, until: float | None) -> None:
        seconds = None if until is None else max(0.0, until - self._clock())
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except (TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
            return

    async def _deliver(self, session: aiohttp.ClientSession, delivery: _Delivery) -> None:
        try:
            status = await self._call(session, delivery)
            is_delivered, outcome = 200 <= status < 300, f"answered {status}"
        except _UNREACHABLE as error:
            is_delivered, outcome = False, f"could not be called ({type(error).__name__})"
        attempts = delivery.attempts + 1
        is_over = is_delivered or attempts >= ATTEMPTS
        pause = FIRST_PAUSE_SECONDS * 2 ** (attempts - 1)
        due = None if is_over else self._clock() + pause
        await self._run(self._attempted, delivery.request_id, attempts, due)
        if not is_delivered:
            # Without the URL, which may hold a secret of the receiver's.
            logger.warning(
                "The webhook of request %s %s; %s.",
                delivery.request_id,
                outcome,
                "it was given up" if is_over else f"again in {pause:.0f} s",
            )

    async def _call(self, session: aiohttp.ClientSession, delivery: _Delivery) -> int:
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
        # A redirect is an answer like any other: the target is the one that was named.
        async with session.post(
            url, data=delivery.body, headers=headers, allow_redirects=False
        ) as response:
            return response.status

    # --- the table; these run in the sender's one thread -----------------------------------

    async def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _open(self) -> None:
        self._database.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._database, timeout=30, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMA)
        self._connection = connection
        now = self._clock()
        with suppress(sqlite3.OperationalError):  # the disk is full: at another start
            # A clock that was set back in between would hold them up by as much.
            latest = now + FIRST_PAUSE_SECONDS * 2**ATTEMPTS
            connection.execute("UPDATE webhooks SET due = ? WHERE due > ?", (now, latest))

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _forget_old(self) -> None:
        if self._connection is not None:  # else it was stopped meanwhile
            before = self._clock() - KEPT_SECONDS
            self._rows("DELETE FROM webhooks WHERE due IS NULL AND written < ?", (before,))

    def _rows(self, statement: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        assert self._connection is not None, "start() comes first"
        return self._connection.execute(statement, tuple(values)).fetchall()

    def _insert(self, request_id: str, user_id: str, url: str, body: bytes) -> None:
        now = self._clock()
        self._rows(
            "INSERT OR IGNORE INTO webhooks (request_id, user_id, url, body, due, written) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (request_id, user_id, url, body, now, now),
        )

    def _due(self, now: float) -> list[_Delivery]:
        rows = self._rows(
            "SELECT request_id, user_id, url, body, attempts FROM webhooks "
            "WHERE due <= ? ORDER BY due LIMIT ?",
            (now, 2 * AT_ONCE),  # those under way are among them
        )
        return [_Delivery(*row) for row in rows]

    def _next_due(self, now: float) -> float | None:
        """When the next delivery becomes due; those that are due wait for one to end."""
        statement = "SELECT min(due) FROM webhooks WHERE due > ?"
        later: float | None = self._rows(statement, (now,))[0][0]
        return later

    def _attempted(self, request_id: str, attempts: int, due: float | None) -> None:
        self._rows(
            "UPDATE webhooks SET attempts = ?, due = ? WHERE request_id = ?",
            (attempts, due, request_id),
        )


def payload(request_id: str, answer: Answer) -> dict[str, Any]:
    """Give a webhook's body: the output of a request, or how it failed."""
    head = {"request_id": request_id, "gateway_request_id": request_id}
    if answer.is_ok:
        return head | {"status": "OK", "payload": answer.body}
    error = f"Invalid status code: {answer.status}"
    return head | {"status": "ERROR", "error": error, "payload": answer.body}


def _refused(sentence: str, type: str = "value_error") -> RequestRefused:
    return RequestRefused(unprocessable(Detail(["query", "fal_webhook"], sentence, type)))
