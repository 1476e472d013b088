"""Frames that are denoised less than others: they are held to the source until their level."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .denoise import Denoise

# Levels of schedules of different lengths differ by rounding.
_TOLERANCE = 1e-4


def start_levels(denoise: Sequence[float], levels: Callable[[float], Tensor]) -> Tensor:
    """Return the noise level that each frame starts at, [frames, 1, 1, 1], float32, on the CPU.

    Args:
        denoise: That of each frame; one of 0 never starts.
        levels: Returns the noise levels of a denoise, from high to low; none for 0.
    """
    starts = {each: [*levels(each)[:1].tolist(), 0.0][0] for each in dict.fromkeys(denoise)}
    return torch.tensor([starts[each] for each in denoise]).view(-1, 1, 1, 1)


def hold_frames(model: Denoise, starts: Tensor, *, source: Tensor, noise: Tensor) -> Denoise:
    """Return a model that holds frames to the source at levels above their own.

    As with a latent noise mask that turns from 0 to 1 at a level (Differential Diffusion, arXiv
    2306.00950): such frames are seen with noise of the current level, and the source is the result.

    Args:
        model: The model.
        starts: The level of each frame, [frames, 1, 1, 1], on the CPU.
        source: [frames, 4, height, width], the scaled latents.
        noise: Of the same shape and unit variance: the noise that sampling starts with.
    """
    if bool((starts == starts[0]).all()):
        return model

    def denoise(noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
        is_held = starts < sigma * (1 - _TOLERANCE)
        if not bool(is_held.any()):
            return model(noisy, sigma, step)
        is_held = is_held.to(noisy.device)
        noisy = torch.where(is_held, source + noise * sigma, noisy)
        return torch.where(is_held, source, model(noisy, sigma, step))

    return denoise
