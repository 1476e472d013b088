"""Puts the parts of the API together and mounts them on an aiohttp application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from aiohttp import web

from ..pipeline import AnimateDiffV2VError
from ..pipeline.video.probe import probe_video
from .events import Events
from .http import answers
from .http.guard import PREFIXES, Guard
from .http.jwks import jwks_routes
from .http.loopback import unsupported
from .http.operators import OperatorRoutes
from .http.routes import Routes
from .http.upload_routes import upload_routes
from .intake.inputs import Inputs
from .intake.loras import LoraShelf
from .intake.model_choice import is_distilled, shortcomings
from .intake.own_files import OwnFiles
from .intake.room import Room
from .intake.uploads import UploadLimits, UploadStore
from .keys import KeyRing
from .metrics import Metrics
from .net.fetching import FetchLimits
from .queue.executor import VIDEO_TYPE, ApiJob, Executor, JobResult, ModelLibrary
from .queue.queue_runner import QueueRunner
from .queue.signing import Signer
from .queue.store import Output, Store, StoredRequest
from .queue.webhooks import WebhookSender
from .settings import Settings
from .storage.data_folder import INPUT_NAME, KEYS, DataFolder, set_aside
from .storage.disk import StorageFull
from .storage.folder_lock import FolderLock, FolderRefused
from .storage.housekeeping import Housekeeper
from .wire.outcome import Answer
from .wire.schemas import ENDPOINTS

logger = logging.getLogger(__name__)

NOT_DISTILLED = (
    "turbo is meant for AnimateLCM or AnimateDiff-Lightning, and this motion module is neither by "
    "its name: few steps will not look finished"
)
AddRoute = Callable[[web.RouteDef], object]


@dataclass(frozen=True)
class Service:
    """The API of one data folder, which holds its database, uploads and keys."""

    settings: Settings
    library: ModelLibrary
    lock: FolderLock
    store: Store
    runner: QueueRunner
    inputs: Inputs
    webhooks: WebhookSender
    guard: Guard
    housekeeper: Housekeeper
    sweeping: list[asyncio.Task[None]]
    routes: tuple[web.RouteDef, ...]

    @staticmethod
    def of(
        folder: DataFolder,
        *,
        settings: Settings,
        executor: Executor,
        library: ModelLibrary,
        is_own_server: bool = False,
    ) -> Service:
        """Make the service of a folder.

        is_own_server: whether the server has no other use, so that /metrics is the service's.

        Raises AnimateDiffV2VError when another process has the folder, or a file in it cannot be
        read; one that is damaged is set aside.
        """
        lock = _locked(folder)
        _keep_private(folder.path, 0o700)
        store = Store(folder.database, max_bytes=settings.share("database"))
        for path in folder.path.glob("*.sqlite*"):
            _keep_private(path, 0o600)
        uploads = UploadStore(folder.uploads, limits=_upload_limits(settings), clock=store.now)
        signer = _signer(folder.path)
        webhooks = WebhookSender(
            folder.database,
            signer,
            allow_private_targets=settings.private_webhooks,
            clock=store.now,
        )
        loras = LoraShelf(
            library,
            uploads,
            _lora_limits(settings),
            folder=folder.loras,
            cache_bytes=settings.share("loras"),
            clock=store.now,
        )
        room = Room(executor.input_folder, INPUT_NAME, most_bytes=settings.share("inputs"))
        inputs = Inputs(settings, executor, library, OwnFiles(uploads, store), loras, room)
        metrics = _metrics(folder.path, store)
        events = Events(metrics if isinstance(metrics, Metrics) else None)
        parts = _Parts(store, webhooks, executor, inputs, events)
        operators = OperatorRoutes(folder.path, library, store.count_unfinished, metrics)
        runner = QueueRunner(
            store,
            executor,
            settings,
            prepare=parts.prepare,
            publish=parts.publish,
            clean_up=parts.clean_up,
            started=parts.started,
            finished=parts.finished,
        )
        routes = Routes(
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
            guard=Guard(
                _key_ring(folder),
                keyless_loopback=_keyless(settings),
                allowed_hosts=settings.allowed_hosts,
                allowed_origins=settings.allowed_origins,
                events=events,
                prefixes=(*PREFIXES, "/metrics") if is_own_server else PREFIXES,
                max_body_bytes=settings.max_body_bytes,
                requests_per_minute=settings.requests_per_minute,
            ),
            housekeeper=Housekeeper(
                settings=settings,
                store=store,
                uploads=uploads,
                loras=loras,
                webhooks=webhooks,
                outputs=folder.outputs if executor.output_folder == folder.outputs else None,
            ),
            sweeping=[],
            routes=(
                *upload_routes(uploads, events),
                *jwks_routes(signer),
                *operators.table(is_own_server=is_own_server),
                *routes.table(),
            ),
        )

    def mount(self, app: web.Application, add_route: AddRoute) -> None:
        """Answer on an application that does not run yet, and begin when it does.

        add_route: registers a route on it, under whatever prefixes it likes.
        """
        app.middlewares.insert(0, self.guard.middleware)
        app.on_response_prepare.append(self.guard.cors.let_read)
        for route in self.routes:
            add_route(route)
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)

    async def _start(self, _app: web.Application) -> None:
        await asyncio.to_thread(self.inputs.sweep, self.store.unfinished())
        await self.webhooks.start()
        await self.runner.start()
        self.sweeping.append(asyncio.create_task(self.housekeeper.run()))
        # The same sentence of both motion modules is said once.
        lacks = await asyncio.to_thread(lambda: [*shortcomings(self.library, self.settings)])
        for sentence in dict.fromkeys(lacks):
            logger.warning("Requests will be refused: %s", sentence)
        logger.info("AnimateDiff V2V answers the hosted API.")

    async def _stop(self, _app: web.Application) -> None:
        unfinished = len(await asyncio.to_thread(self.store.unfinished))
        logger.info("Stopping; %d unfinished requests go on at the next start.", unfinished)
        for task in self.sweeping:
            task.cancel()
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
    inputs: Inputs
    events: Events

    async def prepare(self, request: StoredRequest) -> ApiJob:
        """Bring the files of a request in, and note which models it is run with."""
        job = await self.inputs.prepare(request)
        said = f"checkpoint {job.checkpoint}, motion module {job.motion_module}"
        with suppress(StorageFull):  # a job does not wait for lines of its log
            await asyncio.to_thread(self.store.log, request.id, said)
            if ENDPOINTS[request.endpoint_id].is_turbo and not is_distilled(job.motion_module):
                await asyncio.to_thread(self.store.log, request.id, NOT_DISTILLED, level="WARN")
        return job

    def started(self, request: StoredRequest) -> None:
        """Tell operators."""
        waited = max(0.0, self.store.now() - request.created)
        self.events.started(request, waited_seconds=waited)

    async def publish(self, request: StoredRequest, made: JobResult) -> Answer:
        """Give the file a URL, and word the output."""
        self.events.made(request, frames=await asyncio.to_thread(_frame_count, made.path))
        await asyncio.to_thread(_keep_private, made.path, 0o600)
        output = Output(made.path, VIDEO_TYPE)
        token = await asyncio.to_thread(self.store.add_output, request.id, output)
        return answers.output(request, made, token)

    async def clean_up(self, request: StoredRequest, job: ApiJob | None) -> None:
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
        if request.webhook_url is not None and request.answer is not None:
            body = answers.result(request, request.origin)
            await self.webhooks.enqueue(
                request_id=request.id,
                user_id=request.owner,
                url=request.webhook_url,
                answer=replace(request.answer, body=body),
            )
            await asyncio.to_thread(self.store.webhook_taken, request.id)
        self.events.ended(request)  # last, as all of this is tried again on a full disk


def _keep_private(path: Path, mode: int) -> None:
    """Let nobody but this user read; a disk without modes has none to set."""
    try:
        path.chmod(mode)
    except OSError as error:
        logger.warning("%s may be read by others: %s", path, error)


def _frame_count(video: Path) -> int | None:
    """Count the frames of a video that was made; None where that cannot be told."""
    try:
        return probe_video(video).frame_count
    except AnimateDiffV2VError:
        return None


def _metrics(folder: Path, store: Store) -> Metrics | str:
    """Give what counts, or the sentence that says why nothing does."""
    try:
        return Metrics(queue_length=store.count_unfinished, folder=folder)
    except AnimateDiffV2VError as error:
        return str(error)


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


def open_folder(root: Path) -> DataFolder:
    """Find or make the service's folder in `root`; raises AnimateDiffV2VError where it must not."""
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
        set_aside(folder.path / KEYS, "is damaged, and nobody gets in until keys are added")
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
