"""Euler's and Heun's methods in sigma, with and without new noise in each step."""

from __future__ import annotations

from torch import Tensor

from ..denoise import Denoise
from ..noise_schedule import NoiseSchedule
from ..step_noise import StepNoise
from .steps import ancestral, steps


def euler(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run Euler's method: algorithm 2 of Karras et al. 2022 (arXiv 2206.00364), no churn."""
    for step, (sigma, sigma_next) in steps(sigmas):
        slope = (latents - denoise(latents, sigma, step)) / sigma
        latents = latents + slope * (sigma_next - sigma)
    return latents


def heun(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run Heun's method: algorithm 2 of Karras et al. 2022 without churn."""
    for step, (sigma, sigma_next) in steps(sigmas):
        slope = (latents - denoise(latents, sigma, step)) / sigma
        arrived = latents + slope * (sigma_next - sigma)
        if sigma_next > 0:
            slope_there = (arrived - denoise(arrived, sigma_next, step + 1)) / sigma_next
            arrived = latents + (slope + slope_there) / 2 * (sigma_next - sigma)
        latents = arrived
    return latents


def heunpp2(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run Heun++: slopes at up to two levels ahead, each weighted by its level.

    The slope at the n-th of N levels has the weight sigma_n / (N * sigma_0); the current level's
    makes the sum of the weights 1. The method is that of the MIT-licensed extension
    sd-webui-samplers-scheduler; N is 3, 2 before the last step, and 1 in the last.
    """
    last = len(sigmas) - 1
    for step in range(last):
        sigma, sigma_next = sigmas[step], sigmas[step + 1]
        slope = (latents - denoise(latents, sigma, step)) / sigma
        arrived, ahead = latents, slope
        mean, remaining = 0.0, 1.0
        levels = sigmas[step + 1 : min(step + 3, last)]
        for number, level in enumerate(levels):
            arrived = arrived + ahead * (level - sigmas[step + number])
            ahead = (arrived - denoise(arrived, level, step + 1)) / level
            weight = float(level / ((len(levels) + 1) * sigmas[0]))
            mean, remaining = mean + weight * ahead, remaining - weight
        latents = latents + (mean + remaining * slope) * (sigma_next - sigma)
    return latents


def euler_ancestral(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run ancestral sampling: Ho et al. 2020 (arXiv 2006.11239), algorithm 2.

    With the posterior's variance, DDPM's step in these coordinates is Euler's step to the level
    sigma_next^2 / sigma, plus noise that leads up to sigma_next.
    """
    for step, (sigma, sigma_next) in steps(sigmas):
        denoised = denoise(latents, sigma, step)
        down, up = ancestral(sigma, sigma_next)
        latents = denoised + (latents - denoised) / sigma * down
        if sigma_next > 0:
            latents = latents + noise(sigma, sigma_next) * up
    return latents
