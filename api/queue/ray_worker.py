"""A worker on Ray: an actor on a machine of its cluster, which is replaced when it dies."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ...batch.ray_cluster import actors_on_a_gpu, gpu_count, gpu_share
from ...pipeline.errors import AnimateDiffV2VError
from .executor import ApiJob, WorkerDied, WorkerOptions
from .process_worker import LONGEST_PAUSE_SECONDS, timings
from .worker import Order, outcome

logger = logging.getLogger(__name__)

# Calls of an actor that run at once: a job, its stop, and `live`.
_CALLS_AT_ONCE = 3


class RenderingActor:
    """The actor: it runs one job at a time."""

    def __init__(self, options: WorkerOptions) -> None:
        """Check the options; raises AnimateDiffV2VError."""
        from .rendering import Renderer  # noqa: PLC0415 - loads PyTorch, in the actor

        self._renderer = Renderer(options)
        self._order = Order(None)
        self._stopped: set[str] = set()

    def run(self, job: dict[str, Any], output: str) -> Iterator[dict[str, Any]]:
        """Yield the events of a job, as worker.py sends them."""
        self._order = order = Order(ApiJob.from_json(job), Path(output))
        # Ray does not keep the order of calls: the stop may have come first.
        if job["request_id"] in self._stopped:
            order.stop.set()
        events: SimpleQueue[dict[str, Any]] = SimpleQueue()

        def send(event: str, **values: Any) -> None:
            events.put({"event": event, **values})

        def work() -> None:
            event, values = outcome(order, self._renderer, send)
            send(event, **values)

        threading.Thread(target=work, name="job").start()
        while True:
            message = events.get()
            yield message
            if message["event"] != "progress":
                return

    def stop_job(self, request_id: str) -> None:
        """Stop the job of a request, at hand or not yet begun."""
        self._stopped.add(request_id)
        if self._order.job is not None and self._order.job.request_id == request_id:
            self._order.stop.set()

    def live(self) -> None:
        """Wait for ever, so that the caller hears of the actor's death at once."""
        threading.Event().wait()


class RayWorker:
    """An actor that computes on one device of a cluster; see Worker."""

    def __init__(self, ray: Any, options: WorkerOptions, *, num_gpus: float) -> None:
        """Set the options; `start` starts the actor.

        Args:
            ray: The package, which has joined or started a cluster.
            options: The options; the folder of models is there on all machines of the cluster.
            num_gpus: The part of a GPU that the actor gets.
        """
        self._ray, self._options, self._num_gpus = ray, options, num_gpus
        self._actor: Any = None
        self._keeping: asyncio.Task[None] | None = None
        self._request_id = ""
        self.models: tuple[object, ...] | None = None

    @property
    def is_ready(self) -> bool:
        """True while the actor runs."""
        return self._actor is not None

    async def start(self, when_ready: Callable[[], None]) -> None:
        """Start the actor and wait until it is ready; see Worker."""
        life = await self._started()
        self._keeping = asyncio.create_task(self._keep(life, when_ready))

    async def stop(self) -> None:
        """End the actor; its unfinished file is removed by the executor."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        self._end()

    async def run(
        self, job: ApiJob, output: Path, on_message: Callable[[str], None]
    ) -> dict[str, float]:
        """Run a job in the actor; see Worker."""
        actor = self._actor
        if actor is None:
            raise WorkerDied("The worker has ended.")
        self.models, self._request_id = job.models, job.request_id
        message: dict[str, Any] = {}
        try:
            async for reference in actor.run.remote(job.as_json(), str(output)):
                message = await reference
                if message["event"] == "progress":
                    on_message(message["message"])
        except self._ray.exceptions.RayError as error:
            raise WorkerDied(f"The worker on Ray has died ({type(error).__name__}).") from error
        finally:
            self._request_id = ""
        if message["event"] == "failed":
            # An unknown error may have damaged more; `_keep` starts another actor.
            self._ray.kill(actor)
        return timings(message)

    def stop_job(self) -> None:
        """Tell the actor to stop its job."""
        if self._request_id and self._actor is not None:
            self._actor.stop_job.remote(self._request_id)

    async def _keep(self, life: Any, when_ready: Callable[[], None]) -> None:
        """Replace the actor whenever it dies."""
        while True:
            with suppress(self._ray.exceptions.RayError):
                await life
            self._end()
            logger.warning("A worker on Ray has died; a new one is started.")
            life = await self._started_again()
            when_ready()

    async def _started_again(self) -> Any:
        pause_seconds = 1.0
        while True:
            try:
                return await self._started()
            except AnimateDiffV2VError as error:
                logger.error("%s Trying again in %g seconds.", error, pause_seconds)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    async def _started(self) -> Any:
        """Start an actor, wait until it is ready, and return the reference that ends with it."""
        kind = self._ray.remote(
            num_cpus=1, num_gpus=self._num_gpus, max_restarts=0, max_concurrency=_CALLS_AT_ONCE
        )(RenderingActor)
        actor = kind.remote(self._options)
        try:
            await actor.stop_job.remote("")
        except self._ray.exceptions.RayError as error:
            self._ray.kill(actor)
            raise AnimateDiffV2VError(f"A worker does not start on Ray: {error}") from error
        except BaseException:
            self._ray.kill(actor)
            raise
        self._actor = actor
        return actor.live.remote()

    def _end(self) -> None:
        actor, self._actor, self.models = self._actor, None, None
        if actor is not None:
            self._ray.kill(actor)


def ray_workers(ray: Any, options: WorkerOptions, workers: int) -> list[RayWorker]:
    """Return the workers of a server on a cluster; they are not started yet.

    Args:
        ray: The package, which has joined or started a cluster.
        options: The options of all of them.
        workers: Their number; 0 is one for each GPU, or as many as fit on the GPUs if the
            options limit their memory. More than there are GPUs share them.
    """
    gpus = gpu_count(ray, options.device)
    each = actors_on_a_gpu(ray, options.max_memory_gb) if gpus and not workers else 1
    count = workers or max(1, gpus * each)
    return [RayWorker(ray, options, num_gpus=gpu_share(count, gpus)) for _ in range(count)]
