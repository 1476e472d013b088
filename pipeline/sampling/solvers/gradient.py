"""Gradient estimation (Permenter and Yuan 2024, arXiv 2306.04848)."""

from __future__ import annotations

from torch import Tensor

from ..denoise import Denoise, Predict, predict_once
from ..noise_schedule import NoiseSchedule
from ..step_noise import StepNoise
from .steps import steps

# Weight of the latest slope; 1 less of the one before it is taken away. The authors' default.
_GAMMA = 2.0


def gradient_estimation(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run the paper's algorithm 2: Euler's method with an extrapolated slope."""
    return run_gradient_estimation(predict_once(denoise), latents, sigmas)


def run_gradient_estimation(predict: Predict, latents: Tensor, sigmas: Tensor) -> Tensor:
    """Run the algorithm; of two predictions, the second gives the slope, see `cfg_pp.py`."""
    previous = None
    for step, (sigma, sigma_next) in steps(sigmas):
        denoised, base = predict(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        slope = (latents - base) / sigma
        latents = denoised + slope * sigma_next
        if previous is not None:
            latents = latents + (_GAMMA - 1) * (slope - previous) * (sigma_next - sigma)
        previous = slope
    return latents
