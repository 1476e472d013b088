"""SA-Solver (Xue et al. 2023, arXiv 2309.05019): stochastic Adams methods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..denoise import Denoise
from ..noise_schedule import NoiseSchedule
from ..step_noise import StepNoise
from .quadrature import lagrange_weights

_PREDICTOR_ORDER, _CORRECTOR_ORDER = 3, 4
# Shares of the schedule between which steps draw noise.
_NOISY = (0.2, 0.8)

# (Log signal-to-noise ratio, data prediction there), the latest last.
_History = Sequence[tuple[float, Tensor]]


def sa_solver(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, schedule: NoiseSchedule
) -> Tensor:
    """Run SA-Solver: algorithm 1, one model call per step."""
    return _run(denoise, latents, sigmas, noise, schedule, evaluates_twice=False)


def sa_solver_pece(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, schedule: NoiseSchedule
) -> Tensor:
    """Run SA-Solver with another model call after each correction."""
    return _run(denoise, latents, sigmas, noise, schedule, evaluates_twice=True)


def _run(
    denoise: Denoise,
    latents: Tensor,
    sigmas: Tensor,
    noise: StepNoise,
    schedule: NoiseSchedule,
    *,
    evaluates_twice: bool,
) -> Tensor:
    sigmas = torch.unique_consecutive(sigmas)
    highest, lowest = (schedule.sigma_at(share) for share in _NOISY)
    steps = len(sigmas) - 1
    history: list[tuple[float, Tensor]] = []
    start, added, step_before = latents, torch.zeros(()), None
    for step in range(steps):
        sigma, sigma_next = sigmas[step], sigmas[step + 1]
        denoised = denoise(latents, sigma, step)
        history = [*history, (-float(sigma.double().log()), denoised)][-_CORRECTOR_ORDER:]
        is_last = bool(sigma_next == 0)
        if step_before is not None and not (is_last and not evaluates_twice):
            # The order falls towards the end, as in the authors' code.
            order = min(len(history), steps - step if sigmas[-1] == 0 else steps)
            latents = step_before.carry(start, history[-order:]) + added
            if evaluates_twice:
                denoised = denoise(latents, sigma, step)
                history[-1] = (history[-1][0], denoised)
        if is_last:
            return denoised
        is_noisy = lowest <= float(sigma_next) <= highest
        step_before = _Step(sigma, sigma_next, tau=1.0 if is_noisy else 0.0)
        added = torch.zeros(())
        if is_noisy:
            added = noise(sigma, sigma_next) * step_before.added
        order = min(_PREDICTOR_ORDER, len(history), steps - 1 - step if sigmas[-1] == 0 else steps)
        start = latents
        latents = step_before.carry(start, history[-order:]) + added
    return latents


class _Step:
    """A step of the SDE with the noise factor tau, constant in it: equations 15 and 18."""

    def __init__(self, sigma: Tensor, sigma_next: Tensor, *, tau: float) -> None:
        self._start = -float(sigma.double().log())
        self._end = -float(sigma_next.double().log())
        self._length = 1 + tau**2
        h = self._end - self._start
        self._shrink = float(np.exp(-self._length * h))
        # Standard deviation of the noise that the step adds.
        self.added = float(sigma_next * np.sqrt(-np.expm1(-2 * tau**2 * h)))

    def carry(self, latents: Tensor, history: _History) -> Tensor:
        """Carry latents along the polynomial through the predictions, without new noise."""
        weights = lagrange_weights(
            [place for place, _ in history],
            self._start,
            self._end,
            lambda places: self._length * np.exp(self._length * (places - self._end)),
        )
        carried = self._shrink * latents
        for weight, (_, denoised) in zip(weights, history, strict=True):
            carried = carried + weight * denoised
        return carried
