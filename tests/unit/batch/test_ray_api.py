"""The API's workers on a real Ray, on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from animatediff_v2v.api.queue.executor import WorkerDied, WorkerOptions
from animatediff_v2v.api.queue.local_executor import LocalExecutor
from animatediff_v2v.api.queue.ray_worker import RayWorker, RenderingActor, ray_workers
from animatediff_v2v.api.queue.rendering import Renderer
from animatediff_v2v.batch.ray_cluster import start_ray
from animatediff_v2v.pipeline import AnimateDiffV2VError, Cancelled

from ..api.test_comfy_executor import Notes, job
from .conftest import write_clip

MODELS = Path(__file__).parents[3] / "demo" / "models"


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="ends processes by Unix signals")
def test_the_life_of_an_actor(ray, tmp_path):
    """One cluster, since its start takes seconds."""
    small = job(
        "a",
        video=write_clip(tmp_path / "clip.mp4", [(4, 90)]),
        checkpoint="miniature.safetensors",
        motion_module="miniature_motion.safetensors",
        steps=2,
    )
    options = WorkerOptions(models=MODELS, device="cpu")
    here = tmp_path / "here.mp4"
    Renderer(options).render(small, here, on_message=print, is_cancelled=lambda: False)
    start_ray(ray, 1)
    (worker,) = workers = ray_workers(ray, options, 1)

    async def story():
        executor = LocalExecutor(
            input_folder=tmp_path, output_folder=tmp_path / "out", models=MODELS, workers=workers
        )
        await executor.start()
        try:
            notes = Notes()
            made = await executor.run(small, notes)
            assert made.path.read_bytes() == here.read_bytes()
            assert made.timings["total"] > 0
            assert notes.told[0] == "started" and "sampling step 2 of 2" in " ".join(notes.told)

            # Cancelled, it stops at its next step; the actor lives on.
            pid = await pid_of(worker)
            long = replace(small, request_id="b", steps=1000)
            with pytest.raises(Cancelled):
                await executor.run(long, Acting(lambda: executor.cancel("b")))
            assert await pid_of(worker) == pid

            # Values that cannot be used are told; the actor lives on.
            with pytest.raises(AnimateDiffV2VError, match=r"no\.safetensors"):
                await executor.run(replace(small, checkpoint="no.safetensors"), Notes())
            assert await pid_of(worker) == pid

            # Killed, it is replaced, and the job may be tried again.
            async def kill():
                os.kill(pid, signal.SIGKILL)

            with pytest.raises(WorkerDied):
                await executor.run(replace(long, request_id="c"), Acting(kill))
            made.path.unlink()
            again = await executor.run(small, Notes())
            assert again.path.read_bytes() == here.read_bytes()
            assert await pid_of(worker) != pid
        finally:
            await executor.stop()
        assert not worker.is_ready

    asyncio.run(story())


def test_a_stop_that_comes_before_its_job_stops_it(tmp_path):
    actor = RenderingActor(WorkerOptions(models=MODELS, device="cpu"))
    actor.stop_job("1")
    assert list(actor.run(job("1").as_json(), str(tmp_path / "a.mp4"))) == [{"event": "cancelled"}]


async def pid_of(worker):
    return await worker._actor.__ray_call__.remote(lambda _: os.getpid())


class Acting(Notes):
    """Acts once the job samples."""

    def __init__(self, act):
        super().__init__()
        self._act = act

    async def on_message(self, message):
        if self._act is not None and message.startswith("sampling"):
            act, self._act = self._act, None
            await act()


@pytest.mark.parametrize(
    ("gpus", "workers", "expected"),
    [
        (0, 0, (1, 0)),
        (0, 3, (3, 0)),
        (4, 0, (4, 1.0)),
        (2, 4, (4, 0.5)),
    ],
)
def test_actors_share_the_gpus(gpus, workers, expected):
    class Cluster:
        def cluster_resources(self):
            return {"CPU": 16, "GPU": gpus}

    made = ray_workers(Cluster(), WorkerOptions(models=MODELS), workers)
    assert all(isinstance(each, RayWorker) for each in made)
    assert (len(made), made[0]._num_gpus) == expected
