"""ER-SDE-Solver-3 (Cui et al. 2023, arXiv 2309.06169): extended reverse-time SDEs."""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoise import Denoise
from ..noise_schedule import NoiseSchedule
from ..step_noise import StepNoise
from .steps import distinct_steps

# Rectangles of the integrals over 1 / phi, which have no closed form; as many as the authors use.
_RECTANGLES = 200


def er_sde(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run VE ER-SDE-Solver-3: a Taylor series of the data prediction to the second derivative."""
    earlier: list[tuple[Tensor, Tensor, Tensor]] = []  # (level, prediction, its derivative)
    for step, (sigma, sigma_next) in distinct_steps(sigmas):
        denoised = denoise(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        here, there = sigma.double(), sigma_next.double()
        ratio = _phi(there) / _phi(here)
        latents = ratio * latents + (1 - ratio) * denoised
        derivative = torch.zeros(())
        if earlier:
            width = (here - there) / _RECTANGLES
            levels = there + torch.arange(_RECTANGLES, dtype=torch.float64) * width
            change = there - here
            derivative = (denoised - earlier[-1][1]) / (here - earlier[-1][0])
            first = (1 / _phi(levels)).sum() * width
            latents = latents + (change + first * _phi(there)) * derivative
            if len(earlier) == 2:
                bend = (derivative - earlier[-1][2]) / ((here - earlier[0][0]) / 2)
                second = ((levels - here) / _phi(levels)).sum() * width
                latents = latents + (change**2 / 2 + second * _phi(there)) * bend
        added = (there**2 - (here * ratio) ** 2).clamp(min=0).sqrt()
        latents = latents + noise(sigma, sigma_next) * added
        earlier = [*earlier, (here, denoised, derivative)][-2:]
    return latents


def _phi(sigma: Tensor) -> Tensor:
    """Return the noise scale function of the authors' code, x * (exp(x^0.3) + 10)."""
    return sigma * ((sigma**0.3).exp() + 10)
