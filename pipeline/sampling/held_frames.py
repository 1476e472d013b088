"""Frames that are denoised less than others: they are held to the source until their level."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .denoise import Denoise, HasUnconditional

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


def hold_frames(
    model: Denoise, guided: HasUnconditional, starts: Tensor, *, source: Tensor, noise: Tensor
) -> tuple[Denoise, HasUnconditional]:
    """Return a model that holds frames to the source at levels above their own.

    As with a latent noise mask that turns from 0 to 1 at a level (Differential Diffusion, arXiv
    2306.00950): such frames are seen with noise of the current level, and the source is the result.

    Args:
        model: The model.
        guided: The one inside it that has the unconditional prediction.
        starts: The level of each frame, [frames, 1, 1, 1], on the CPU.
        source: [frames, 4, height, width], the scaled latents.
        noise: Of the same shape and unit variance: the noise that sampling starts with.

    Returns:
        The model, and the one that has its unconditional prediction.
    """
    if bool((starts == starts[0]).all()):
        return model, guided
    held = _HeldFrames(model, guided, starts, source, noise)
    return held, held


class _HeldFrames:
    """A model that holds frames to the source; see `hold_frames`."""

    def __init__(
        self,
        model: Denoise,
        guided: HasUnconditional,
        starts: Tensor,
        source: Tensor,
        noise: Tensor,
    ) -> None:
        self._model, self._guided, self._starts = model, guided, starts
        self._source, self._noise = source, noise
        self._is_held = torch.zeros_like(starts, dtype=torch.bool)

    def __call__(self, noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
        self._is_held = self._starts < sigma * (1 - _TOLERANCE)
        if not bool(self._is_held.any()):
            return self._model(noisy, sigma, step)
        self._is_held = self._is_held.to(noisy.device)
        noisy = torch.where(self._is_held, self._source + self._noise * sigma, noisy)
        return torch.where(self._is_held, self._source, self._model(noisy, sigma, step))

    def keep_unconditional(self) -> None:
        self._guided.keep_unconditional()

    def unconditional(self) -> Tensor:
        """Return the latest call's, which is the source in frames that it held."""
        result = self._guided.unconditional()
        return torch.where(self._is_held.to(result.device), self._source, result)
