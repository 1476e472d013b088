"""The function that samplers call."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Denoise(Protocol):
    """The model: what a noisy latent looks like without its noise."""

    def __call__(self, noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
        """Denoise [frames, 4, height, width] from level `sigma`; windows may move with `step`."""
        ...
