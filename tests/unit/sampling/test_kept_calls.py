"""Jobs that were killed go on at their last step, to the same bits."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError, Cancelled
from animatediff_v2v.pipeline.memory.mapped import Scratch
from animatediff_v2v.pipeline.sampling import Conditioning, ContextOptions, SpeedOptions
from animatediff_v2v.pipeline.sampling import kept_calls as module
from animatediff_v2v.pipeline.sampling.denoise import DenoiseBoth
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.kept_calls import KeptCalls, remove_kept
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.passes import Execution
from animatediff_v2v.pipeline.sampling.sample import sample_latents
from animatediff_v2v.pipeline.sampling.samplers import SAMPLERS
from animatediff_v2v.pipeline.sampling.schedulers import sampling_sigmas
from animatediff_v2v.pipeline.sampling.settings import SamplingSettings

SCHEDULE = NoiseSchedule("sqrt_linear")
STEPS = 6
DIGEST = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def all_jobs_are_worth_it(monkeypatch):
    monkeypatch.setattr(module, "LEAST_SECONDS", 0.0)


def kept_in(folder, key="a"):
    return KeptCalls(folder / "a.mp4", name=DIGEST, key=key)


class Killed(Exception):
    """The end of a process, after which nothing is tidied up."""


class Model:
    """A model with an unconditional prediction, which counts its calls."""

    def __init__(self, dies_at=None, end=None):
        self.calls, self.dies_at, self.end = 0, dies_at, end

    def __call__(self, noisy, sigma, _step):
        self.calls += 1
        if self.calls == self.dies_at:
            self.end()
        self._latest = 0.9 * torch.tanh(noisy) / (1 + 0.1 * sigma)
        return torch.tanh(noisy) / (1 + 0.1 * sigma) + 0.05 * torch.sin(3 * noisy / (1 + sigma))

    def keep_unconditional(self):
        pass

    def unconditional(self):
        return self._latest


def die():
    raise Killed


def run(name, model, kept=None, seed=1):
    spec = SAMPLERS[name]
    noisy = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(seed)) * 14
    sigmas = sampling_sigmas(
        SCHEDULE, scheduler="normal", steps=STEPS, denoise=1.0,
        skip_penultimate=spec.skip_penultimate,
    )  # fmt: skip
    both = model
    if kept is not None:
        both = kept.around(model, model, phase="sample", calls=STEPS)
    noise = spec.step_noise(noisy, 3, sigmas)
    return spec.run(DenoiseBoth(both, both), noisy, sigmas, noise, SCHEDULE)


@pytest.mark.parametrize("name", SAMPLERS)
@torch.inference_mode()
def test_a_killed_sampler_goes_on_with_the_same_bits(name, tmp_path):
    whole = Model()
    expected = run(name, whole)
    with pytest.raises(Killed):
        run(name, Model(dies_at=5, end=die), kept_in(tmp_path))
    again = Model()
    assert torch.equal(run(name, again, kept_in(tmp_path)), expected)
    assert again.calls == whole.calls - 4


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from animatediff_v2v.pipeline.sampling import kept_calls
import test_kept_calls as here
kept_calls.LEAST_SECONDS = 0.0
model = here.Model(5, lambda: os.kill(os.getpid(), signal.SIGKILL))
here.run("dpmpp_3m_sde", model, here.kept_in(Path({target!r})))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process as Linux and macOS do")
@torch.inference_mode()
def test_after_sigkill_the_steps_are_there(tmp_path):
    code = KILLED.format(folder=str(Path(__file__).parent), target=str(tmp_path))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    again = Model()
    result = run("dpmpp_3m_sde", again, kept_in(tmp_path))
    assert torch.equal(result, run("dpmpp_3m_sde", Model()))
    assert again.calls == STEPS - 4


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def changed(path):
    path.write_bytes(b"\x01" + path.read_bytes()[1:])


def kept_file(folder, number):
    (path,) = folder.glob(f".*.steps/sample-*-{number:05}-*")
    return path


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda _folder: None, 4),
        (lambda folder: cut(kept_file(folder, 2)), 2),
        (lambda folder: changed(kept_file(folder, 1)), 1),
        (lambda folder: kept_file(folder, 0).unlink(), 0),
        (lambda folder: next(folder.glob(".*.steps/key.txt")).write_bytes(b"\xff"), 0),
        (lambda folder: kept_file(folder, 3).rename(folder / "sample-00003.part"), 3),
    ],
    ids=["whole", "cut", "changed", "gone", "another key", "unfinished"],
)
@torch.inference_mode()
def test_what_is_damaged_is_computed_again(damage, kept, tmp_path):
    with pytest.raises(Killed):
        run("dpmpp_2m", Model(dies_at=5, end=die), kept_in(tmp_path))
    damage(tmp_path)
    again = Model()
    assert torch.equal(run("dpmpp_2m", again, kept_in(tmp_path)), run("dpmpp_2m", Model()))
    assert again.calls == STEPS - kept


@torch.inference_mode()
def test_sampling_twice_in_a_job_keeps_both(tmp_path):
    """The second time starts from other latents."""
    for calls in (2 * STEPS, 0):
        model, kept = Model(), kept_in(tmp_path)
        first, second = (run("euler", model, kept, seed) for seed in (1, 2))
        assert model.calls == calls
        assert torch.equal(first, run("euler", Model(), seed=1))
        assert torch.equal(second, run("euler", Model(), seed=2))


@torch.inference_mode()
def test_another_key_replaces_what_is_there(tmp_path):
    run("euler", Model(), kept_in(tmp_path))
    for key, calls in (("b", STEPS), ("b", 0), ("a", STEPS)):
        model = Model()
        run("euler", model, kept_in(tmp_path, key))
        assert model.calls == calls, key


@torch.inference_mode()
def test_a_folder_that_vanishes_meanwhile_is_told(tmp_path):
    """Another worker with the same unit removes it when it has finished first."""
    run("euler", Model(), kept_in(tmp_path))
    kept, model = kept_in(tmp_path), Model()
    repeated = kept.around(model, model, phase="sample", calls=STEPS)
    noisy = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(1)) * 14
    files = sorted(next(tmp_path.iterdir()).glob("sample-*"))
    assert len(files) == STEPS
    listed = kept.found

    def found(phase, size):
        paths = listed(phase, size)
        kept.remove()
        return paths

    kept.found = found
    with pytest.raises(AnimateDiffV2VError, match="another worker has finished this unit"):
        repeated(noisy, torch.tensor(14.0), 0)


def test_a_short_job_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LEAST_SECONDS", 1000.0)
    run("euler", Model(), kept_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_the_keeping_and_not_the_job(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        KeptCalls, "_begin", lambda _self: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with caplog.at_level(logging.WARNING):
        result = run("euler", Model(), kept_in(tmp_path))
    assert torch.equal(result, run("euler", Model()))
    assert caplog.messages == [
        "The steps cannot be kept (full): if this job is killed, it begins again."
    ]


def test_only_kept_calls_of_other_jobs_are_removed(tmp_path):
    run("euler", Model(), kept_in(tmp_path))
    (tmp_path / ".mine.steps").mkdir()
    (tmp_path / f".{'f' * 16}.steps").mkdir()
    remove_kept(tmp_path, but=[DIGEST])
    assert len(list(tmp_path.iterdir())) == 3
    remove_kept(tmp_path, but=[])
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{'f' * 16}.steps", ".mine.steps"]


@pytest.mark.parametrize(
    "settings",
    [
        {"speed": SpeedOptions(deep_cache_interval=2), "sampler": "dpmpp_2m_sde", "steps": 12},
        {"noise_type": "unsample", "sampler": "euler", "steps": 4},
    ],
    ids=["deep features", "unsampling"],
)
def test_a_whole_job_goes_on_with_the_same_bits(settings, models, tmp_path):
    encode = models.text_encoder.encode
    latents = torch.randn(5, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    chosen = SamplingSettings(seed=3, context=ContextOptions(length=4, overlap=2), **settings)

    def sampled(kept, max_ram_gb, is_cancelled):
        with (
            Scratch(tmp_path / "a.mp4", max_ram_gb=max_ram_gb) as scratch,
            scratch.mapping(latents) as paused,
        ):
            return sample_latents(
                models.unet, latents, Conditioning.of(encode("a fox"), encode("")), chosen,
                make_guided=partial(GuidedModel, execution=Execution(paused=paused)),
                kept_calls=kept, is_cancelled=is_cancelled,
            )  # fmt: skip

    asked = []
    expected = sampled(None, None, lambda: bool(asked.append(1)))
    whole, asked = len(asked), []
    with pytest.raises(Cancelled):
        sampled(kept_in(tmp_path), None, lambda: asked.append(1) or len(asked) > 0.7 * whole)
    asked.clear()
    result = sampled(kept_in(tmp_path), 1e-6, lambda: bool(asked.append(1)))
    assert torch.equal(result, expected)
    assert len(asked) < 0.8 * whole
