"""A worker process with the miniature: its results, its end and its replacement."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from animatediff_v2v.api.queue.executor import ApiJob, WorkerDied, WorkerOptions
from animatediff_v2v.api.queue.process_worker import ProcessWorker
from animatediff_v2v.api.queue.rendering import Renderer
from animatediff_v2v.pipeline import AnimateDiffV2VError, Cancelled
from animatediff_v2v.pipeline.video import VideoWriter, probe_video

from .test_comfy_executor import job

MODELS = Path(__file__).parents[3] / "demo" / "models"
# It loads PyTorch, on a machine that may have much else to do.
SECONDS_TO_START = 600


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoWriter(path, width=48, height=48, frame_rate=8) as writer:
        writer.write(np.full((4, 48, 48, 3), 120, np.uint8))
    return path


@pytest.fixture
def small(clip):
    """A job that takes a moment."""
    return job(
        video=clip,
        checkpoint="miniature.safetensors",
        motion_module="miniature_motion.safetensors",
    )


def test_a_job_is_equal_after_a_round_trip_through_json(small):
    given = {"keyframes": ((Path("in/a.png"), 0), (Path("in/b.png"), -1)), "sparsectrl": "s"}
    whole = replace(small, loras=(("a", 0.5),), motion_loras=(("b", 1.0), ("c", 0.0)), **given)
    assert ApiJob.from_json(json.loads(json.dumps(whole.as_json()))) == whole


def once_it_samples(act):
    """Act on a job once it reports sampling."""
    return lambda message: message.startswith("sampling") and act()


def options(**values):
    return WorkerOptions(**{"models": MODELS, "device": "cpu"} | values)


def with_worker(story):
    """Run a scenario with a worker, and stop it afterwards."""

    async def run():
        worker = ProcessWorker(options())
        replaced = asyncio.Event()
        await worker.start(replaced.set)
        try:
            return await story(worker, replaced)
        finally:
            await worker.stop()

    return asyncio.run(run())


def test_the_life_of_a_worker(small, tmp_path, caplog):
    """One process, since its start takes seconds: jobs, refusals, a stop, a death, its end."""

    async def story(worker, replaced):
        pid = worker._process.pid
        made, said = tmp_path / "made.mp4", []
        timings = await worker.run(small, made, said.append)
        assert probe_video(made).frame_count == 4
        assert timings["total"] > 0 and set(timings) >= {"encode", "sample", "write"}
        assert said[0] == "loading miniature.safetensors"
        assert said[-1] == "wrote made.mp4"

        # The same networks again: they are still loaded, and the video is the same.
        said.clear()
        again = tmp_path / "again.mp4"
        await worker.run(small, again, said.append)
        assert not any(message.startswith("loading") for message in said)
        assert again.read_bytes() == made.read_bytes()

        with pytest.raises(AnimateDiffV2VError, match="There is no file"):
            await worker.run(replace(small, checkpoint="nope.ckpt"), made, said.append)

        endless = replace(small, steps=1000)
        with pytest.raises(Cancelled):
            await worker.run(endless, tmp_path / "stopped.mp4", once_it_samples(worker.stop_job))
        assert worker._process.pid == pid and worker.is_ready

        killing = once_it_samples(lambda: os.kill(pid, signal.SIGKILL))
        with pytest.raises(WorkerDied, match="was ended by SIGKILL"):
            await worker.run(endless, tmp_path / "killed.mp4", killing)
        await asyncio.wait_for(replaced.wait(), SECONDS_TO_START)
        assert worker.is_ready and worker._process.pid != pid and worker.models is None
        said.clear()
        await worker.run(small, made, said.append)
        assert said[0] == "loading miniature.safetensors"

        # A bug is reported in full, and ends the process: it may have damaged more.
        process = worker._process
        with pytest.raises(RuntimeError, match=r"(?s)Traceback.*TypeError"):
            await worker.run(replace(small, loras=((None, 1.0),)), tmp_path / "a.mp4", str)
        assert await process.wait() == 1
        return process.pid

    with caplog.at_level(logging.WARNING, "animatediff_v2v.api.queue.process_worker"):
        pid = with_worker(story)
    assert "a new one is started" in caplog.text
    assert not is_alive(pid)
    kept = {path.name for path in tmp_path.iterdir() if not path.name.endswith(".part")}
    assert kept == {"made.mp4", "again.mp4"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"device": "cuda:77"}, "device is 'cuda:77', on which this machine cannot compute"),
        ({"dtype": "float8"}, "dtype is 'float8'; it can be auto"),
        ({"max_memory_gb": 0.0}, "max_memory_gb is 0; it must be from 1e-06"),
    ],
    ids=["device", "dtype", "memory"],
)
def test_invalid_options_are_refused(values, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        Renderer(options(**values))
    assert str(caught.value).startswith(sentence)


def test_a_worker_that_refuses_its_options_fails_at_the_start():
    worker = ProcessWorker(options(device="cuda:77"))
    with pytest.raises(AnimateDiffV2VError, match="device is 'cuda:77'"):
        asyncio.run(worker.start(lambda: None))
    assert not worker.is_ready


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
