"""DPM-Solver (Lu et al. 2022, arXiv 2206.00927): exponential integrators of predicted noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..denoise import Denoise
from ..noise_schedule import NoiseSchedule
from ..step_noise import StepNoise
from .steps import ancestral, steps

# Predicts the noise in latents at a level.
_Predict = Callable[[Tensor, Tensor], Tensor]
# Of the adaptive solver: tolerances, the first log step, and the growth below which a step is
# repeated; the values of the paper's appendix and of k-diffusion.
_RELATIVE, _ABSOLUTE, _FIRST_STEP, _LEAST_GROWTH = 0.05, 0.0078, 0.05, 0.81


def dpm_2(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run a midpoint method: its middle is DPM-Solver-2's, its slope that of Karras et al. 2022."""
    for step, (sigma, sigma_next) in steps(sigmas):
        latents = _midpoint(denoise, latents, sigma, sigma_next, step)
    return latents


def dpm_2_ancestral(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run `dpm_2` on ancestral steps."""
    for step, (sigma, sigma_next) in steps(sigmas):
        down, up = ancestral(sigma, sigma_next)
        latents = _midpoint(denoise, latents, sigma, down, step)
        if sigma_next > 0:
            latents = latents + noise(sigma, sigma_next) * up
    return latents


def _midpoint(
    denoise: Denoise, latents: Tensor, sigma: Tensor, sigma_next: Tensor, step: int
) -> Tensor:
    slope = (latents - denoise(latents, sigma, step)) / sigma
    if sigma_next > 0:
        middle = (sigma * sigma_next).sqrt()
        halfway = latents + slope * (middle - sigma)
        slope = (halfway - denoise(halfway, middle, step + 1)) / middle
    return latents + slope * (sigma_next - sigma)


def dpm_fast(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run DPM-Solver-fast: orders 3, 2 and 1 in even log steps, one model call per step in all.

    The paper's section 3.4. As in ComfyUI, the levels between the first and the last above 0 are
    its own, and it ends at that last level, except that a single step goes to 0.
    """
    calls = len(sigmas) - 1
    if calls == 1:
        return denoise(latents, sigmas[0], 0)
    first, last = _log_range(sigmas)
    done = 0

    def predict(at: Tensor, level: Tensor) -> Tensor:
        nonlocal done
        noise = (at - denoise(at, level, done)) / level
        done += 1
        return noise

    leaps = calls // 3 + 1
    orders = [3] * (leaps - 1) + [calls % 3]
    if calls % 3 == 0:
        orders = [3] * (leaps - 2) + [2, 1]
    times = torch.linspace(first, last, leaps + 1, dtype=torch.float64)
    for order, (start, end) in zip(orders, itertools.pairwise(times), strict=True):
        latents = _Leap(predict, latents, start.to(sigmas), end.to(sigmas)).of_order(order)
    return latents


def dpm_adaptive(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run DPM-Solver-23 with steps as long as the error allows: the paper's appendix C.

    Only the first level and the last one above 0 are used: it ends at the latter, except that a
    single step goes to 0. Each attempted step makes three model calls.
    """
    if len(sigmas) == 2:
        return denoise(latents, sigmas[0], 0)
    start, last = _log_range(sigmas)
    h, accepted, earlier = _FIRST_STEP, 0, latents

    def predict(at: Tensor, level: Tensor) -> Tensor:
        return (at - denoise(at, level, accepted)) / level

    while start < last - 1e-5:
        end = min(last, start + h)
        leap = _Leap(predict, latents, sigmas.new_tensor(start), sigmas.new_tensor(end))
        low, high = leap.second(1 / 3), leap.third()
        tolerance = torch.maximum(low.abs(), earlier.abs()).mul_(_RELATIVE).clamp_(min=_ABSOLUTE)
        error = float(((low - high) / tolerance).square().mean().sqrt())
        growth = 1 + math.atan((error + 1e-8) ** (-1 / 3) - 1)
        if growth >= _LEAST_GROWTH:
            latents, earlier, start = high, low, end
            accepted += 1
        h *= growth
    return latents


def _log_range(sigmas: Tensor) -> tuple[float, float]:
    """Return minus the logarithms of the first level, and of the last one above 0."""
    last = sigmas[-1] if sigmas[-1] > 0 else sigmas[-2]
    return -float(sigmas[0].log()), -float(last.log())


class _Leap:
    """One step from time `start` to `end`, which are minus the logarithms of noise levels.

    The noise predicted at the start and at a third of the way is kept for both orders.
    """

    def __init__(self, predict: _Predict, latents: Tensor, start: Tensor, end: Tensor) -> None:
        self._predict, self._latents = predict, latents
        self._start, self._h = start, end - start
        self._noise = predict(latents, (-start).exp())
        self._inner: dict[float, Tensor] = {}

    def of_order(self, order: int) -> Tensor:
        if order == 1:
            return self._carry(1.0)
        return self.second(1 / 2) if order == 2 else self.third()

    def second(self, share: float) -> Tensor:
        """Run DPM-Solver-2: algorithm 1, with the middle at a share of the step."""
        return self._carry(1.0, self._difference(share) / (2 * share) * torch.expm1(self._h))

    def third(self) -> Tensor:
        """Run DPM-Solver-3: algorithm 2 with r1 = 1/3, r2 = 2/3."""
        later = self._carry(2 / 3, 2 * self._difference(1 / 3) * self._phi(2 / 3))
        difference = self._predict(later, self._level(2 / 3)) - self._noise
        return self._carry(1.0, difference / (2 / 3) * self._phi(1.0))

    def _difference(self, share: float) -> Tensor:
        """Return the noise at a share of the step, less the noise at its start."""
        if share not in self._inner:
            noise = self._predict(self._carry(share), self._level(share))
            self._inner[share] = noise - self._noise
        return self._inner[share]

    def _carry(self, share: float, correction: Tensor | float = 0.0) -> Tensor:
        change = torch.expm1(share * self._h) * self._noise + correction
        return self._latents - self._level(share) * change

    def _level(self, share: float) -> Tensor:
        return (-(self._start + share * self._h)).exp()

    def _phi(self, share: float) -> Tensor:
        length = share * self._h
        return torch.expm1(length) / length - 1
