"""The queue without server and networks: a store, a runner, and a fake executor."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from contextlib import asynccontextmanager

from animatediff_v2v.api.queue.executor import ApiJob, JobResult
from animatediff_v2v.api.queue.outputs import Output
from animatediff_v2v.api.queue.queue_runner import QueueRunner
from animatediff_v2v.api.queue.records import NewRequest
from animatediff_v2v.api.queue.store import Store
from animatediff_v2v.api.settings import Settings
from animatediff_v2v.api.wire.outcome import Answer
from animatediff_v2v.pipeline import Cancelled

WAIT_SECONDS = 20
ENDPOINT = "fal-ai/animatediff-v2v"


class Executor:
    """Runs one job after another. `errors` are raised in turn; `hold` keeps jobs running."""

    def __init__(self, folder):
        self.input_folder, self.output_folder = folder / "inputs", folder / "outputs"
        self.errors, self.ran, self.finished = [], [], set()
        self.hold = None
        self._turn = asyncio.Lock()
        self._stops = {}

    async def start(self):
        for folder in (self.input_folder, self.output_folder):
            folder.mkdir(parents=True, exist_ok=True)

    async def stop(self):
        """Do nothing: no job outlives `run`."""

    async def run(self, job, listener):
        stop = self._stops[job.request_id] = asyncio.Event()
        await first_of(self._turn.acquire(), stop.wait())
        if stop.is_set():
            raise Cancelled("The job was cancelled.")
        try:
            await listener.started()
            self.ran.append(job.request_id)
            await listener.on_message("sampling step 1 of 1")
            if self.hold is not None:
                await first_of(self.hold.wait(), stop.wait())
            if stop.is_set():
                raise Cancelled("The job was cancelled.")
            if self.errors:
                raise self.errors.pop(0)
            path = self.output_folder / f"{job.request_id}.mp4"
            path.write_bytes(b"video")
            return JobResult(path, {"total": 1.0})
        finally:
            self._turn.release()

    def recover_output(self, request_id):
        path = self.output_folder / f"{request_id}.mp4"
        return path if path.is_file() else None

    async def cancel(self, request_id):
        if request_id in self._stops:
            self._stops[request_id].set()

    def queue_position(self, request_id):
        return None

    def length(self):
        return 0


async def first_of(*waits):
    """Wait for one of these, and end the others."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in tasks:
            each.cancel()


class FullConnection:
    """An SQLite connection whose disk can be full, so that nothing written is kept."""

    def __init__(self, connection):
        self._connection, self.is_full = connection, False

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def execute(self, statement, *values):
        if self.is_full and statement == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(statement, *values)


class Queue:
    """A store and a runner in `folder`, as the service puts them together."""

    def __init__(self, folder, **settings):
        self.folder, self.settings = folder, Settings(**settings)
        self.executor = Executor(folder)
        self.told, self.prepared = [], []
        self.prepare_errors = []

    def open(self):
        self.store = Store(self.folder / "api.sqlite")
        self.disk = FullConnection(self.store._database._connection)
        self.store._database._connection = self.disk
        self.runner = QueueRunner(
            self.store,
            self.executor,
            self.settings,
            prepare=self._prepare,
            publish=self._publish,
            clean_up=self._clean_up,
            webhook=lambda _request: None,
            started=lambda _request: None,
            finished=self._finished,
        )

    @asynccontextmanager
    async def running(self):
        self.open()
        await self.runner.start()
        try:
            yield self
        finally:
            await self.runner.stop()
            self.disk.is_full = False
            self.store.close()

    async def submit(self, **values):
        request = NewRequest(
            id=str(uuid.uuid4()),
            endpoint_id=ENDPOINT,
            owner="me",
            input={"video_url": "http://h/v.mp4", "prompt": "x", "seed": 1},
            origin="http://h",
            **values,
        )
        return await self.runner.submit(request)

    async def until(self, holds):
        for _ in range(WAIT_SECONDS * 100):
            if holds():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("that did not come")

    async def end_of(self, request):
        await self.until(lambda: self.store.get(request.id).state == "done")
        return self.store.get(request.id)

    def messages(self, request):
        return [line.message for line in self.store.logs(request.id)]

    async def _prepare(self, request):
        if self.prepare_errors:
            raise self.prepare_errors.pop(0)
        self.prepared.append(request.id)
        video = self.executor.input_folder / f"{request.id}.mp4"
        video.write_bytes(b"clip")
        return ApiJob(
            request_id=request.id,
            video=video,
            prompt="x",
            negative_prompt="",
            steps=1,
            guidance_scale=1,
            seed=1,
            sampler="euler",
            scheduler="normal",
            denoise=1,
            checkpoint="c",
            motion_module="m",
            sequence=request.sequence,
            is_low_priority=request.is_low_priority,
        )

    async def _publish(self, request, made):
        token = await asyncio.to_thread(
            self.store.outputs.add, request.id, Output(made.path, "video/mp4")
        )
        return Answer(200, {"video": {"url": f"/{token}"}})

    async def _clean_up(self, request, job):
        if job is not None:
            job.video.unlink(missing_ok=True)

    def _finished(self, request):
        self.told.append(request.id)
