"""The service: the parts of the API, put together and mounted on an aiohttp application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from ..pipeline import AnimateDiffV2VError
from .events import Events
from .housekeeping import Housekeeper
from .http.guard import PREFIXES, Guard
from .http.jwks import jwks_routes
from .http.loopback import unsupported
from .http.operators import OperatorRoutes
from .http.routes import Routes
from .http.submission import Submission
from .http.upload_routes import upload_routes
from .intake.inputs import Inputs
from .intake.loras import LoraShelf
from .intake.model_choice import shortcomings
from .intake.own_files import OwnFiles
from .intake.room import Room
from .intake.uploads import UploadLimits, UploadStore
from .keys import KeyRing
from .metrics import Metrics
from .net.fetching import FetchLimits
from .queue.executor import Executor, ModelLibrary
from .queue.queue_runner import QueueRunner
from .queue.signing import Signer
from .queue.store import Store
from .queue.webhooks import WebhookSender
from .request_steps import RequestSteps, webhook_of
from .settings import Settings
from .storage.data_folder import INPUT_NAME, KEYS, DataFolder, keep_private, set_aside
from .storage.disk import StorageFull
from .storage.folder_lock import FolderLock, FolderRefused

logger = logging.getLogger(__name__)

AddRoute = Callable[[web.RouteDef], object]


@dataclass(frozen=True)
class Service:
    """The API of one data folder, which holds the database, the uploads and the keys."""

    settings: Settings
    library: ModelLibrary
    lock: FolderLock
    store: Store
    runner: QueueRunner
    inputs: Inputs
    webhooks: WebhookSender
    guard: Guard
    housekeeper: Housekeeper
    routes: tuple[web.RouteDef, ...]
    sweeping: list[asyncio.Task[None]] = field(default_factory=list)

    @staticmethod
    def of(
        folder: DataFolder,
        *,
        settings: Settings,
        executor: Executor,
        library: ModelLibrary,
        is_own_server: bool = False,
    ) -> Service:
        """Build the service of a folder.

        is_own_server: whether the server serves only this API; then /metrics is a route of it.

        Raises AnimateDiffV2VError when another process uses the folder, or a file in it cannot be
        read. Damaged files are set aside.
        """
        lock = _locked(folder)
        store = _store(folder, settings)
        uploads = UploadStore(folder.uploads, limits=_upload_limits(settings), clock=store.now)
        signer = _signer(folder.path)
        webhooks = _webhooks(store, signer, settings)
        loras = _lora_shelf(folder, settings, store, library=library, uploads=uploads)
        room = Room(executor.input_folder, INPUT_NAME, most_bytes=settings.share("inputs"))
        inputs = Inputs(settings, executor, library, OwnFiles(uploads, store), loras, room)
        metrics = _metrics(folder.path, store)
        events = Events(metrics if isinstance(metrics, Metrics) else None)
        steps = RequestSteps(store, webhooks, executor, inputs, events)
        operators = OperatorRoutes(folder.path, library, store.count_unfinished, metrics)
        runner = _runner(store, executor, settings, steps)
        submission = Submission(
            settings=settings,
            store=store,
            runner=runner,
            inputs=inputs,
            webhooks=webhooks,
            events=events,
        )
        return Service(
            settings=settings,
            library=library,
            lock=lock,
            store=store,
            runner=runner,
            inputs=inputs,
            webhooks=webhooks,
            guard=_guard(folder, settings, events, is_own_server=is_own_server),
            housekeeper=Housekeeper(
                settings=settings,
                store=store,
                uploads=uploads,
                loras=loras,
                webhooks=webhooks,
                outputs=folder.outputs if executor.output_folder == folder.outputs else None,
            ),
            routes=(
                *upload_routes(uploads, events),
                *jwks_routes(signer),
                *operators.table(is_own_server=is_own_server),
                *Routes(store=store, runner=runner, submission=submission).table(),
            ),
        )

    def mount(self, app: web.Application, add_route: AddRoute) -> None:
        """Mount the service on an application that is not running yet; it starts with it.

        add_route: registers a route on the application, under the prefixes of its choice.
        """
        app.middlewares.insert(0, self.guard.middleware)
        app.on_response_prepare.append(self.guard.cors.let_read)
        for route in self.routes:
            add_route(route)
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)

    async def _start(self, _app: web.Application) -> None:
        await asyncio.to_thread(self.inputs.sweep, self.store.unfinished())
        with suppress(StorageFull):  # tried again at the next start
            await asyncio.to_thread(self.store.adopt_webhooks, webhook_of)
        await self.webhooks.start()
        await self.runner.start()
        self.sweeping.append(asyncio.create_task(self.housekeeper.run()))
        # Both motion modules can be missing for the same reason: dict.fromkeys drops the duplicate.
        lacks = await asyncio.to_thread(lambda: [*shortcomings(self.library, self.settings)])
        for sentence in dict.fromkeys(lacks):
            logger.warning("Requests will be refused: %s", sentence)
        logger.info("AnimateDiff V2V serves the hosted API.")

    async def _stop(self, _app: web.Application) -> None:
        unfinished = len(await asyncio.to_thread(self.store.unfinished))
        logger.info("Stopping; %d unfinished requests continue at the next start.", unfinished)
        for task in self.sweeping:
            task.cancel()
        await self.runner.stop()
        await self.webhooks.stop()
        self.store.close()
        self.lock.release()


def _metrics(folder: Path, store: Store) -> Metrics | str:
    """Return the counters, or the sentence that says why there are none."""
    try:
        return Metrics(queue_length=store.count_unfinished, folder=folder)
    except AnimateDiffV2VError as error:
        return str(error)


def _keyless(settings: Settings) -> bool:
    """Return whether this user's own programs need no key; not every system can tell."""
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


def open_folder(root: Path) -> DataFolder:
    """Find or create the service's folder in `root`; raises AnimateDiffV2VError if it cannot."""
    try:
        return DataFolder.open(root)
    except FolderRefused as error:
        raise AnimateDiffV2VError(str(error)) from error


def _locked(folder: DataFolder) -> FolderLock:
    try:
        return FolderLock(folder.path)
    except FolderRefused as error:
        raise AnimateDiffV2VError(str(error)) from error


def _key_ring(folder: DataFolder) -> KeyRing:
    ring = KeyRing(folder.path)
    try:
        ring.names()
    except ValueError:
        set_aside(folder.path / KEYS, "is damaged; calls are refused until keys are added")
    return ring


def _upload_limits(settings: Settings) -> UploadLimits:
    return UploadLimits(
        max_bytes=settings.max_upload_bytes,
        total_bytes=min(settings.max_uploads_bytes, settings.share("uploads")),
        kept_seconds=settings.keep_uploads_days * 86_400,
    )


def _lora_limits(settings: Settings) -> FetchLimits:
    return FetchLimits(
        max_bytes=settings.max_lora_bytes,
        timeout_seconds=settings.fetch_seconds,
        max_redirects=settings.fetch_redirects,
    )


def _store(folder: DataFolder, settings: Settings) -> Store:
    """Open the database; its files are for the server's user alone."""
    keep_private(folder.path, 0o700)
    store = Store(folder.database, max_bytes=settings.share("database"))
    for path in folder.path.glob("*.sqlite*"):
        keep_private(path, 0o600)
    return store


def _webhooks(store: Store, signer: Signer | None, settings: Settings) -> WebhookSender:
    return WebhookSender(
        store.outbox,
        signer,
        allow_private_targets=settings.private_webhooks,
        clock=store.now,
    )


def _guard(folder: DataFolder, settings: Settings, events: Events, *, is_own_server: bool) -> Guard:
    return Guard(
        _key_ring(folder),
        keyless_loopback=_keyless(settings),
        allowed_hosts=settings.allowed_hosts,
        allowed_origins=settings.allowed_origins,
        events=events,
        prefixes=(*PREFIXES, "/metrics") if is_own_server else PREFIXES,
        max_body_bytes=settings.max_body_bytes,
        requests_per_minute=settings.requests_per_minute,
    )


def _lora_shelf(
    folder: DataFolder,
    settings: Settings,
    store: Store,
    *,
    library: ModelLibrary,
    uploads: UploadStore,
) -> LoraShelf:
    return LoraShelf(
        library,
        uploads,
        _lora_limits(settings),
        folder=folder.loras,
        cache_bytes=settings.share("loras"),
        clock=store.now,
    )


def _runner(
    store: Store, executor: Executor, settings: Settings, steps: RequestSteps
) -> QueueRunner:
    return QueueRunner(
        store,
        executor,
        settings,
        prepare=steps.prepare,
        publish=steps.publish,
        clean_up=steps.clean_up,
        webhook=webhook_of,
        started=steps.started,
        finished=steps.finished,
    )
