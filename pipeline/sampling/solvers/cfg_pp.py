"""CFG++ (Chung et al. 2024, arXiv 2406.08070): noise of the unconditional prediction.

A step takes the guided prediction as the clean latents, and adds the noise that the prediction for
the negative prompt alone leaves: algorithm 2. The paper's guidance lambda, up to 1, is here the
guidance scale, so scales from 1 to 2 are usual.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..denoise import Denoise, predict_both
from ..noise_schedule import NoiseSchedule
from ..step_noise import StepNoise
from .exponential import run_res
from .gradient import run_gradient_estimation
from .steps import ancestral, distinct_steps, log_step, steps


def euler_cfg_pp(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run Euler's method."""
    predict = predict_both(denoise)
    for step, (sigma, sigma_next) in steps(sigmas):
        denoised, unconditional = predict(latents, sigma, step)
        latents = denoised + (latents - unconditional) / sigma * sigma_next
    return latents


def euler_ancestral_cfg_pp(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run Euler's method on ancestral steps."""
    predict = predict_both(denoise)
    for step, (sigma, sigma_next) in steps(sigmas):
        denoised, unconditional = predict(latents, sigma, step)
        down, up = ancestral(sigma, sigma_next)
        latents = denoised + (latents - unconditional) / sigma * down
        if sigma_next > 0:
            latents = latents + noise(sigma, sigma_next) * up
    return latents


def dpmpp_2s_ancestral_cfg_pp(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run DPM-Solver++(2S) on ancestral steps.

    Guidance moves the latents by what separates the two predictions; the last part takes the first
    guided and the second unconditional one, as ComfyUI does.
    """
    predict = predict_both(denoise)
    for step, (sigma, sigma_next) in steps(sigmas):
        denoised, unconditional = predict(latents, sigma, step)
        down, up = ancestral(sigma, sigma_next)
        if down == 0:
            latents = denoised
        else:
            middle = (sigma * down).sqrt()
            halfway = _carry(latents + (denoised - unconditional), denoised, middle / sigma)
            there, unconditional = predict(halfway, middle, step + 1)
            latents = _carry(latents + (denoised - unconditional), there, down / sigma)
        if sigma_next > 0:
            latents = latents + noise(sigma, sigma_next) * up
    return latents


def dpmpp_2m_cfg_pp(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run DPM-Solver++(2M); the slope is taken from the unconditional prediction before."""
    predict = predict_both(denoise)
    previous, h_previous = None, None
    for step, (sigma, sigma_next) in distinct_steps(sigmas):
        denoised, unconditional = predict(latents, sigma, step)
        if sigma_next == 0:
            return denoised
        h = log_step(sigma, sigma_next)
        latents = denoised + sigma_next / sigma * (latents - unconditional)
        if previous is not None and h_previous is not None:
            weight = -torch.expm1(-h) * h / (2 * h_previous)
            latents = latents + weight * (denoised - previous)
        previous, h_previous = unconditional, h
    return latents


def res_multistep_cfg_pp(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run the second-order multistep RES without new noise."""
    return run_res(predict_both(denoise), latents, sigmas, noise, is_ancestral=False)


def res_multistep_ancestral_cfg_pp(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run the second-order multistep RES on ancestral steps."""
    return run_res(predict_both(denoise), latents, sigmas, noise, is_ancestral=True)


def gradient_estimation_cfg_pp(
    denoise: Denoise, latents: Tensor, sigmas: Tensor, _noise: StepNoise, _: NoiseSchedule
) -> Tensor:
    """Run gradient estimation."""
    return run_gradient_estimation(predict_both(denoise), latents, sigmas)


def _carry(latents: Tensor, target: Tensor, remaining: Tensor) -> Tensor:
    return remaining * latents + (1 - remaining) * target
