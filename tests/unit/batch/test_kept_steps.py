"""A unit whose worker was stopped in the middle goes on where it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from animatediff_v2v.batch.inline import run_inline
from animatediff_v2v.batch.ledger import Ledger
from animatediff_v2v.batch.plan import plan
from animatediff_v2v.batch.render import Renderer
from animatediff_v2v.batch.run import BatchRun
from animatediff_v2v.pipeline import ModelFiles, SamplingSettings
from animatediff_v2v.pipeline.errors import Cancelled
from animatediff_v2v.pipeline.sampling import kept_calls

from .conftest import write_clip

STEPS = 4


@pytest.fixture
def unit(weights, job, tmp_path, request):
    """Return a unit with the settings of a test."""
    files = ModelFiles(
        checkpoint=weights / "checkpoint.safetensors",
        motion_module=weights / "motion_module.safetensors",
    )
    clip, out = write_clip(tmp_path / "a.mp4", [(3, 90)]), tmp_path / "out"
    settings = {"sampling": SamplingSettings(seed=0, steps=STEPS)} | request.param
    made = job(clip, output=out / "a.mp4", **settings)
    with Ledger(out) as ledger:
        return plan([replace(made, files=files)], out, store=ledger, has_sources=False)[0]


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("auto", {}, "auto"),
        ("auto", {"device": "cuda:1"}, "cuda:1"),
        ("auto", {"devices": ("cuda:1", "cuda:2")}, "cuda:1"),
        ("cuda:3", {"device": "cuda:1"}, "cuda:3"),
        ("cuda:3", {"max_memory_gb": 4}, "cpu"),
    ],
)
def test_joins_restore_frames_where_parts_were_made(own, files, expected, tmp_path):
    given = ModelFiles(checkpoint=tmp_path / "a.safetensors", **files)
    assert Renderer(own)._joining_device(given) == expected


def steps_of(unit):
    return sorted(unit.target.parent.glob(".*.steps/sample-*"))


@pytest.mark.parametrize(
    ("unit", "stopped_at", "first_computed"),
    [
        ({}, STEPS - 1, STEPS - 1),
        ({"refine": 1.5}, STEPS + 1, 1),
        ({"refine": 1.5, "refine_upscale": "latent"}, STEPS + 1, 1),
    ],
    indirect=["unit"],
    ids=["one pass", "two passes", "two passes on latents"],
)
def test_a_unit_goes_on_at_its_last_step(unit, stopped_at, first_computed, monkeypatch):
    monkeypatch.setattr(kept_calls, "LEAST_SECONDS", 0.0)
    renderer, seen = Renderer("cpu"), []
    renderer.render(unit)
    expected = unit.target.read_bytes()
    unit.target.unlink()
    assert steps_of(unit) == []

    def stop():
        return len(steps_of(unit)) == stopped_at

    with pytest.raises(Cancelled):
        renderer.render(unit, is_cancelled=stop)
    assert not unit.target.exists()
    keep = kept_calls.KeptCalls.keep
    monkeypatch.setattr(
        kept_calls.KeptCalls, "keep", lambda *given: seen.append(given[2]) or keep(*given)
    )
    renderer.render(unit)
    assert seen[0] == first_computed
    assert unit.target.read_bytes() == expected
    assert steps_of(unit) == []


def test_a_batch_removes_the_steps_of_units_that_are_no_more(inverter, job, tmp_path):
    out, digest = tmp_path / "out", "f" * 16
    stale = out / f".{digest}.steps"
    stale.mkdir(parents=True)
    (stale / "key.txt").write_text("[]")
    jobs = [job(write_clip(tmp_path / "a.mp4", [(3, 90)]))]
    with Ledger(out) as ledger:
        units = plan(jobs, out, store=ledger, has_sources=False)
        run_inline(BatchRun(ledger, units), inverter, worker="here")
    assert not stale.exists()
