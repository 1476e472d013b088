"""Samplers of models that predict the clean latents in one step: LCM and TCD."""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoise import Denoise
from ..noise_schedule import NoiseSchedule
from ..step_noise import StepNoise
from .steps import steps

# The share of a step's noise that TCD redraws (gamma in the paper); its authors' default.
TCD_GAMMA = 0.3


def lcm(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run multistep consistency sampling: algorithm 1 of Song et al. 2023 (arXiv 2303.01469)."""
    for step, (sigma, sigma_next) in steps(sigmas):
        latents = denoise(latents, sigma, step)
        if sigma_next > 0:
            latents = latents + noise(sigma, sigma_next) * sigma_next
    return latents


def tcd(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, schedule: NoiseSchedule
) -> Tensor:
    """Run strategic stochastic sampling: algorithm 4 of Zheng et al. 2024 (arXiv 2402.19159)."""
    for step, (sigma, sigma_next) in steps(sigmas):
        denoised = denoise(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        below = ((1 - TCD_GAMMA) * schedule.timestep(sigma_next)).floor()
        down = torch.minimum(schedule.sigma(below)[0], sigma_next)
        latents = denoised + (latents - denoised) / sigma * down
        latents = latents + noise(sigma, sigma_next) * (sigma_next**2 - down**2).sqrt()
    return latents
