"""The protocol of the function that samplers call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

# Returns the guided prediction and the one that noise is computed from, which CFG++ separates.
Predict = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


class Denoise(Protocol):
    """A model that predicts clean latents from noisy ones."""

    def __call__(self, noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
        """Denoise [frames, 4, height, width] from level `sigma`; windows may depend on `step`."""
        ...


class HasUnconditional(Protocol):
    """A model that can keep its prediction for the negative prompt alone."""

    def keep_unconditional(self) -> None:
        """Compute and keep that prediction from now on, at any guidance scale."""
        ...

    def unconditional(self) -> Tensor:
        """Return that prediction of the latest call."""
        ...


class Guided(Denoise, HasUnconditional, Protocol):
    """A model with guidance for a whole video."""


class DenoiseBoth:
    """A model that also has the prediction for the negative prompt alone, for CFG++."""

    def __init__(self, denoise: Denoise, guided: HasUnconditional) -> None:
        """Join a model, and the one inside it that has the unconditional prediction."""
        self._denoise, self._guided = denoise, guided

    def __call__(self, noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
        """Denoise as the model does."""
        return self._denoise(noisy, sigma, step)

    def keep_unconditional(self) -> None:
        """Compute and keep the unconditional prediction from now on."""
        self._guided.keep_unconditional()

    def unconditional(self) -> Tensor:
        """Return the unconditional prediction of the latest call."""
        return self._guided.unconditional()


def predict_once(denoise: Denoise) -> Predict:
    """Return the model's prediction in both roles."""

    def predict(noisy: Tensor, sigma: Tensor, step: int) -> tuple[Tensor, Tensor]:
        denoised = denoise(noisy, sigma, step)
        return denoised, denoised

    return predict


def predict_both(denoise: Denoise) -> Predict:
    """Return the guided and the unconditional prediction of a `DenoiseBoth`.

    Raises:
        TypeError: the model has no unconditional prediction.
    """
    if not isinstance(denoise, DenoiseBoth):
        raise TypeError("A sampler with CFG++ needs a model that is a DenoiseBoth.")
    both = denoise
    both.keep_unconditional()

    def predict(noisy: Tensor, sigma: Tensor, step: int) -> tuple[Tensor, Tensor]:
        denoised = both(noisy, sigma, step)
        return denoised, both.unconditional()

    return predict
