"""Samplers: ComfyUI's numbers, the order of convergence, and the spread of what they draw.

If the data are normal with standard deviation s, everything is known: the best denoiser is
x * s^2 / (s^2 + sigma^2), the probability-flow ODE (Song et al. 2021, arXiv 2011.13456) carries x
from one level to another by the ratio of sqrt(s^2 + sigma^2), and samples have the deviation s.
"""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from animatediff_v2v.pipeline.sampling.denoise import DenoiseBoth
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.samplers import SAMPLERS
from animatediff_v2v.pipeline.sampling.schedulers import sampling_sigmas

GOLDEN = json.loads((Path(__file__).parent / "golden" / "samplers.json").read_text("utf-8"))
SCHEDULE = NoiseSchedule("sqrt_linear")
STOCHASTIC = [
    *(
        "euler_ancestral",
        "dpmpp_sde",
        "dpmpp_2m_sde",
        "lcm",
        "tcd",
        "ddpm",
        "euler_ancestral_cfg_pp",
    ),
    *("dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde_gpu"),
    *("dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu", "dpmpp_3m_sde"),
    *("dpmpp_3m_sde_gpu", "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp", "er_sde"),
    *("seeds_2", "seeds_3", "exp_heun_2_x0_sde", "sa_solver", "sa_solver_pece"),
]
# The names in `_gpu` are other names for the same samplers.
DISTINCT = [name for name in SAMPLERS if not name.endswith("_gpu")]
DEVIATION = 0.7


class Both:
    """A model whose unconditional prediction is its own unless another one is given."""

    def __init__(self, denoise, unconditional=None):
        self._denoise, self._other = denoise, unconditional
        self._latest = None

    def __call__(self, noisy, sigma, step):
        result = self._denoise(noisy, sigma, step)
        self._latest = self._other(noisy, sigma) if self._other else result
        return result

    def keep_unconditional(self):
        pass

    def unconditional(self):
        return self._latest


def run(name, denoise, latents, sigmas, *, seed=0, unconditional=None):
    spec, model = SAMPLERS[name], Both(denoise, unconditional)
    noise = spec.step_noise(latents, seed, sigmas)
    return spec.run(DenoiseBoth(model, model), latents, sigmas, noise, SCHEDULE)


def wavy(noisy, sigma, _step):
    """Denoise with the function that made the golden numbers."""
    return torch.tanh(noisy) / (1 + 0.1 * sigma) + 0.05 * torch.sin(3 * noisy / (1 + sigma))


def flat(noisy, sigma):
    """The unconditional prediction beside it."""
    return 0.9 * torch.tanh(noisy) / (1 + 0.1 * sigma)


@pytest.mark.parametrize("case", GOLDEN["results"])
def test_golden(case):
    name, scheduler, steps, denoise, seed = case.split()
    elements, norm, calls = GOLDEN["results"][case]
    sigmas = sampling_sigmas(
        SCHEDULE,
        scheduler=scheduler,
        steps=int(steps),
        denoise=float(denoise),
        skip_penultimate=SAMPLERS[name].skip_penultimate,
    )
    start = torch.randn(3, 4, 2, 3, generator=torch.Generator().manual_seed(99))
    asked = []

    def denoised(noisy, sigma, step):
        asked.append(step)
        return wavy(noisy, sigma, step)

    noisy = start * float(sigmas[0])
    result = run(name, denoised, noisy, sigmas, seed=int(seed), unconditional=flat)

    assert result.flatten()[[0, 13, 40, 71]].tolist() == pytest.approx(elements, abs=1e-4)
    assert float(result.norm()) == pytest.approx(norm, rel=1e-4)
    assert len(asked) == calls and asked == sorted(asked)
    expected = SAMPLERS[name].model_calls(int(steps))
    if expected is not None:
        assert calls == expected and asked[-1] == int(steps) - 1


def test_the_names_in_gpu_are_other_names():
    for name in set(SAMPLERS) - set(DISTINCT):
        assert SAMPLERS[name] is SAMPLERS[name.removesuffix("_gpu")]


def best_denoiser(noisy, sigma, _step):
    return noisy * DEVIATION**2 / (DEVIATION**2 + sigma**2)


def exact(latents, sigma, sigma_end):
    return latents * ((DEVIATION**2 + sigma_end**2) / (DEVIATION**2 + sigma**2)).sqrt()


def order_of_convergence(name, *, last):
    """Return how often the error halves when the steps double, down a schedule to level `last`."""
    latents = torch.randn(2, 4, 2, 2, dtype=torch.float64) * 10
    errors = []
    for steps in (40, 80):
        sigmas = torch.logspace(1, math.log10(last), steps + 1, dtype=torch.float64)
        result = run(name, best_denoiser, latents, sigmas)
        errors.append(float((result - exact(latents, sigmas[0], sigmas[-1])).abs().max()))
    return math.log2(errors[0] / errors[1])


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("euler", 0.9, 1.1),
        ("ddim", 0.9, 1.1),
        ("heun", 1.85, 2.3),
        ("dpmpp_2m", 1.85, 2.3),
        ("uni_pc", 2.0, 4.5),
        ("uni_pc_bh2", 2.0, 4.5),
        # Its weights are those of a first-order method.
        ("heunpp2", 0.9, 1.1),
        ("exp_heun_2_x0", 1.85, 2.3),
        ("dpm_2", 1.85, 2.3),
        ("lms", 2.9, 4.5),
        ("dpm_fast", 2.9, 5.0),
        ("deis", 2.5, 3.5),
        # Weights of even steps, on steps that are not.
        ("ipndm", 1.85, 2.3),
        ("ipndm_v", 2.3, 3.0),
        ("res_multistep", 1.85, 2.3),
        ("gradient_estimation", 0.85, 1.1),
        ("euler_cfg_pp", 0.9, 1.1),
        ("dpmpp_2m_cfg_pp", 1.85, 2.3),
        ("res_multistep_cfg_pp", 1.85, 2.3),
        ("gradient_estimation_cfg_pp", 0.85, 1.1),
    ],
)
def test_order_of_convergence(name, low, high):
    assert low < order_of_convergence(name, last=0.05) < high


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in STOCHASTIC])
def test_deterministic_samplers_arrive_at_the_exact_solution(name):
    sigmas = sampling_sigmas(SCHEDULE, scheduler="karras", steps=200).double()
    latents = torch.randn(2, 4, 2, 2, dtype=torch.float64) * sigmas[0]
    result = run(name, best_denoiser, latents, sigmas)
    assert torch.allclose(result, exact(latents, sigmas[0], torch.zeros(())), rtol=0.05, atol=0.01)
    assert torch.equal(result, run(name, best_denoiser, latents, sigmas, seed=1))


def test_the_adaptive_solver_takes_the_steps_that_it_needs():
    latents = torch.randn(2, 4, 2, 2, dtype=torch.float64) * 10
    calls = []
    for levels in ([10.0, 0.05, 0.0], [10.0, 5.0, 1.0, 0.2, 0.05, 0.0]):
        asked = []

        def denoise(noisy, sigma, step, asked=asked):
            asked.append(float(sigma))
            return best_denoiser(noisy, sigma, step)

        sigmas = torch.tensor(levels, dtype=torch.float64)
        result = run("dpm_adaptive", denoise, latents, sigmas)
        assert torch.allclose(result, exact(latents, sigmas[0], sigmas[-2]), rtol=0.06, atol=0.01)
        calls.append(asked)
    assert calls[0] == calls[1] and len(calls[0]) % 3 == 0 and min(calls[0]) > 0.05


def test_cfg_pp_adds_the_noise_of_the_unconditional_prediction():
    """Algorithm 2 of arXiv 2406.08070 as it stands there: signals scaled to unit variance."""
    clean, unconditional, noisy = torch.randn(3, 2, 4, 3, 3, dtype=torch.float64)
    here, there = SCHEDULE.sigmas[700].double(), SCHEDULE.sigmas[401].double()
    share, share_there = 1 / (1 + here**2), 1 / (1 + there**2)
    noise = (noisy * share.sqrt() - share.sqrt() * unconditional) / (1 - share).sqrt()
    expected = share_there.sqrt() * clean + (1 - share_there).sqrt() * noise

    result = run(
        "euler_cfg_pp",
        lambda *_: clean,
        noisy,
        torch.stack([here, there]),
        unconditional=lambda *_: unconditional,
    )

    assert torch.allclose(result * share_there.sqrt(), expected)


def test_cfg_pp_needs_both_predictions():
    sigmas = sampling_sigmas(SCHEDULE, scheduler="normal", steps=2)
    with pytest.raises(TypeError, match="DenoiseBoth"):
        SAMPLERS["euler_cfg_pp"].run(wavy, torch.ones(1, 4, 2, 2), sigmas, None, SCHEDULE)


def consistency_function(noisy, sigma, _step):
    """Return the end of the ODE from here, as a consistency model learns it (arXiv 2303.01469)."""
    return exact(noisy, sigma, torch.zeros(()))


def spread(name, denoise, sigmas):
    """Return the standard deviation of many samples."""
    start = torch.randn(16, 4, 20, 20, generator=torch.Generator().manual_seed(3))
    start = start * (sigmas[0] ** 2 + DEVIATION**2).sqrt()
    result = run(name, denoise, start, sigmas, seed=11)
    assert float(result.mean()) == pytest.approx(0, abs=0.02)
    return float(result.std())


@pytest.mark.parametrize(
    ("name", "denoise", "steps"),
    [
        ("euler_ancestral", best_denoiser, 640),  # of first order: wants many steps
        ("dpmpp_sde", best_denoiser, 60),
        ("dpmpp_2m_sde", best_denoiser, 100),
        ("ddpm", best_denoiser, 640),
        ("dpm_2_ancestral", best_denoiser, 60),
        ("dpmpp_2s_ancestral", best_denoiser, 60),
        ("res_multistep_ancestral", best_denoiser, 60),
        ("er_sde", best_denoiser, 60),
        ("seeds_2", best_denoiser, 60),
        ("seeds_3", best_denoiser, 20),
        ("exp_heun_2_x0_sde", best_denoiser, 60),
        ("sa_solver", best_denoiser, 20),
        ("sa_solver_pece", best_denoiser, 20),
        # Consistency models are exact in any number of steps.
        ("lcm", consistency_function, 1),
        ("lcm", consistency_function, 4),
        ("lcm", consistency_function, 50),
    ],
)
def test_samples_have_the_deviation_of_the_data(name, denoise, steps):
    sigmas = sampling_sigmas(SCHEDULE, scheduler="karras", steps=steps)
    assert spread(name, denoise, sigmas) == pytest.approx(DEVIATION, rel=0.02)


def tcd_level(sigma_next, gamma=0.3):
    """Return the level that TCD goes down to before it adds noise: that of floor((1 - gamma) t)."""
    step = int((SCHEDULE.sigmas - sigma_next).abs().argmin())
    return float(SCHEDULE.sigmas[math.floor((1 - gamma) * step)])


def test_tcd_is_the_paper_s_step():
    """Algorithm 4 of arXiv 2402.19159 as it stands there: signals scaled to unit variance."""
    clean, noisy, fresh = torch.randn(3, 2, 4, 3, 3, dtype=torch.float64)
    here, there = SCHEDULE.sigmas[700].double(), SCHEDULE.sigmas[401].double()
    share = 1 / (1 + there**2)  # alpha bar of the paper at the target
    below = tcd_level(float(there))
    share_below = torch.tensor(1 / (1 + below**2), dtype=torch.float64)
    noise = (noisy - clean) / here
    lower = share_below.sqrt() * clean + (1 - share_below).sqrt() * noise
    kept = share / share_below
    expected = kept.sqrt() * lower + (1 - kept).sqrt() * fresh

    sigmas = torch.stack([here, there])
    result = SAMPLERS["tcd"].run(
        lambda *_: clean, noisy, sigmas, lambda *_: fresh, SCHEDULE
    ) * share.sqrt()  # fmt: skip

    assert torch.allclose(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_tcd_s_samples_have_the_deviation_that_follows_from_its_steps(steps):
    """Each step is linear here, so variances go through it by hand."""
    sigmas = sampling_sigmas(SCHEDULE, scheduler="sgm_uniform", steps=steps)
    levels = sigmas.tolist()
    variance = DEVIATION**2 + levels[0] ** 2
    for sigma, sigma_next in pairwise(levels):
        kept = DEVIATION**2 / (DEVIATION**2 + sigma**2)
        down = min(tcd_level(sigma_next), sigma_next) if sigma_next else 0.0
        factor = kept + (1 - kept) * down / sigma
        variance = factor**2 * variance + sigma_next**2 - down**2
    assert spread("tcd", best_denoiser, sigmas) == pytest.approx(variance**0.5, rel=0.02)


@pytest.mark.parametrize("name", [name for name in DISTINCT if name in STOCHASTIC])
def test_a_seed_repeats_and_another_one_differs(name):
    sigmas = sampling_sigmas(SCHEDULE, scheduler="normal", steps=5)
    latents = torch.randn(2, 4, 3, 3) * sigmas[0]
    first = run(name, wavy, latents, sigmas, seed=8)
    torch.randn(7)
    assert torch.equal(run(name, wavy, latents, sigmas, seed=8), first)
    other = run(name, wavy, latents, sigmas, seed=9)
    assert not torch.allclose(other, first, atol=1e-2)


@pytest.mark.parametrize("name", DISTINCT)
def test_samplers_leave_what_they_are_given_alone(name):
    sigmas = sampling_sigmas(SCHEDULE, scheduler="normal", steps=4)
    latents = torch.randn(2, 4, 3, 3)
    before, levels, state = latents.clone(), sigmas.clone(), torch.get_rng_state()
    run(name, wavy, latents, sigmas)
    assert torch.equal(latents, before) and torch.equal(sigmas, levels)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", DISTINCT)
def test_one_step_is_what_the_model_says(name):
    sigmas = sampling_sigmas(SCHEDULE, scheduler="normal", steps=1)
    latents = torch.randn(2, 4, 3, 3) * sigmas[0]
    expected = wavy(latents, sigmas[0], 0)
    assert torch.allclose(run(name, wavy, latents, sigmas), expected, atol=1e-5)


# `simple` repeats levels when it is asked for more steps than the table has levels.
@pytest.mark.parametrize("name", DISTINCT)
def test_more_steps_than_levels(name):
    """AnimateLCM's 50 levels at the default of 25 steps and a denoise of 0.4."""
    sigmas = sampling_sigmas(
        NoiseSchedule("lcm"),
        scheduler="simple",
        steps=25,
        denoise=0.4,
        skip_penultimate=SAMPLERS[name].skip_penultimate,
    )
    latents = torch.randn(2, 4, 3, 3) * sigmas[0]
    assert bool(torch.isfinite(run(name, wavy, latents, sigmas)).all())


@pytest.mark.parametrize("name", DISTINCT)
@pytest.mark.parametrize("scheduler", ["normal", "karras", "exponential", "sgm_uniform", "beta"])
def test_every_schedule_ends_in_numbers(name, scheduler):
    jobs = (("lcm", 8, 1.0), ("linear", 3, 0.3), ("lcm", 25, 0.4))
    for beta_schedule, steps, denoise in jobs[: 2 if SAMPLERS[name].brownian else 3]:
        sigmas = sampling_sigmas(
            NoiseSchedule(beta_schedule),
            scheduler=scheduler,
            steps=steps,
            denoise=denoise,
            skip_penultimate=SAMPLERS[name].skip_penultimate,
        )
        latents = torch.randn(2, 4, 2, 2) * sigmas[0]
        assert bool(torch.isfinite(run(name, wavy, latents, sigmas)).all())
