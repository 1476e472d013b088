"""Sampling as a whole, on a tiny network: rules, refusals, and the same bits every time."""

import copy
import logging
import math
from types import SimpleNamespace

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError, Cancelled
from animatediff_v2v.pipeline.models import batching as memory
from animatediff_v2v.pipeline.models import vae as latent_codec
from animatediff_v2v.pipeline.models.batching import ChunkSizes
from animatediff_v2v.pipeline.models.unet import PREDICTS_NOISE, MotionUNet
from animatediff_v2v.pipeline.ranges import SEED
from animatediff_v2v.pipeline.sampling import Conditioning, ContextOptions, Guidance
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.samplers import SAMPLERS

from .sampled import sample

SCALE = 0.18215
SMALL_WINDOWS = ContextOptions(length=4, overlap=2)


def clip(frames, *, height=3, width=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(frames, 4, height, width, generator=generator)


@pytest.fixture(scope="module")
def conditioning(models):
    return Conditioning.of(
        models.text_encoder.encode("a (blue:1.2) ball"), models.text_encoder.encode("ugly")
    )


@pytest.fixture(scope="module")
def v1_unet(models):
    return MotionUNet(
        copy.deepcopy(models.unet.unet), copy.deepcopy(models.unet.motion), family="v1"
    )


class Recorder:
    """A network that predicts no noise and records its inputs."""

    device, dtype, parameterization = torch.device("cpu"), torch.float32, PREDICTS_NOISE

    def __init__(self, *, max_frames=None, beta_schedule="linear"):
        self.max_frames, self.beta_schedule = max_frames, beta_schedule
        self.windows = []
        self.samples = []

    def __call__(self, sample, timestep, context, num_frames, **_others):
        clips = sample.clone().split(num_frames)
        self.windows += map(len, clips)
        self.samples += clips
        return torch.zeros_like(sample)


PROMPTS = Conditioning.of(torch.ones(1, 77, 8), torch.zeros(1, 77, 8))


# Frames, the longest window of the network, the requested context -> windows of the only step.
CONTEXTS = [
    (10, 32, None, [10]),
    (32, 32, None, [32]),
    (33, 32, None, [16, 16, 16]),
    (10, None, None, [10]),
    (16, None, None, [16]),
    (40, None, None, [16, 16, 8]),
    (10, 32, ContextOptions(), [10]),
    (24, 32, ContextOptions(), [16, 16]),
    (24, 32, ContextOptions(length=24), [24]),
    (24, 16, ContextOptions(length=16), [16, 16]),
    (40, None, ContextOptions(length=32), [32, 32]),
]


@pytest.mark.parametrize(("frames", "limit", "context", "windows"), CONTEXTS)
def test_windows_that_are_used(frames, limit, context, windows):
    unet = Recorder(max_frames=limit)
    guidance = Guidance(scale=1.0)
    sample(unet, clip(frames), PROMPTS, context=context, guidance=guidance, steps=1)
    assert unet.windows == windows


def test_without_a_context_windows_are_no_longer_than_the_network_knows():
    unet = Recorder(max_frames=8)
    sample(unet, clip(20), PROMPTS, steps=1)
    assert max(unet.windows) <= 8


def test_falling_back_on_windows_is_told(caplog):
    with caplog.at_level(logging.INFO):
        sample(Recorder(max_frames=32), clip(40), PROMPTS, steps=1)
    assert [record.getMessage() for record in caplog.records] == [
        "40 frames are more than the motion module supports at once (32): using context windows "
        "of 16, overlapping by 4."
    ]


REFUSED = [
    ({"sampler": "fast"}, "sampler is 'fast'; it can be euler, euler_ancestral, heun, dpmpp_2m,"),
    ({"scheduler": "turbo"}, "scheduler is 'turbo'; it can be normal, karras, exponential,"),
    ({"steps": 0}, "steps is 0; it must be from 1 to 1000."),
    ({"denoise": -0.01}, "denoise is -0.01; it must be from 0 to 1."),
    ({"denoise": 1.5}, "denoise is 1.5; it must be from 0 to 1."),
    ({"denoise": math.nan}, "denoise is nan; it must be from 0 to 1."),
    (
        {"beta_schedule": "scaled_linear"},
        "beta_schedule is 'scaled_linear'; it can be autoselect, sqrt_linear, linear, lcm, linear ",
    ),
    ({"noise_type": "empty"}, "noise_type is 'empty'; it can be default, constant,"),
    ({"seed": -1}, "seed is -1; it must be from 0 to 18446744073709551615."),
    ({"seed": SEED.high + 1}, "seed is 18446744073709551616; it must be from 0 to"),
    (
        {"context": ContextOptions(length=33)},  # whatever the clip's length
        "context length is 33, but this motion module supports at most 32 frames at once: use 32 "
        "or less, 16 is usual.",
    ),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED)
def test_refused(values, sentence):
    unet = Recorder(max_frames=32)
    with pytest.raises(AnimateDiffV2VError) as caught:
        sample(unet, clip(40), PROMPTS, **values)
    assert sentence in str(caught.value)
    assert unet.windows == []


@pytest.mark.parametrize(
    "shape", [(4, 3, 2), (2, 3, 4, 4), (0, 4, 4, 4), (2, 4, 0, 4), (1, 4, 2, 4, 4)]
)
def test_latents_of_another_shape_are_refused(shape):
    with pytest.raises(AnimateDiffV2VError) as caught:
        sample(Recorder(), torch.zeros(shape), PROMPTS)
    assert str(caught.value) == (
        f"The latents have the shape {list(shape)}; Stable Diffusion 1.5 needs "
        "[frames, 4, height / 8, width / 8]."
    )


@pytest.mark.parametrize("denoise", [0, 0.0])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_denoise_0_gives_a_copy_of_the_input(sampler, denoise):
    unet, latents = Recorder(), clip(3)
    result = sample(unet, latents, PROMPTS, denoise=denoise, sampler=sampler)
    assert torch.equal(result, latents) and result is not latents
    assert unet.windows == []


@pytest.mark.parametrize("beta_schedule", ["linear", "sqrt_linear", "lcm"])
@pytest.mark.parametrize("chosen", ["autoselect", "linear", "sqrt_linear", "lcm"])
def test_the_network_sees_latents_and_noise_on_the_schedule_of_its_training(beta_schedule, chosen):
    """At the top of the schedule the noise has the deviation of the training's last step."""
    unet, latents = Recorder(beta_schedule=beta_schedule), clip(3)
    sample(unet, latents, PROMPTS, beta_schedule=chosen, steps=3)
    used = beta_schedule if chosen == "autoselect" else chosen
    sigma = NoiseSchedule(used).sigma_max
    noise = torch.randn(latents.shape, generator=torch.manual_seed(5))
    expected = noise + latents * SCALE / math.sqrt(1 + sigma**2)
    assert torch.allclose(unet.samples[0], expected, atol=1e-5)


def test_below_the_top_the_noise_is_that_of_the_level():
    unet, latents = Recorder(), clip(3)
    sample(unet, latents, PROMPTS, denoise=0.5, steps=5, scheduler="karras")
    schedule = NoiseSchedule("linear")
    high, low = schedule.sigma_max ** (1 / 7), schedule.sigma_min ** (1 / 7)
    sigma = (high + 5 / 9 * (low - high)) ** 7
    noise = torch.randn(latents.shape, generator=torch.manual_seed(5))
    expected = (latents * SCALE + sigma * noise) / math.sqrt(1 + sigma**2)
    assert torch.allclose(unet.samples[0], expected, atol=1e-4)


JOBS = {
    "euler": {},
    "windows": {"context": SMALL_WINDOWS},
    "uniform windows": {
        "context": ContextOptions(length=4, overlap=1, schedule="looped_uniform"),
        "sampler": "heun",
    },
    "ancestral": {"sampler": "euler_ancestral", "guidance": Guidance(scale=1.0)},
    "sde": {"sampler": "dpmpp_2m_sde", "scheduler": "karras", "denoise": 0.6},
    "cfg++": {"sampler": "res_multistep_ancestral_cfg_pp", "guidance": Guidance(scale=1.0)},
    "unipc": {"sampler": "uni_pc", "steps": 3, "guidance": Guidance(scale=5.0, end=0.5)},
    "lcm": {"sampler": "lcm", "beta_schedule": "lcm", "noise_type": "FreeNoise"},
    "odd size": {"latents": clip(6, height=5, width=3)},
}


def run_job(unet, conditioning, job, **options):
    values = {"latents": clip(6)} | JOBS[job] | options
    return sample(unet, values.pop("latents"), conditioning, **values)


@pytest.fixture(scope="module")
def unets(models, v1_unet):
    return {"v2": models.unet, "v1": v1_unet}


@pytest.mark.parametrize(
    ("family", "job"), [*(("v2", job) for job in JOBS), ("v1", "windows"), ("v1", "odd size")]
)
def test_bits_do_not_depend_on_what_ran_before(family, job, unets, conditioning):
    unet = unets[family]
    first = run_job(unet, conditioning, job)
    assert bool(torch.isfinite(first).all())
    torch.manual_seed(1234)
    state = torch.get_rng_state()
    for other in ("windows", "ancestral"):
        run_job(unet, conditioning, other, seed=77, steps=1)
    assert torch.equal(run_job(unet, conditioning, job), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(run_job(unet, conditioning, job, seed=6), first, atol=1e-3)


@pytest.mark.parametrize("job", ["windows", "sde"])
@pytest.mark.parametrize("size", [1, 3])
def test_bits_do_not_depend_on_the_sizes_of_passes(job, size, models, conditioning, monkeypatch):
    first = run_job(models.unet, conditioning, job)
    monkeypatch.setattr(memory, "PASSES_AT_ONCE", size)
    monkeypatch.setattr(latent_codec, "FRAMES_PER_PASS", size)
    assert torch.equal(run_job(models.unet, conditioning, job), first)


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("tokens", [1, 40, 512])
def test_bits_do_not_depend_on_how_many_tokens_go_together(job, tokens, models, conditioning):
    few = ChunkSizes(passes=2, tokens=tokens)
    ours = run_job(models.unet, conditioning, job, chunks=few)
    assert torch.equal(ours, run_job(models.unet, conditioning, job))


@pytest.mark.parametrize(
    ("family", "job", "asked_before"),
    [("v2", "windows", 0), ("v2", "windows", 5), ("v2", "sde", 1), ("v1", "windows", 3)],
)
def test_a_cancelled_job_leaves_nothing_behind(family, job, asked_before, unets, conditioning):
    unet = unets[family]
    first = run_job(unet, conditioning, job)
    left = iter(range(asked_before))
    with pytest.raises(Cancelled, match="The job was cancelled"):
        run_job(unet, conditioning, job, seed=9, is_cancelled=lambda: next(left, None) is None)
    assert torch.equal(run_job(unet, conditioning, job), first)


def test_an_error_in_the_middle_leaves_nothing_behind(models, conditioning):
    first = run_job(models.unet, conditioning, "windows")

    def fail(_progress):
        raise KeyError("a host's mistake")

    with pytest.raises(KeyError, match="a host's mistake"):
        run_job(models.unet, conditioning, "windows", progress=fail)
    assert torch.equal(run_job(models.unet, conditioning, "windows"), first)


def test_inputs_are_left_alone(models, conditioning):
    latents = clip(6)
    before = latents.clone(), conditioning.positive.encodings.clone()
    sample(models.unet, latents, conditioning)
    assert torch.equal(latents, before[0])
    assert torch.equal(conditioning.positive.encodings, before[1])


def test_without_a_motion_module_frames_are_independent(still_models, conditioning):
    """Each frame comes out as if it were alone, with its own noise."""
    latents = clip(20)
    together = sample(still_models.unet, latents, conditioning)
    windows = sample(still_models.unet, latents, conditioning, context=SMALL_WINDOWS)
    assert torch.allclose(windows, together, rtol=1e-3, atol=1e-3)


def test_guidance_0_is_the_negative_prompt_alone(models, conditioning):
    swapped = Conditioning(conditioning.negative, conditioning.positive)
    ours = sample(models.unet, clip(4), conditioning, guidance=Guidance(scale=0.0))
    expected = sample(models.unet, clip(4), swapped, guidance=Guidance(scale=1.0))
    assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_sde", "uni_pc"])
def test_progress_rises_to_1_with_a_preview_after_each_call(sampler):
    told = []
    sample(
        Recorder(max_frames=16), clip(20), PROMPTS, sampler=sampler, steps=3, progress=told.append
    )
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1)
    assert {progress.phase for progress in told} == {"sample"}
    assert told[0].message == "sampling step 1 of 3" and told[-1].message == "sampling step 3 of 3"
    previews = [progress.preview for progress in told if progress.preview is not None]
    assert len(previews) == SAMPLERS[sampler].model_calls(3)
    assert all(preview.shape == (20, 4, 3, 2) for preview in previews)


def test_half_precision_latents_are_sampled_in_float32(models, conditioning):
    latents = clip(4).half()
    result = sample(models.unet, latents, conditioning)
    assert result.dtype == torch.float32
    assert torch.equal(result, sample(models.unet, latents.float(), conditioning))


def test_a_network_that_runs_out_of_memory_for_one_window_is_a_sentence():
    def out_of_memory(*_arguments, **_others):
        raise torch.OutOfMemoryError("out of memory")

    unet = SimpleNamespace(
        device=torch.device("cpu"),
        dtype=torch.float32,
        max_frames=16,
        beta_schedule="linear",
        parameterization=PREDICTS_NOISE,
    )
    broken = type("Broken", (SimpleNamespace,), {"__call__": staticmethod(out_of_memory)})
    with pytest.raises(AnimateDiffV2VError, match="too little memory for one of the passes of the"):
        sample(broken(**vars(unet)), clip(4), PROMPTS)
