"""Noise levels: ComfyUI's, number by number, and what must hold for any of them."""

import json
import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.models.unet import BetaSchedule
from animatediff_v2v.pipeline.sampling import BetaScheduleChoice, Scheduler
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.schedulers import sampling_sigmas
from hypothesis import given
from hypothesis import strategies as st

GOLDEN = json.loads((Path(__file__).parent / "golden" / "sigmas.json").read_text("utf-8"))
SCHEDULES = get_args(BetaSchedule)
SCHEDULERS = get_args(Scheduler)


@pytest.mark.parametrize("case", GOLDEN["sigmas"])
def test_golden(case):
    beta_schedule, scheduler, sampler, steps, denoise = case.rsplit(maxsplit=4)
    sigmas = sampling_sigmas(
        NoiseSchedule(beta_schedule),
        scheduler=scheduler,
        steps=int(steps),
        denoise=float(denoise),
        skip_penultimate=sampler == "uni_pc",
    )
    assert sigmas.tolist() == pytest.approx(GOLDEN["sigmas"][case], rel=1e-5, abs=0)


levels = st.sampled_from(SCHEDULES).map(NoiseSchedule)


@given(
    levels,
    st.sampled_from(SCHEDULERS),
    st.integers(1, 60),
    st.floats(0.01, 1.0),
    st.booleans(),
)
def test_levels_fall_to_zero(schedule, scheduler, steps, denoise, skip_penultimate):
    sigmas = sampling_sigmas(
        schedule,
        scheduler=scheduler,
        steps=steps,
        denoise=denoise,
        skip_penultimate=skip_penultimate,
    )
    assert sigmas.dtype == torch.float32 and len(sigmas) >= 2
    assert bool(torch.isfinite(sigmas).all())
    assert bool((sigmas[1:] <= sigmas[:-1]).all())
    assert float(sigmas[-1]) == 0 < float(sigmas[-2])
    assert float(sigmas[0]) <= schedule.sigma_max * (1 + 1e-5)
    if scheduler != "ddim_uniform":
        assert len(sigmas) <= steps + 1


def test_align_your_steps_are_the_published_levels_in_the_schedules_own_range():
    """On Stable Diffusion's schedule, whose range they were made for, they are the table's."""
    published = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]
    sd15, animatediff = (NoiseSchedule(name) for name in ("linear", "sqrt_linear"))
    levels = sampling_sigmas(sd15, scheduler="align_your_steps", steps=10)
    assert levels.tolist() == pytest.approx(published, rel=0.02)
    mapped = sampling_sigmas(animatediff, scheduler="align_your_steps", steps=10)
    assert float(mapped[0]) == pytest.approx(animatediff.sigma_max, rel=1e-5)
    twice = sampling_sigmas(animatediff, scheduler="align_your_steps", steps=20)
    assert torch.allclose(twice[::2], mapped)


@pytest.mark.parametrize("denoise", [0, 0.0, -0.0])
def test_denoise_0_is_an_empty_schedule(denoise):
    schedule = NoiseSchedule("linear")
    assert len(sampling_sigmas(schedule, scheduler="normal", steps=20, denoise=denoise)) == 0


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_denoise_is_the_end_of_a_longer_schedule(scheduler):
    schedule = NoiseSchedule("sqrt_linear")
    part = sampling_sigmas(schedule, scheduler=scheduler, steps=10, denoise=0.4)
    whole = sampling_sigmas(schedule, scheduler=scheduler, steps=25)
    assert torch.equal(part, whole[-11:])


def test_a_denoise_next_to_1_is_1():
    schedule = NoiseSchedule("linear")
    whole = sampling_sigmas(schedule, scheduler="karras", steps=9)
    nearly = sampling_sigmas(schedule, scheduler="karras", steps=9, denoise=0.99995)
    assert torch.equal(whole, nearly)


REFUSED = [
    ({"scheduler": "polyexponential"}, "scheduler is 'polyexponential'; it can be normal, karras,"),
    ({"steps": 0}, "steps is 0; it must be from 1 to 1000."),
    ({"steps": -3}, "steps is -3; it must be from 1 to 1000."),
    ({"denoise": -0.1}, "denoise is -0.1; it must be from 0 to 1."),
    ({"denoise": 1.01}, "denoise is 1.01; it must be from 0 to 1."),
    ({"denoise": math.nan}, "denoise is nan; it must be from 0 to 1."),
    ({"denoise": math.inf}, "denoise is inf; it must be from 0 to 1."),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED)
def test_refused(values, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        sampling_sigmas(
            NoiseSchedule("linear"), **{"scheduler": "normal", "steps": 20, "denoise": 1.0} | values
        )
    assert sentence in str(caught.value)


def test_the_smallest_denoise_there_is():
    schedule = NoiseSchedule("linear")
    sigmas = sampling_sigmas(schedule, scheduler="simple", steps=2, denoise=5e-324)
    assert sigmas.tolist() == pytest.approx([schedule.sigma_min, schedule.sigma_min, 0.0])


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_step_starts_at_a_level(scheduler, schedule):
    """One step is enough for every scheduler; ComfyUI's kl_optimal divides by 0."""
    sigmas = sampling_sigmas(NoiseSchedule(schedule), scheduler=scheduler, steps=1)
    assert bool(torch.isfinite(sigmas).all()) and float(sigmas[0]) > float(sigmas[-1]) == 0


def test_an_unknown_beta_schedule_is_refused():
    with pytest.raises(
        AnimateDiffV2VError,
        match="beta_schedule is 'squaredcos'; it can be sqrt_linear, linear, lcm",
    ):
        NoiseSchedule("squaredcos")


def test_every_beta_schedule_can_be_chosen():
    assert get_args(BetaScheduleChoice) == ("autoselect", *SCHEDULES)


def test_sigmas_of_stable_diffusion_and_animatediff():
    """The ends of ComfyUI's tables; AnimateLCM knows every twentieth level of the first."""
    ends = {
        name: (NoiseSchedule(name).sigma_min, NoiseSchedule(name).sigma_max)
        for name in ("linear", "sqrt_linear", "lcm")
    }
    assert ends["linear"] == pytest.approx((0.029167, 14.614642), rel=1e-5)
    assert ends["sqrt_linear"] == pytest.approx((0.029167, 25.146112), rel=1e-5)
    assert ends["lcm"] == pytest.approx((0.134451, 14.614642), rel=1e-5)
    linear = NoiseSchedule("linear").sigmas
    assert torch.equal(NoiseSchedule("lcm").sigmas, linear[19::20])


@pytest.mark.parametrize("name", SCHEDULES)
def test_timesteps_and_sigmas_are_inverse(name):
    schedule = NoiseSchedule(name)
    for sigma in schedule.sigmas[:: max(1, len(schedule.sigmas) // 25)]:
        timestep = schedule.timestep(sigma)
        assert timestep.dtype == torch.int64 and timestep.shape == (1,)
        assert float(schedule.sigma(timestep)) == pytest.approx(float(sigma), rel=1e-5)


@given(st.sampled_from(SCHEDULES), st.floats(0, 1))
def test_shares_and_levels_are_inverse(name, share):
    schedule = NoiseSchedule(name)
    sigma = schedule.sigma_at(share)
    found = schedule.share_at(torch.tensor(sigma))
    is_above = sigma > schedule.sigma_min * (1 + 1e-6)
    # The lowest level of a distilled model is that of several shares, of which it is the last.
    assert found == (pytest.approx(share, abs=1e-6) if is_above else 1.0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_levels_beyond_the_ends_have_the_shares_of_the_ends(name):
    schedule = NoiseSchedule(name)
    for sigma, share in ((0.0, 1.0), (1e-9, 1.0), (1e30, 0.0), (schedule.sigma_max, 0.0)):
        assert schedule.share_at(torch.tensor(sigma)) == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("sigma", "end"), [(1e-9, 0), (1e30, -1)])
def test_levels_beyond_the_table_take_its_ends(name, sigma, end):
    schedule = NoiseSchedule(name)
    timestep = schedule.timestep(torch.tensor(sigma))
    assert float(schedule.sigma(timestep)) == pytest.approx(float(schedule.sigmas[end]), rel=1e-5)


def test_levels_between_two_steps_are_taken_by_their_logarithm():
    schedule = NoiseSchedule("linear")
    below, above = schedule.sigmas[100], schedule.sigmas[101]
    between = schedule.sigma(torch.tensor([100.25]))
    assert float(between) == pytest.approx(float(below) ** 0.75 * float(above) ** 0.25, rel=1e-5)


@pytest.mark.parametrize("name", ["linear", "sqrt_linear"])
def test_the_true_noise_gives_the_clean_latents_back(name):
    clean, noise = torch.randn(2, 3, 4, 2, 2)
    sigma = torch.tensor(3.3)
    denoised = NoiseSchedule(name).denoised(clean + noise * sigma, noise, sigma)
    assert torch.allclose(denoised, clean, atol=1e-5)


def test_lcm_mixes_in_what_it_was_given():
    """Appendix of arXiv 2310.04378, with sigma_data 0.5 and time in tenths."""
    schedule = NoiseSchedule("lcm")
    noisy, noise = torch.randn(2, 3, 4, 2, 2)
    for index in (0, 3, 49):
        sigma, time = schedule.sigmas[index], 10 * (19 + 20 * index)
        skip = 0.5**2 / (time**2 + 0.5**2)
        out = time / math.sqrt(time**2 + 0.5**2)
        expected = out * (noisy - sigma * noise) + skip * noisy
        assert torch.allclose(schedule.denoised(noisy, noise, sigma), expected, atol=1e-6)
