"""Samplers and noise levels from elsewhere take the place of those that the settings name."""

from __future__ import annotations

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.models.unet import PREDICTS_NOISE
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    CustomSampling,
    Guidance,
    SourceBlend,
)
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.schedulers import sampling_sigmas

from . import sampled

SOURCE = torch.randn(5, 4, 4, 6, generator=torch.Generator().manual_seed(0)) * 4
PROMPTS = Conditioning.of(torch.full((1, 7, 2), 0.3), torch.full((1, 7, 2), -0.2))
SCHEDULE = NoiseSchedule("linear")


class Smooth:
    """A network whose noise is a smooth function of its input and the prompt."""

    device, dtype, max_frames, beta_schedule = torch.device("cpu"), torch.float32, 32, "linear"
    parameterization = PREDICTS_NOISE

    def __init__(self):
        self.calls = 0

    def __call__(self, sample, timestep, context, num_frames, **_others):
        self.calls += 1
        each_row = context.repeat_interleave(len(sample) // len(context), dim=0)
        prompt = each_row.mean(dim=(1, 2)).view(-1, 1, 1, 1)
        return sample * (0.2 + 0.7 * float(timestep) / 999) + 0.2 * prompt


def euler(model, *, source, noise, sigmas, schedule, settings):
    """Euler's method as another package may write it."""
    assert settings.seed == 3
    latents = schedule.noised(source, noise, sigmas[0])
    for step in range(len(sigmas) - 1):
        denoised = model(latents, sigmas[step], step)
        latents = torch.lerp(denoised, latents, sigmas[step + 1] / sigmas[step])
    return latents


def sample(unet=None, **options):
    defaults = {"seed": 3, "steps": 6, "guidance": Guidance(scale=3.0), "denoise": 0.7}
    return sampled.sample(unet or Smooth(), SOURCE, PROMPTS, **defaults | options)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "uni_pc", "euler_cfg_pp", "seeds_2"])
def test_sigmas_replace_steps_scheduler_and_denoise(sampler):
    sigmas = sampling_sigmas(
        SCHEDULE,
        scheduler="karras",
        steps=6,
        denoise=0.7,
        skip_penultimate=sampler == "uni_pc",
    )
    named = sample(sampler=sampler, scheduler="karras")
    custom = CustomSampling(sigmas=sigmas.double())
    given = sample(sampler=sampler, custom=custom, steps=50, scheduler="simple", denoise=0.1)
    assert torch.equal(given, named)


@pytest.mark.parametrize("noise_type", ["default", "constant", "unsample"])
@pytest.mark.parametrize("denoise", [1.0, 0.6])
@pytest.mark.parametrize("mask", [None, torch.ones(1, 32, 48).tril()])
def test_a_sampler_replaces_the_named_one(noise_type, denoise, mask):
    options = {"noise_type": noise_type, "denoise": denoise, "scheduler": "karras"}
    options["source_blend"] = SourceBlend(mask=mask)
    named = sample(sampler="euler", **options)
    given = sample(custom=CustomSampling(sampler=euler), sampler="euler", **options)
    assert torch.allclose(given, named, rtol=1e-4, atol=1e-4)


def test_a_sampler_has_all_levels_of_the_scheduler():
    seen = []

    def look(_model, *, source, sigmas, **_others):
        seen.append(sigmas)
        return source

    result = sample(custom=CustomSampling(sampler=look), sampler="uni_pc", denoise=1.0)
    assert torch.equal(seen[0], sampling_sigmas(SCHEDULE, scheduler="normal", steps=6))
    assert torch.allclose(result, SOURCE, atol=1e-5)


def test_no_sigmas_return_the_source():
    unet = Smooth()
    assert torch.equal(sample(unet, custom=CustomSampling(sigmas=torch.empty(0))), SOURCE)
    assert unet.calls == 0


def test_progress_of_a_sampler_follows_the_noise_level():
    told = []
    custom = CustomSampling(sampler=euler, sigmas=torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0]))
    sample(custom=custom, progress=told.append)
    fractions = [each.fraction for each in told if each.preview is not None]
    assert fractions == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert told[-1].message == "sampling call 4"


def test_the_unconditional_prediction_is_there_for_those_who_ask():
    def ask(model, *, source, noise, sigmas, schedule, **_others):
        model.keep_unconditional()
        noisy = schedule.noised(source, noise, sigmas[0])
        guided = model(noisy, sigmas[0], 0)
        assert not torch.allclose(guided, model.unconditional())
        return guided

    sample(custom=CustomSampling(sampler=ask))


REFUSED = {
    "one level": ([3.0], "hold one noise level; sampling needs two or more, the last usually 0."),
    "a table": ([[3.0, 0.0]], "have the shape [1, 2]; they must be a list of noise levels."),
    "rising": ([0.5, 1.0, 3.0], "(0.5, 1, 3, …) must start above 0 and never rise."),
    "nothing": ([0.0, 0.0], "(0, 0, …) must start above 0 and never rise."),
    "negative": ([3.0, -1.0], "(3, -1, …) must be finite numbers that are not below 0."),
    "infinite": ([float("inf"), 1.0], "must be finite numbers"),
    "not a number": ([float("nan"), 1.0], "must be finite numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    levels, sentence = REFUSED[case]
    with pytest.raises(AnimateDiffV2VError) as caught:
        CustomSampling(sigmas=torch.tensor(levels))
    assert sentence in str(caught.value)


def test_the_number_of_steps():
    counts = [
        CustomSampling(sigmas=levels).steps
        for levels in (None, torch.empty(0), torch.tensor([2.0, 1.0, 0.0]))
    ]
    assert counts == [0, 0, 2]
