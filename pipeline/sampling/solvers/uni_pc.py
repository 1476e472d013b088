"""UniPC, a predictor and corrector of up to third order (Zhao et al. 2023, arXiv 2302.04867).

With data prediction, in the forms B(h) = h and B(h) = exp(h) - 1, as ComfyUI's `uni_pc` and
`uni_pc_bh2`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..denoise import Denoise
from ..noise_schedule import NoiseSchedule
from ..step_noise import StepNoise

MAX_ORDER = 3
# Stands in for the schedule's last level, zero, whose logarithm the method would need.
LAST_SIGMA = 0.001


def uni_pc(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run UniPC with B(h) = h."""
    return _run(denoise, latents, torch.unique_consecutive(sigmas), is_exponential=False)


def uni_pc_bh2(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run UniPC with B(h) = exp(h) - 1."""
    return _run(denoise, latents, torch.unique_consecutive(sigmas), is_exponential=True)


def _run(denoise: Denoise, latents: Tensor, sigmas: Tensor, *, is_exponential: bool) -> Tensor:
    steps = len(sigmas) - 1
    denoised = denoise(latents, sigmas[0], 0)
    if steps == 1:
        return denoised
    levels = sigmas.double()
    levels[-1] = max(float(levels[-1]), LAST_SIGMA)
    history = [(-levels[0].log(), denoised)]  # (log signal-to-noise ratio, denoised latent)
    for step in range(1, steps + 1):
        order = min(step, MAX_ORDER, steps - 1, steps + 1 - step)
        sigma, sigma_next = levels[step - 1], levels[step]
        update = _Update(history[-order:], -sigma_next.log(), is_exponential=is_exponential)
        carried = update.carry(latents, float(sigma_next / sigma))
        latents = carried + update.predicted()
        if step < steps:
            denoised = denoise(latents, sigmas[step], step)
            latents = carried + update.corrected(denoised)
            history = [*history, (-sigma_next.log(), denoised)][-MAX_ORDER:]
    return latents


class _Update:
    """One step from the last entry of `history` to the log signal-to-noise ratio `target`.

    The paper's equations 3 and 9. Latents here are signal plus sigma times noise, not scaled to
    unit variance, so the signal's factor alpha of the paper is 1 throughout.
    """

    def __init__(
        self, history: list[tuple[Tensor, Tensor]], target: Tensor, *, is_exponential: bool
    ) -> None:
        here, self._latest = history[-1]
        self._h = float(target - here)
        # B(h) of data prediction, whose h is negative in the paper.
        self._scale = -math.expm1(-self._h) if is_exponential else self._h
        earlier = history[:-1][::-1]
        ratios = [float(there - here) / self._h for there, _ in earlier]
        self._differences = [
            (denoised - self._latest) / ratio
            for (_, denoised), ratio in zip(earlier, ratios, strict=True)
        ]
        self._ratios = [*ratios, 1.0]

    def carry(self, latents: Tensor, shrink: float) -> Tensor:
        """Return the first-order part, which predictor and corrector share."""
        change = torch.expm1(torch.tensor(-self._h, dtype=torch.float64))
        return shrink * latents - float(change) * self._latest

    def predicted(self) -> Tensor:
        """Return the contribution of earlier model outputs."""
        count = len(self._differences)
        # With two points, the paper's simplification, which needs no solving for the weight.
        weights = [0.5] if count == 1 else self._weights(count)
        return self._sum(weights, self._differences)

    def corrected(self, denoised: Tensor) -> Tensor:
        """Return the contribution of earlier outputs and the output at the predicted point."""
        differences = [*self._differences, denoised - self._latest]
        weights = [0.5] if len(differences) == 1 else self._weights(len(differences))
        return self._sum(weights, differences)

    def _sum(self, weights: list[float], differences: list[Tensor]) -> Tensor:
        total = torch.zeros_like(self._latest)
        for weight, difference in zip(weights, differences, strict=True):
            total += weight * self._scale * difference
        return total

    def _weights(self, count: int) -> list[float]:
        """Solve for the weights that make `count` differences exact to that order."""
        if count == 0:
            return []
        ratios = torch.tensor(self._ratios[:count], dtype=torch.float64)
        powers = torch.stack([ratios**k for k in range(count)])
        backward = -self._h
        phi = float(torch.expm1(torch.tensor(backward, dtype=torch.float64))) / backward - 1
        factorial, targets = 1, []
        for k in range(1, count + 1):
            targets.append(phi * factorial / -self._scale)
            factorial *= k + 1
            phi = phi / backward - 1 / factorial
        solved = torch.linalg.solve(powers, torch.tensor(targets, dtype=torch.float64))
        return [float(weight) for weight in solved]
