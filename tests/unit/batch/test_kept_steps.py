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
def units(weights, job, tmp_path):
    """A unit, and the same one with another seed."""
    files = ModelFiles(
        checkpoint=weights / "checkpoint.safetensors",
        motion_module=weights / "motion_module.safetensors",
    )
    clip, found = write_clip(tmp_path / "a.mp4", [(3, 90)]), []
    for seed in (0, 1):
        out = tmp_path / f"out{seed}"
        made = job(clip, output=out / "a.mp4", sampling=SamplingSettings(seed=seed, steps=STEPS))
        with Ledger(out) as ledger:
            planned = plan([replace(made, files=files)], out, store=ledger, has_sources=False)
        found.append(planned[0])
    return found


def steps_of(unit):
    return sorted(unit.target.parent.glob(".*.steps/sample-*"))


def test_a_unit_goes_on_at_its_last_step(units, monkeypatch):
    monkeypatch.setattr(kept_calls, "LEAST_SECONDS", 0.0)
    unit, renderer, seen = units[0], Renderer("cpu"), []
    renderer.render(unit)
    expected = unit.target.read_bytes()
    unit.target.unlink()
    assert steps_of(unit) == []

    def stop():
        return len(steps_of(unit)) == STEPS - 1

    with pytest.raises(Cancelled):
        renderer.render(unit, is_cancelled=stop)
    assert not unit.target.exists()
    keep = kept_calls.KeptCalls.keep
    monkeypatch.setattr(
        kept_calls.KeptCalls, "keep", lambda *given: seen.append(given[2]) or keep(*given)
    )
    renderer.render(unit)
    assert seen == [STEPS - 1]
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
