"""Adams-Bashforth methods: steps along a polynomial through the latest slopes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..denoise import Denoise
from ..noise_schedule import NoiseSchedule
from ..step_noise import StepNoise
from .quadrature import lagrange_weights
from .steps import distinct_steps

# The variance-preserving SDE of Song et al. 2021 that DEIS's time belongs to, as in the authors'
# code for EDM: its levels are 0.002 at time 0.001 and 80 at time 1.
_DEIS_LEVELS, _DEIS_FIRST_TIME = (0.002, 80.0), 1e-3
# Adams-Bashforth's weights of the latest slopes for even steps, by order.
_EVEN_WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)

# From the latest levels, the current one first, and the next one to the weights of their slopes.
_Weights = Callable[[Sequence[float], float], Sequence[float]]


def lms(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run the linear multistep method of order 4 in sigma: Adams-Bashforth for uneven steps."""
    return _multistep(denoise, latents, sigmas, order=4, weights=_in_sigma)


def ipndm(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run improved PNDM: Zhang and Chen 2022 (arXiv 2204.13902), with weights of even steps."""
    return _multistep(denoise, latents, sigmas, order=4, weights=_even)


def ipndm_v(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run iPNDM with weights of uneven steps, as in diff-sampler (arXiv 2312.00094)."""
    return _multistep(denoise, latents, sigmas, order=4, weights=_uneven)


def deis(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run tAB-DEIS of order 3: Zhang and Chen 2022 (arXiv 2204.13902), equation 15.

    The slope is a polynomial in the time of the variance-preserving SDE, integrated over sigma.
    """
    return _multistep(denoise, latents, sigmas, order=3, weights=_in_vp_time)


def _multistep(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, *, order: int, weights: _Weights
) -> Tensor:
    slopes: deque[Tensor] = deque(maxlen=order)
    levels: deque[float] = deque(maxlen=order)
    for step, (sigma, sigma_next) in distinct_steps(sigmas):
        denoised = denoise(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        slopes.appendleft((latents - denoised) / sigma)
        levels.appendleft(float(sigma))
        for weight, slope in zip(weights(levels, float(sigma_next)), slopes, strict=True):
            latents = latents + weight * slope
    return latents


def _in_sigma(levels: Sequence[float], target: float) -> Sequence[float]:
    return lagrange_weights(levels, levels[0], target)


def _even(levels: Sequence[float], target: float) -> Sequence[float]:
    return [weight * (target - levels[0]) for weight in _EVEN_WEIGHTS[len(levels) - 1]]


def _uneven(levels: Sequence[float], target: float) -> Sequence[float]:
    """Return Adams-Bashforth's weights for uneven steps, as published.

    For uneven steps, two terms differ from those of the polynomial through all slopes: the factor
    of the second difference, and the weight of the oldest slope. All implementations of the method
    have them.
    """
    points = [target, *levels]
    steps = [points[index] - points[index + 1] for index in range(len(levels))]
    h = steps[0]
    weights = [1.0]
    if len(levels) > 1:
        h1 = steps[1]
        weights = [1 + h / (2 * h1), -h / (2 * h1)]
    if len(levels) > 2:
        h2 = steps[2]
        second = (1 - h**2 / (3 * h1 * (h1 + h2))) / 2
        weights = [
            weights[0] + second,
            weights[1] - (1 + h1 / h2) * second,
            second * h1 / h2,
        ]
    if len(levels) > 3:
        h3 = steps[3]
        share = h / (h + h1)
        third = (1 - share / 3) / 2 + (1 - share / 2) * h / (6 * (h + h1 + h2))
        third *= h * (h + h1) * (h + h1 + h2) / (h1 * (h1 + h2) * (h1 + h2 + h3))
        ratio = h1 * (h1 + h2) / (h2 * (h2 + h3))
        weights = [
            weights[0] + third,
            weights[1] - (1 + h1 / h2 + ratio) * third,
            weights[2] + (h1 / h2 + ratio * (1 + h2 / h3)) * third,
            -third * ratio * h1 / h2,
        ]
    return [weight * h for weight in weights]


def _in_vp_time(levels: Sequence[float], target: float) -> Sequence[float]:
    """Return the integrals over sigma of the polynomials in time, by the density dsigma/dt.

    In the SDE, log(1 + sigma^2) = rise * t^2 / 2 + start * t.
    """
    low, high = np.log1p(np.square(_DEIS_LEVELS))
    rise = 2 * (low / _DEIS_FIRST_TIME - high) / (_DEIS_FIRST_TIME - 1)
    start = high - rise / 2

    def time(sigma: float) -> float:
        return float((np.sqrt(start**2 + 2 * rise * np.log1p(sigma**2)) - start) / rise)

    def density(times: NDArray[np.float64]) -> NDArray[np.float64]:
        squared = np.expm1(rise * times**2 / 2 + start * times)
        speed: NDArray[np.float64] = (rise * times + start) * (1 + squared) / (2 * squared**0.5)
        return speed

    return lagrange_weights([time(each) for each in levels], time(levels[0]), time(target), density)
