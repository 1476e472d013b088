"""DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095): exponential integrators of the data prediction.

The SDE versions follow the paper's appendix and cover a step of log length h with full noise, as if
it were 2h long.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..denoise import Denoise
from ..noise_schedule import NoiseSchedule
from ..step_noise import StepNoise
from .steps import ancestral, distinct_steps, log_step, steps


def dpmpp_2m(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run DPM-Solver++(2M): algorithm 2, data prediction."""
    previous, h_previous = None, None
    for step, (sigma, sigma_next) in distinct_steps(sigmas):
        denoised = denoise(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        h = log_step(sigma, sigma_next)
        estimate = denoised
        if previous is not None and h_previous is not None:
            estimate = denoised + (denoised - previous) * h / (2 * h_previous)
        latents = sigma_next / sigma * latents - torch.expm1(-h) * estimate
        previous, h_previous = denoised, h
    return latents


def dpmpp_2m_sde(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run SDE-DPM-Solver++(2M): appendix; midpoint form, full noise."""
    return _two_step_sde(denoise, latents, sigmas, noise, lambda pull, _h: 0.5 * pull)


def dpmpp_2m_sde_heun(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run SDE-DPM-Solver++(2M) in Heun's form: the slope's integral is exact, as in DEIS."""
    return _two_step_sde(denoise, latents, sigmas, noise, lambda pull, h: 1 - pull / (2 * h))


def _two_step_sde(
    denoise: Denoise,
    latents: Tensor,
    sigmas: Tensor,
    noise: StepNoise,
    slope_weight: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    previous, h_previous = None, None
    for step, (sigma, sigma_next) in distinct_steps(sigmas):
        denoised = denoise(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        h = log_step(sigma, sigma_next)
        pull = -torch.expm1(-2 * h)
        latents = sigma_next / sigma * torch.exp(-h) * latents + pull * denoised
        if previous is not None and h_previous is not None:
            weight = slope_weight(pull, h) * h / h_previous
            latents = latents + weight * (denoised - previous)
        latents = latents + noise(sigma, sigma_next) * sigma_next * pull.sqrt()
        previous, h_previous = denoised, h
    return latents


def dpmpp_3m_sde(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run the three-step version of SDE-DPM-Solver++ of k-diffusion.

    The data prediction along the step is a Newton polynomial through the latest three; phi_2 and
    phi_3 are the integrals of its first and second power against the exponential.
    """
    earlier: list[tuple[Tensor, Tensor]] = []  # (data prediction, h), the latest first
    for step, (sigma, sigma_next) in distinct_steps(sigmas):
        denoised = denoise(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        h = log_step(sigma, sigma_next)
        pull = -torch.expm1(-2 * h)
        latents = sigma_next / sigma * torch.exp(-h) * latents + pull * denoised
        phi_2 = 1 - pull / (2 * h)
        if earlier:
            ratio = earlier[0][1] / h
            slope = (denoised - earlier[0][0]) / ratio
            if len(earlier) == 2:
                ratio_before = earlier[1][1] / h
                slope_before = (earlier[0][0] - earlier[1][0]) / ratio_before
                bend = (slope - slope_before) / (ratio + ratio_before)
                slope = slope + bend * ratio
                latents = latents - (phi_2 / (2 * h) - 0.5) * bend
            latents = latents + phi_2 * slope
        latents = latents + noise(sigma, sigma_next) * sigma_next * pull.sqrt()
        earlier = [(denoised, h), *earlier][:2]
    return latents


def dpmpp_sde(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run SDE-DPM-Solver++ of second order with its midpoint at half the log step (r = 1/2)."""

    def leap(start: Tensor, target: Tensor, sigma: Tensor, sigma_to: Tensor) -> Tensor:
        down, up = ancestral(sigma, sigma_to)
        moved = target + (start - target) * down / sigma
        return moved + noise(sigma, sigma_to) * up

    for step, (sigma, sigma_next) in distinct_steps(sigmas):
        denoised = denoise(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        middle = (sigma.log() + (sigma_next.log() - sigma.log()) / 2).exp()
        halfway = leap(latents, denoised, sigma, middle)
        # With r = 1/2 the first estimate's weight, 1 - 1/(2r), is zero.
        latents = leap(latents, denoise(halfway, middle, step + 1), sigma, sigma_next)
    return latents


def dpmpp_2s_ancestral(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run DPM-Solver++(2S), algorithm 1 with r = 1/2, on ancestral steps."""
    for step, (sigma, sigma_next) in steps(sigmas):
        denoised = denoise(latents, sigma, step)
        down, up = ancestral(sigma, sigma_next)
        if down > 0:
            middle = (sigma * down).sqrt()
            halfway = denoised + (latents - denoised) * (middle / sigma)
            denoised = denoise(halfway, middle, step + 1)
        latents = denoised + (latents - denoised) * (down / sigma)
        if sigma_next > 0:
            latents = latents + noise(sigma, sigma_next) * up
    return latents
