"""The engine on a real Ray, on this machine: an actor that is killed loses nothing."""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace

import pytest
from animatediff_v2v.batch.inline import run_inline
from animatediff_v2v.batch.ledger import Ledger
from animatediff_v2v.batch.plan import plan
from animatediff_v2v.batch.ray_engine import _Engine, run_on_ray
from animatediff_v2v.batch.render import Renderer
from animatediff_v2v.batch.run import BatchRun
from animatediff_v2v.batch.unit import Job
from animatediff_v2v.pipeline import (
    AnimateDiffV2VError,
    FrameSelection,
    ModelFiles,
    Request,
    SamplingSettings,
)

from .conftest import write_clip


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="ends processes by Unix signals")
def test_a_killed_actor_loses_nothing(ray, weights, tmp_path):
    clips = [write_clip(tmp_path / f"{name}.mp4", [(4, 90)]) for name in "abc"]
    files = ModelFiles(checkpoint=weights / "checkpoint.safetensors", device="cpu")

    def jobs(out):
        sampling, selection = SamplingSettings(seed=0, steps=1), FrameSelection()
        return [
            Job(
                Request(
                    input=clip, output=out / clip.name, prompt="a fox", sampling=sampling,
                    selection=selection,
                ),
                files,
            )
            for clip in clips
        ]  # fmt: skip

    renderer = Renderer("cpu")
    here, there = tmp_path / "here", tmp_path / "there"
    with Ledger(here) as ledger:
        units = plan(jobs(here), here, store=ledger, has_sources=False)
        run_inline(BatchRun(ledger, units), lambda unit, *_: renderer.render(unit), worker="here")
    events = []

    def on_event(event):
        events.append(event.kind)
        if events.count("begun") == 2 and event.kind == "begun":
            assert ray.cluster_resources()["CPU"] == 1  # one process computes at a time
            os.kill(int(event.worker.rpartition("-")[2]), signal.SIGKILL)

    with Ledger(there) as ledger:
        units = plan(jobs(there), there, store=ledger, has_sources=False)
        run_on_ray(BatchRun(ledger, units, on_event=on_event), device="cpu", workers=1)
        rows = ledger.rows()
    assert [row.state for row in rows] == ["done"] * len(clips)
    # The unit at hand, unless it was done before the signal came, and the one that was being read.
    done_before = events[: events.index("worker lost")].count("done")
    assert events.count("worker lost") == 1
    assert events.count("again") == len(clips) - done_before
    assert events.count("done") == len(clips)
    for clip in clips:
        assert (there / clip.name).read_bytes() == (here / clip.name).read_bytes()


class Actor:
    """An actor that dies as it starts."""

    def __init__(self):
        self.name = self

    def remote(self, *_):
        return object()


def stand_in(**methods):
    """Return a module ray whose actors die as they start."""

    class RayError(Exception):
        pass

    def get(_reference):
        raise RayError("the actor died")

    usual = {
        "is_initialized": lambda: False,
        "init": lambda **_: None,
        "shutdown": lambda: None,
        "cluster_resources": dict,
        "remote": lambda **_: lambda _kind: SimpleNamespace(remote=lambda *_: Actor()),
        "wait": lambda waiting, **_: (waiting, []),
        "get": get,
        "kill": lambda _handle: None,
        "exceptions": SimpleNamespace(RayError=RayError),
    }
    return SimpleNamespace(**usual | methods)


def refuse(**_):
    raise ConnectionError("no answer")


@pytest.mark.parametrize(
    ("address", "methods", "sentence"),
    [
        ("10.0.0.1:6379", {"init": refuse}, "no Ray cluster at RAY_ADDRESS, 10.0.0.1:6379: no ans"),
        ("", {"init": refuse}, "Ray does not start on this machine: no answer"),
        ("", {}, "No worker starts on Ray: the actor died"),
    ],
)
def test_a_ray_that_does_not_start_is_a_sentence(  # noqa: PLR0917
    job, tmp_path, monkeypatch, address, methods, sentence
):
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setitem(sys.modules, "ray", stand_in(**methods))
    jobs = [job(write_clip(tmp_path / "a.mp4", [(4, 90)]))]
    with Ledger(tmp_path / "out") as ledger:
        units = plan(jobs, tmp_path / "out", store=ledger, has_sources=False)
        with pytest.raises(AnimateDiffV2VError, match=sentence):
            run_on_ray(BatchRun(ledger, units))
        assert [row.state for row in ledger.rows()] == ["waiting"]


@pytest.mark.parametrize(
    ("workers", "limits", "gpu_gb", "expected"),
    [
        (0, [None], 24, (2, 1, 30)),
        (4, [None], 24, (4, 0.5, 22.5)),
        (3, [None], 24, (3, 0.5, 30)),
        (6, [None], 24, (6, 0.3333, 15)),
        (0, [4.0, 4.5], 24, (8, 0.25, 11.25)),
        (0, [4.0, None], 24, (2, 1, 30)),
        (0, [40.0], 24, (2, 1, 30)),
        (0, [4.0], None, (2, 1, 30)),
    ],
)
def test_actors_share_gpus_and_memory(workers, limits, gpu_gb, expected):
    """Two GPUs and 100 GB on one machine, and 30 GB of model files."""

    def get(_reference, **_):
        if gpu_gb is None:
            raise ray.exceptions.RayError("no GPU answers")
        return gpu_gb * 10**9

    cluster = {"GPU": 2.0, "memory": 100e9, "node:10.0.0.1": 1.0, "node:__internal_head__": 1.0}
    ray = stand_in(cluster_resources=lambda: cluster, get=get)
    units = {
        str(number): SimpleNamespace(
            files=SimpleNamespace(max_memory_gb=limit), stamps={"m.ckpt": (30 * 10**9, 0)}
        )
        for number, limit in enumerate(limits)
    }
    engine = _Engine(SimpleNamespace(units=units), ray, "auto")
    count = engine._divide(workers)
    assert (count, engine._options["num_gpus"], engine._options["memory"] / 1e9) == expected
    assert engine._workers_each == count


def test_without_ray_a_sentence_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        Ledger(tmp_path) as ledger,
        pytest.raises(AnimateDiffV2VError, match=r'pip install "animatediff-v2v\[ray\]"'),
    ):
        run_on_ray(BatchRun(ledger, []))
