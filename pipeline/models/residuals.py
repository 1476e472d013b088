"""Residuals that ControlNets and T2I-Adapters add inside the UNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Residuals:
    """Features to add to the UNet's in one pass, [rows, channels, height, width] each.

    An empty sequence, or None, adds nothing.
    """

    skips: Sequence[Tensor] = ()
    """A ControlNet's, one for each skip connection in the order in which the UNet makes them."""
    middle: Tensor | None = None
    """A ControlNet's, for the result of the middle block."""
    levels: Sequence[Tensor] = ()
    """A T2I-Adapter's, one for each level's last layer, before downsampling."""

    def scaled(self, strength: float, mask: Tensor | None = None) -> Residuals:
        """Return the residuals times a strength.

        Args:
            strength: The factor.
            mask: [rows, 1, height, width] of any size, 0..1, a further factor for each pixel.
        """

        def scale(features: Tensor) -> Tensor:
            if mask is None:
                return features * strength
            size = features.shape[-2:]
            fitted = functional.interpolate(mask.float(), size, mode="bilinear", antialias=True)
            return features * (fitted * strength).to(features)

        return self._changed(scale)

    def plus(self, other: Residuals) -> Residuals:
        """Return the sums of two networks' residuals."""
        middle = self.middle if other.middle is None else other.middle
        if self.middle is not None and other.middle is not None:
            middle = self.middle + other.middle
        return Residuals(_sums(self.skips, other.skips), middle, _sums(self.levels, other.levels))

    def pooled(self) -> Residuals:
        """Return each residual averaged over its pixels, as ControlNet Shuffle uses them."""

        def pool(features: Tensor) -> Tensor:
            return features.mean(dim=(2, 3), keepdim=True).expand_as(features)

        return self._changed(pool)

    def to(self, dtype: torch.dtype) -> Residuals:
        """Return the residuals in a dtype."""
        return self._changed(lambda features: features.to(dtype))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Residuals:
        return Residuals(
            [change(features) for features in self.skips],
            None if self.middle is None else change(self.middle),
            [change(features) for features in self.levels],
        )


NO_RESIDUALS = Residuals()


def _sums(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Tensor]:
    pairs = zip_longest(first, second)
    return [one if other is None else other if one is None else one + other for one, other in pairs]


def add_each(features: Sequence[Tensor], residuals: Sequence[Tensor]) -> list[Tensor]:
    """Add residuals to features, one to one; an empty sequence is a no-op."""
    if not residuals:
        return list(features)
    return [one + more for one, more in zip(features, residuals, strict=True)]
