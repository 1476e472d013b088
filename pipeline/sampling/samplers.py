"""The samplers: algorithms that lead from noise to latents along a list of noise levels.

Names and results are ComfyUI's (which runs k-diffusion's and UniPC's algorithms); each is written
from its paper. All work on latents plus noise of standard deviation sigma.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .denoise import Denoise
from .names import Sampler
from .noise_schedule import NoiseSchedule
from .step_noise import StepNoise, brownian_noise, independent_noise
from .unipc import sample_uni_pc

# Share of a step's noise that TCD draws anew (gamma in the paper); its authors' default.
TCD_GAMMA = 0.3


@dataclass(frozen=True)
class SamplerSpec:
    """A sampler, and what is needed to run it."""

    run: Callable[[Denoise, Tensor, Tensor, StepNoise, NoiseSchedule], Tensor]
    # True if the noise of its steps follows one Brownian path.
    brownian: bool = False
    # True if it calls the model twice in every step except the last.
    two_calls: bool = False
    # True if ComfyUI runs it without the lowest noise level above 0.
    skip_penultimate: bool = False

    def model_calls(self, steps: int) -> int:
        """Return how often the model is called in `steps` steps."""
        return 2 * steps - 1 if self.two_calls else steps

    def step_noise(self, like: Tensor, seed: int, sigmas: Tensor) -> StepNoise:
        """Return the noise for its steps, in the shape of `like`."""
        if self.brownian:
            return brownian_noise(like, seed, sigmas)
        return independent_noise(like, seed)


def _euler(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run Euler's method: algorithm 2 of Karras et al. 2022 (arXiv 2206.00364), no churn."""
    for step, (sigma, sigma_next) in _steps(sigmas):
        slope = (latents - denoise(latents, sigma, step)) / sigma
        latents = latents + slope * (sigma_next - sigma)
    return latents


def _heun(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run Heun's method: algorithm 2 of Karras et al. 2022 without churn."""
    for step, (sigma, sigma_next) in _steps(sigmas):
        slope = (latents - denoise(latents, sigma, step)) / sigma
        arrived = latents + slope * (sigma_next - sigma)
        if sigma_next > 0:
            slope_there = (arrived - denoise(arrived, sigma_next, step + 1)) / sigma_next
            arrived = latents + (slope + slope_there) / 2 * (sigma_next - sigma)
        latents = arrived
    return latents


def _euler_ancestral(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    for step, (sigma, sigma_next) in _steps(sigmas):
        denoised = denoise(latents, sigma, step)
        down, up = _ancestral(sigma, sigma_next)
        latents = denoised + (latents - denoised) / sigma * down
        if sigma_next > 0:
            latents = latents + noise(sigma, sigma_next) * up
    return latents


def _ancestral(sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    """Return the level to go down to, and the noise to add, to arrive at `sigma_next`."""
    variance = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    up = torch.minimum(sigma_next, variance.sqrt())
    return (sigma_next**2 - up**2).sqrt(), up


def _dpmpp_2m(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run DPM-Solver++(2M): algorithm 2 of Lu et al. 2022 (arXiv 2211.01095), data prediction."""
    previous, h_previous = None, None
    for step, (sigma, sigma_next) in _distinct_steps(sigmas):
        denoised = denoise(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        h = sigma.log() - sigma_next.log()
        estimate = denoised
        if previous is not None and h_previous is not None:
            estimate = denoised + (denoised - previous) * h / (2 * h_previous)
        latents = sigma_next / sigma * latents - torch.expm1(-h) * estimate
        previous, h_previous = denoised, h
    return latents


def _dpmpp_2m_sde(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run SDE-DPM-Solver++(2M): Lu et al. 2022, appendix; midpoint form, full noise."""
    previous, h_previous = None, None
    for step, (sigma, sigma_next) in _distinct_steps(sigmas):
        denoised = denoise(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        h = sigma.log() - sigma_next.log()
        pull = -torch.expm1(-2 * h)
        latents = sigma_next / sigma * torch.exp(-h) * latents + pull * denoised
        if previous is not None and h_previous is not None:
            latents = latents + 0.5 * pull * h / h_previous * (denoised - previous)
        latents = latents + noise(sigma, sigma_next) * sigma_next * pull.sqrt()
        previous, h_previous = denoised, h
    return latents


def _dpmpp_sde(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run SDE-DPM-Solver++ of second order with its midpoint at half the log step (r = 1/2)."""

    def leap(start: Tensor, target: Tensor, sigma: Tensor, sigma_to: Tensor) -> Tensor:
        down, up = _ancestral(sigma, sigma_to)
        moved = target + (start - target) * down / sigma
        return moved + noise(sigma, sigma_to) * up

    for step, (sigma, sigma_next) in _distinct_steps(sigmas):
        denoised = denoise(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        middle = (sigma.log() + (sigma_next.log() - sigma.log()) / 2).exp()
        halfway = leap(latents, denoised, sigma, middle)
        # With r = 1/2 the first estimate's weight, 1 - 1/(2r), is zero.
        latents = leap(latents, denoise(halfway, middle, step + 1), sigma, sigma_next)
    return latents


def _lcm(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run multistep consistency sampling: algorithm 1 of Song et al. 2023 (arXiv 2303.01469)."""
    for step, (sigma, sigma_next) in _steps(sigmas):
        latents = denoise(latents, sigma, step)
        if sigma_next > 0:
            latents = latents + noise(sigma, sigma_next) * sigma_next
    return latents


def _tcd(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, schedule: NoiseSchedule
) -> Tensor:
    """Run strategic stochastic sampling: algorithm 4 of Zheng et al. 2024 (arXiv 2402.19159)."""
    for step, (sigma, sigma_next) in _steps(sigmas):
        denoised = denoise(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        below = ((1 - TCD_GAMMA) * schedule.timestep(sigma_next)).floor()
        down = torch.minimum(schedule.sigma(below)[0], sigma_next)
        latents = denoised + (latents - denoised) / sigma * down
        latents = latents + noise(sigma, sigma_next) * (sigma_next**2 - down**2).sqrt()
    return latents


def _uni_pc(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    return sample_uni_pc(denoise, latents, torch.unique_consecutive(sigmas))


def _steps(sigmas: Tensor) -> enumerate[tuple[Tensor, Tensor]]:
    return enumerate(itertools.pairwise(sigmas))


def _distinct_steps(sigmas: Tensor) -> enumerate[tuple[Tensor, Tensor]]:
    """Return the steps between distinct levels, for methods that divide by their distance.

    The scheduler `simple` repeats levels if more steps are requested than there are levels.
    """
    return _steps(torch.unique_consecutive(sigmas))


SAMPLERS: dict[Sampler, SamplerSpec] = {
    "euler": SamplerSpec(_euler),
    "euler_ancestral": SamplerSpec(_euler_ancestral),
    "heun": SamplerSpec(_heun, two_calls=True),
    "dpmpp_2m": SamplerSpec(_dpmpp_2m),
    "dpmpp_2m_sde": SamplerSpec(_dpmpp_2m_sde, brownian=True),
    "dpmpp_sde": SamplerSpec(_dpmpp_sde, brownian=True, two_calls=True),
    # DDIM without noise is Euler's method in these coordinates (Song et al. 2021, section 4.3).
    "ddim": SamplerSpec(_euler),
    "uni_pc": SamplerSpec(_uni_pc, skip_penultimate=True),
    "lcm": SamplerSpec(_lcm),
    "tcd": SamplerSpec(_tcd),
}
