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


class DenoiseBoth:
    """A model that also has the prediction for the negative prompt alone, for CFG++."""

    def __init__(self, denoise: Denoise, unconditional: Callable[[], Tensor]) -> None:
        """Join a model and a function that returns the unconditional result of its latest call."""
        self._denoise, self.unconditional = denoise, unconditional

    def __call__(self, noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
        """Denoise as the model does."""
        return self._denoise(noisy, sigma, step)


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

    def predict(noisy: Tensor, sigma: Tensor, step: int) -> tuple[Tensor, Tensor]:
        denoised = both(noisy, sigma, step)
        return denoised, both.unconditional()

    return predict
