"""The callbacks with which the queue runs a request, from its files to its webhook."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..pipeline import AnimateDiffV2VError
from ..pipeline.video.probe import probe_video
from .events import Events
from .http import answers
from .intake.inputs import Inputs
from .intake.model_choice import is_distilled
from .queue.executor import VIDEO_TYPE, ApiJob, Executor, JobResult
from .queue.outbox import Delivery
from .queue.outputs import Output
from .queue.records import StoredRequest
from .queue.store import Store
from .queue.webhooks import WebhookSender, delivery_of
from .storage.data_folder import keep_private
from .storage.disk import StorageFull
from .wire.endpoints import ENDPOINTS
from .wire.outcome import Answer

logger = logging.getLogger(__name__)

NOT_DISTILLED = (
    "turbo needs AnimateLCM or AnimateDiff-Lightning, and the name of this motion module is "
    "neither: with so few steps the video will look unfinished"
)


@dataclass(frozen=True)
class RequestSteps:
    """The functions that QueueRunner is given; see there."""

    store: Store
    webhooks: WebhookSender
    executor: Executor
    inputs: Inputs
    events: Events

    async def prepare(self, request: StoredRequest) -> ApiJob:
        """Fetch the files of a request, and log which models it runs with."""
        job = await self.inputs.prepare(request)
        models = f"checkpoint {job.checkpoint}, motion module {job.motion_module}"
        with suppress(StorageFull):  # the job runs all the same
            await asyncio.to_thread(self.store.log, request.id, models)
            if ENDPOINTS[request.endpoint_id].is_turbo and not is_distilled(job.motion_module):
                await asyncio.to_thread(self.store.log, request.id, NOT_DISTILLED, level="WARN")
        return job

    def started(self, request: StoredRequest) -> None:
        """Report the start of a request to operators."""
        waited = max(0.0, self.store.now() - request.created)
        self.events.started(request, waited_seconds=waited)

    async def publish(self, request: StoredRequest, made: JobResult) -> Answer:
        """Assign a URL to the video, and return the answer that names it."""
        self.events.made(request, frames=await asyncio.to_thread(_frame_count, made.path))
        await asyncio.to_thread(keep_private, made.path, 0o600)
        output = Output(made.path, VIDEO_TYPE)
        token = await asyncio.to_thread(self.store.outputs.add, request.id, output)
        return answers.output(request, made, token)

    async def clean_up(self, request: StoredRequest, job: ApiJob | None) -> None:
        """Remove the files that were fetched for a request."""
        paths = [job.video, *(picture for picture, _ in job.keyframes)] if job else []
        if request.video_file is not None:
            paths.append(self.executor.input_folder / request.video_file)
        for path in paths:
            try:
                await asyncio.to_thread(path.unlink, missing_ok=True)
            except OSError as error:  # the next start removes it
                logger.warning("%s could not be removed: %s", path, error)

    def finished(self, request: StoredRequest) -> None:
        """Report the end of a request to operators, and have its webhook sent."""
        self.events.ended(request)
        self.webhooks.wake()


def webhook_of(request: StoredRequest) -> Delivery | None:
    """Return the webhook that reports the answer of a request; None if it named no URL."""
    if request.webhook_url is None or request.answer is None:
        return None
    return delivery_of(
        request_id=request.id,
        user_id=request.owner,
        url=request.webhook_url,
        answer=replace(request.answer, body=answers.result(request, request.origin)),
    )


def _frame_count(video: Path) -> int | None:
    """Count the frames of a video; None where the count is unknown."""
    try:
        return probe_video(video).frame_count
    except AnimateDiffV2VError:
        return None
