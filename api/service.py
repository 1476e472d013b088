"""Puts the parts of the API together and mounts them on an aiohttp application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from aiohttp import web

from ..pipeline import AnimateDiffV2VError
from . import answers
from .executor import VIDEO_TYPE, Executor, Job, Made, ModelLibrary
from .fetching import FetchLimits
from .guard import Guard
from .inputs import Inputs
from .keys import KeyRing
from .loopback import unsupported
from .loras import LoraShelf
from .model_choice import shortcomings
from .problems import Answer
from .queue_runner import QueueRunner
from .routes import Routes
from .settings import Settings
from .signing import Signer, jwks_routes
from .store import FolderLock, Output, Store, StoredRequest
from .upload_routes import upload_routes
from .uploads import UploadLimits, UploadStore
from .webhooks import WebhookSender

logger = logging.getLogger(__name__)

DATABASE = "api.sqlite"
AddRoute = Callable[[web.RouteDef], object]


@dataclass(frozen=True)
class Service:
    """The API of one data folder, which holds its database, uploads, keys and settings."""

    settings: Settings
    library: ModelLibrary
    lock: FolderLock
    store: Store
    runner: QueueRunner
    inputs: Inputs
    webhooks: WebhookSender
    guard: Guard
    routes: tuple[web.RouteDef, ...]

    @staticmethod
    def of(
        folder: Path, *, settings: Settings, executor: Executor, library: ModelLibrary
    ) -> Service:
        """Make the service of a folder.

        Raises AnimateDiffV2VError when another process has the folder, or a file in it is damaged.
        """
        lock = FolderLock(folder)
        store = Store(folder / DATABASE)
        uploads = UploadStore(folder / "uploads", limits=_upload_limits(settings))
        signer = _signer(folder)
        webhooks = WebhookSender(
            folder / DATABASE, signer, allow_private_targets=settings.private_webhooks
        )
        loras = LoraShelf(library, uploads, _lora_limits(settings))
        inputs = Inputs(settings, executor, library, uploads, loras)
        parts = _Parts(store, webhooks, executor)
        runner = QueueRunner(
            store,
            executor,
            settings,
            prepare=inputs.prepare,
            publish=parts.publish,
            clean_up=parts.clean_up,
            finished=parts.finished,
        )
        routes = Routes(
            settings=settings, store=store, runner=runner, inputs=inputs, webhooks=webhooks
        )
        return Service(
            settings=settings,
            library=library,
            lock=lock,
            store=store,
            runner=runner,
            inputs=inputs,
            webhooks=webhooks,
            guard=Guard(
                KeyRing(folder),
                keyless_loopback=_keyless(settings),
                allowed_hosts=settings.allowed_hosts,
                max_body_bytes=settings.max_body_bytes,
                requests_per_minute=settings.requests_per_minute,
            ),
            routes=(*upload_routes(uploads), *jwks_routes(signer), *routes.table()),
        )

    def mount(self, app: web.Application, add_route: AddRoute) -> None:
        """Answer on an application that does not run yet, and begin when it does.

        add_route: registers a route on it, under whatever prefixes it likes.
        """
        app.middlewares.insert(0, self.guard.middleware)
        for route in self.routes:
            add_route(route)
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)

    async def _start(self, _app: web.Application) -> None:
        await asyncio.to_thread(self.inputs.sweep, self.store.unfinished())
        await self.webhooks.start()
        await self.runner.start()
        # The same sentence of both motion modules is said once.
        lacks = await asyncio.to_thread(lambda: [*shortcomings(self.library, self.settings)])
        for sentence in dict.fromkeys(lacks):
            logger.warning("Requests will be refused: %s", sentence)
        logger.info("AnimateDiff V2V answers the hosted API; its page is at /animatediff-v2v.")

    async def _stop(self, _app: web.Application) -> None:
        await self.runner.stop()
        await self.webhooks.stop()
        self.store.close()
        self.lock.release()


@dataclass(frozen=True)
class _Parts:
    """What the runner calls back for."""

    store: Store
    webhooks: WebhookSender
    executor: Executor

    async def publish(self, request: StoredRequest, made: Made) -> Answer:
        """Give the file a URL, and word the output."""
        output = Output(made.path, VIDEO_TYPE)
        token = await asyncio.to_thread(self.store.add_output, request.id, output)
        return answers.output(request, made, token)

    async def clean_up(self, request: StoredRequest, job: Job | None) -> None:
        """Remove the video that was brought in for a request."""
        names = [job.video] if job else []
        if request.video_file is not None:
            names.append(self.executor.input_folder / request.video_file)
        for path in names:
            try:
                await asyncio.to_thread(path.unlink, missing_ok=True)
            except OSError as error:  # the next start removes it
                logger.warning("%s could not be removed: %s", path, error)

    async def finished(self, request: StoredRequest) -> None:
        """Hand the webhook of a finished request over; a restart in between does it again."""
        if request.webhook_url is None or request.answer is None:
            return
        body = answers.result(request, request.origin)
        await self.webhooks.enqueue(
            request_id=request.id,
            user_id=request.owner,
            url=request.webhook_url,
            answer=replace(request.answer, body=body),
        )
        await asyncio.to_thread(self.store.webhook_taken, request.id)


def _keyless(settings: Settings) -> bool:
    """Whether this user's own programs need no key, which not every system can tell."""
    reason = unsupported() if settings.keyless_loopback else None
    if reason is not None:
        logger.warning("keyless_loopback is off, and every call needs a key: %s.", reason)
    return settings.keyless_loopback and reason is None


def _signer(folder: Path) -> Signer | None:
    try:
        return Signer.load(folder)
    except AnimateDiffV2VError as error:
        logger.warning("%s", error)
        return None


def _upload_limits(settings: Settings) -> UploadLimits:
    return UploadLimits(
        max_bytes=settings.max_upload_bytes,
        total_bytes=settings.max_uploads_bytes,
        kept_seconds=settings.keep_uploads_days * 86_400,
    )


def _lora_limits(settings: Settings) -> FetchLimits:
    return FetchLimits(
        max_bytes=settings.max_lora_bytes,
        timeout_seconds=settings.fetch_seconds,
        max_redirects=settings.fetch_redirects,
    )
