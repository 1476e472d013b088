"""The engine on a real Ray, on this machine: an actor that is killed loses nothing."""

from __future__ import annotations

import os
import signal

import pytest
from animatediff_v2v.batch.inline import run_inline
from animatediff_v2v.batch.ledger import Ledger
from animatediff_v2v.batch.plan import plan
from animatediff_v2v.batch.ray_engine import run_on_ray
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


def test_a_killed_actor_loses_nothing(weights, tmp_path):
    pytest.importorskip("ray", reason="needs the package ray")
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
            os.kill(int(event.worker.rpartition("-")[2]), signal.SIGKILL)

    with Ledger(there) as ledger:
        units = plan(jobs(there), there, store=ledger, has_sources=False)
        run_on_ray(BatchRun(ledger, units, on_event=on_event), device="cpu")
        rows = ledger.rows()
    assert [row.state for row in rows] == ["done"] * len(clips)
    assert events.count("worker lost") == events.count("again") == 1
    assert events.count("done") == len(clips)
    for clip in clips:
        assert (there / clip.name).read_bytes() == (here / clip.name).read_bytes()


def test_without_ray_a_sentence_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with (
        Ledger(tmp_path) as ledger,
        pytest.raises(AnimateDiffV2VError, match=r'pip install "animatediff-v2v\[ray\]"'),
    ):
        run_on_ray(BatchRun(ledger, []))
