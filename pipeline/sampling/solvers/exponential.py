"""Exponential integrators of the data prediction in the log signal-to-noise ratio.

RES (Zhang et al. 2023, arXiv 2308.02157) and SEEDS (Gonzalez et al. 2023, arXiv 2305.14267).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoise import Denoise, Predict, predict_once
from ..noise_schedule import NoiseSchedule
from ..step_noise import StepNoise
from .steps import ancestral, distinct_steps, log_step


def res_multistep(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run the second-order multistep RES without new noise."""
    return run_res(predict_once(denoise), latents, sigmas, noise, is_ancestral=False)


def res_multistep_ancestral(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run the second-order multistep RES on ancestral steps."""
    return run_res(predict_once(denoise), latents, sigmas, noise, is_ancestral=True)


def run_res(
    predict: Predict, latents: Tensor, sigmas: Tensor, noise: StepNoise, *, is_ancestral: bool
) -> Tensor:
    """Run RES's second-order step with the earlier prediction as its second point.

    The second of the two predictions is the one that noise is computed from; see `cfg_pp.py`.
    """
    previous, sigma_previous, arrived = None, None, None
    for step, (sigma, sigma_next) in distinct_steps(sigmas):
        denoised, base = predict(latents, sigma, step)
        down, up = ancestral(sigma, sigma_next) if is_ancestral else (sigma_next, None)
        if down == 0 or previous is None or arrived is None or sigma_previous is None:
            latents = denoised + (latents - base) / sigma * down
        else:
            h = log_step(sigma, down)
            # Where the earlier prediction lies, in steps: arrived is its level without new noise.
            second = log_step(sigma_previous, arrived) / h
            phi_1 = -torch.expm1(-h) / h
            phi_2 = (1 - phi_1) / h
            latents = torch.exp(-h) * (latents + (denoised - base))
            latents = latents + h * ((phi_1 + phi_2 / second) * base - phi_2 / second * previous)
        if up is not None and up > 0:
            latents = latents + noise(sigma, sigma_next) * up
        previous, sigma_previous, arrived = base, sigma, down
    return latents


def seeds_2(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run SEEDS-2 with its second stage at half the log step."""
    for step, (sigma, sigma_next) in distinct_steps(sigmas):
        denoised = denoise(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        path, h = _Path(noise, sigma), log_step(sigma, sigma_next)
        middle = (sigma * sigma_next).sqrt()
        halfway = _carry(latents, h, denoised) + path.to(middle)
        # The second prediction's weight, 1 / (2 * 1/2), is 1.
        denoised = denoise(halfway, middle, step + 1)
        latents = _carry(latents, 2 * h, denoised) + path.to(sigma_next)
    return latents


def seeds_3(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run SEEDS-3 with its stages at thirds of the log step."""
    for step, (sigma, sigma_next) in distinct_steps(sigmas):
        first = denoise(latents, sigma, step)
        if sigma_next == 0:
            return first
        path, h = _Path(noise, sigma), log_step(sigma, sigma_next)
        levels = [sigma * torch.exp(-share * h) for share in (1 / 3, 2 / 3)]
        stage = _carry(latents, h * 2 / 3, first) + path.to(levels[0])
        second = denoise(stage, levels[0], step + 1)
        stage = _carry(latents, h * 4 / 3, first, second, 1 / 2) + path.to(levels[1])
        third = denoise(stage, levels[1], step + 1)
        latents = _carry(latents, h * 2, first, third, 2 / 3) + path.to(sigma_next)
    return latents


def exp_heun_2_x0(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run the exponential Heun method: Hochbruck and Ostermann 2010, second order with c2 = 1."""
    for step, (sigma, sigma_next) in distinct_steps(sigmas):
        here = denoise(latents, sigma, step)
        if sigma_next == 0:
            return here
        h = log_step(sigma, sigma_next)
        there = denoise(_carry(latents, h, here), sigma_next, step + 1)
        latents = _carry(latents, h, here, there)
    return latents


def exp_heun_2_x0_sde(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run the exponential Heun method on the SDE, as SEEDS-2 with its second stage at the end."""
    for step, (sigma, sigma_next) in distinct_steps(sigmas):
        here = denoise(latents, sigma, step)
        if sigma_next == 0:
            return here
        path, h = _Path(noise, sigma), 2 * log_step(sigma, sigma_next)
        stage = _carry(latents, h, here) + path.to(sigma_next)
        there = denoise(stage, sigma_next, step + 1)
        latents = _carry(latents, h, here, there) + path.to(sigma_next)
    return latents


def _carry(
    latents: Tensor, h: Tensor, first: Tensor, second: Tensor | None = None, share: float = 1.0
) -> Tensor:
    """Carry latents along a prediction that is constant or linear in the step.

    Args:
        latents: The latents at the step's start.
        h: The step's log length; twice that for the SDE, which forgets them twice as fast.
        first: The prediction at the start.
        second: That at `share` of the step; None is the same as the first.
        share: Where the second one is, relative to this step.
    """
    pull = -torch.expm1(-h)
    arrived = torch.exp(-h) * latents + pull * first
    if second is None:
        return arrived
    return arrived + (1 - pull / h) / share * (second - first)


class _Path:
    """The SDE's noise since the start of a step, which later stages continue."""

    def __init__(self, draw: StepNoise, sigma: Tensor) -> None:
        self._draw, self._sigma = draw, sigma
        self._noise: Tensor | None = None

    def to(self, sigma: Tensor) -> Tensor:
        """Return the noise at a lower level, of that level's strength."""
        remaining = sigma / self._sigma
        fresh = (1 - remaining**2).clamp(min=0).sqrt() * self._draw(self._sigma, sigma)
        self._noise = fresh if self._noise is None else self._noise * remaining + fresh
        self._sigma = sigma
        return self._noise * sigma
