"""The queue of several workers: the distribution and the order of jobs."""

from __future__ import annotations

import asyncio

import pytest
from animatediff_v2v.api.queue.executor import WorkerDied
from animatediff_v2v.api.queue.local_executor import LocalExecutor
from animatediff_v2v.pipeline import AnimateDiffV2VError, Cancelled
from animatediff_v2v.pipeline.part_folder import _marked

from .test_comfy_executor import Notes, job


class FakeWorker:
    """A fake worker whose jobs the test ends."""

    def __init__(self):
        self.is_ready, self.models = True, None
        self.jobs, self.stops, self.is_stopped = [], 0, False
        self.refusal = None

    async def start(self, when_ready):
        self.when_ready = when_ready
        if self.refusal is not None:
            raise self.refusal

    async def stop(self):
        self.is_stopped = True

    async def run(self, job, output, on_message):
        self.jobs.append(job.request_id)
        self.models = job.models
        self.on_message, self.outcome = on_message, asyncio.get_running_loop().create_future()
        return await self.outcome

    def stop_job(self):
        self.stops += 1

    def make(self):
        self.outcome.set_result({"total": 1.0})


class Stage:
    """An executor, its workers and the jobs that were submitted."""

    def __init__(self, folder, workers=2):
        self.workers = [FakeWorker() for _ in range(workers)]
        self.outputs = folder / "out"
        self.executor = LocalExecutor(
            input_folder=folder / "in",
            output_folder=self.outputs,
            models=folder / "models",
            workers=self.workers,
        )
        self.tasks, self.notes = {}, {}

    async def submit(self, *names, **values):
        for name in names:
            made = job(name, sequence=len(self.tasks), **values)
            self.notes[name] = Notes()
            self.tasks[name] = asyncio.create_task(self.executor.run(made, self.notes[name]))
        await settle()

    def jobs(self):
        return [worker.jobs for worker in self.workers]


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def play(tmp_path):
    def play(story, **options):
        async def run():
            stage = Stage(tmp_path, **options)
            await stage.executor.start()
            await asyncio.wait_for(story(stage), 5)
            await stage.executor.stop()
            for task in stage.tasks.values():
                task.cancel()
            await asyncio.gather(*stage.tasks.values(), return_exceptions=True)
            return stage

        return asyncio.run(run())

    return play


def test_each_worker_runs_one_job_and_the_others_wait_in_order(play):
    async def story(stage):
        await stage.submit("a", "b", "c", "d")
        executor = stage.executor
        assert stage.jobs() == [["a"], ["b"]]
        assert [executor.queue_position(name) for name in "abcd"] == [None, None, 2, 3]
        assert executor.length() == 4
        stage.workers[1].make()
        await settle()
        assert stage.jobs() == [["a"], ["b", "c"]]
        assert (await stage.tasks["b"]).path == stage.outputs / "b.mp4"
        assert [executor.queue_position(name) for name in "cd"] == [None, 2]
        assert stage.notes["c"].told == ["started"] and stage.notes["d"].told == []

    play(story)


def test_low_priority_runs_last(play):
    async def story(stage):
        await stage.submit("running")
        await stage.submit("low", is_low_priority=True)
        await stage.submit("usual")
        stage.workers[0].make()
        await settle()
        assert stage.jobs() == [["running", "usual"]]

    play(story, workers=1)


def test_a_free_worker_with_the_same_models_comes_first_and_then_the_longest_idle(play):
    async def story(stage):
        first, second = stage.workers
        for name, models in (("a", "x"), ("b", "y"), ("c", "x"), ("d", "y"), ("e", "z")):
            await stage.submit(name, checkpoint=models)
            (first if name in first.jobs else second).make()
            await settle()
        # Nothing was loaded twice: the job with other networks got the worker idle for longest.
        assert stage.jobs() == [["a", "c", "e"], ["b", "d"]]

    play(story)


def test_models_do_not_break_the_order(play):
    async def story(stage):
        await stage.submit("a", checkpoint="x")
        await stage.submit("b", checkpoint="y")
        await stage.submit("c", checkpoint="x")
        stage.workers[0].make()
        await settle()
        assert stage.jobs() == [["a", "b"]]

    play(story, workers=1)


def test_cancelling_a_job_affects_no_other(play):
    async def story(stage):
        await stage.submit("a", "b", "waiting")
        await stage.executor.cancel("waiting")
        await stage.executor.cancel("b")
        await stage.executor.cancel("unknown")
        assert [worker.stops for worker in stage.workers] == [0, 1]
        with pytest.raises(Cancelled):
            await stage.tasks["waiting"]
        stage.workers[1].outcome.set_exception(Cancelled("c"))
        with pytest.raises(Cancelled):
            await stage.tasks["b"]
        assert stage.executor.length() == 1

    play(story)


def test_a_worker_is_busy_until_its_abandoned_job_ends(play):
    """A cancelled task ends at once, while the worker still computes its last step."""

    async def story(stage):
        await stage.submit("a", "b")
        stage.tasks["a"].cancel()
        await settle()
        worker = stage.workers[0]
        assert stage.tasks["a"].cancelled() and worker.stops == 1
        assert worker.jobs == ["a"]
        worker.outcome.set_exception(Cancelled("c"))
        await settle()
        assert worker.jobs == ["a", "b"]

    play(story, workers=1)


def test_a_dead_worker_gets_no_job_until_it_is_replaced(play):
    async def story(stage):
        worker = stage.workers[0]
        await stage.submit("a", "b")
        worker.is_ready = False
        worker.outcome.set_exception(WorkerDied("It ended."))
        with pytest.raises(WorkerDied):
            await stage.tasks["a"]
        await settle()
        assert worker.jobs == ["a"] and stage.executor.queue_position("b") == 0
        worker.is_ready = True
        worker.when_ready()
        await settle()
        assert worker.jobs == ["a", "b"]

    play(story, workers=1)


def test_errors_do_not_reveal_paths_of_the_server(play, tmp_path):
    async def story(stage):
        await stage.submit("a")
        sentence = f"{tmp_path / 'models' / 'x.ckpt'} is empty."
        stage.workers[0].outcome.set_exception(AnimateDiffV2VError(sentence))
        with pytest.raises(AnimateDiffV2VError) as caught:
            await stage.tasks["a"]
        assert str(caught.value) == "x.ckpt is empty."

    play(story)


def test_messages_are_logged_in_order(play):
    async def story(stage):
        await stage.submit("a")
        for message in ("one", "two"):
            stage.workers[0].on_message(message)
        stage.workers[0].make()
        assert (await stage.tasks["a"]).timings == {"total": 1.0}
        assert stage.notes["a"].told == ["started", "one", "two"]

    play(story, workers=1)


def test_one_failing_worker_stops_them_all(tmp_path):
    async def run():
        stage = Stage(tmp_path)
        stage.workers[1].refusal = AnimateDiffV2VError("There is no such device.")
        with pytest.raises(AnimateDiffV2VError, match="no such device"):
            await stage.executor.start()
        assert all(worker.is_stopped for worker in stage.workers)

    asyncio.run(run())


def test_unfinished_files_of_killed_workers_are_removed_at_start_and_stop(play, tmp_path):
    outputs = tmp_path / "out"
    before = begun(outputs, "a")

    async def story(stage):
        assert not before.exists()
        begun(outputs, "b")

    play(story)
    assert list(outputs.iterdir()) == []


def begun(folder, name):
    """The folder of an unfinished video whose process has ended."""
    path = folder / f".{name}.x1.part"
    path.mkdir(parents=True)
    _marked(path / "owner.json").close()
    return path


def test_the_first_worker_that_refuses_ends_the_start_of_all(tmp_path):
    async def run():
        stage = Stage(tmp_path)
        first, second = stage.workers
        first.refusal = AnimateDiffV2VError("device is 'gpu'.")
        waiting = asyncio.Event()

        async def never(when_ready):
            await waiting.wait()

        second.start = never
        with pytest.raises(AnimateDiffV2VError, match="gpu"):
            await asyncio.wait_for(stage.executor.start(), 30)
        assert first.is_stopped and second.is_stopped

    asyncio.run(run())
