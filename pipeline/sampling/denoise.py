"""The protocol of the function that samplers call."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Denoise(Protocol):
    """A model that predicts clean latents from noisy ones."""

    def __call__(self, noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
        """Denoise [frames, 4, height, width] from level `sigma`; windows may depend on `step`."""
        ...
