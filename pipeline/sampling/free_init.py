"""FreeInit: sampling again from noise that keeps the slow parts of the last result.

Wu et al. 2023, arXiv 2312.07537. Initial noise of a video carries more of its low frequencies than
in training. So the result of a first round is noised up to the highest level, its low frequencies
in time and space are kept, and fresh noise replaces the others, for another round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..choices import check_types, checked
from ..ranges import FREE_INIT_ITERATIONS, FREE_INIT_ORDER, SHARE

if TYPE_CHECKING:
    from torch import Tensor

FrequencyFilter = Literal["gaussian", "butterworth", "ideal"]
_SEEDS = 2**64


@dataclass(frozen=True, kw_only=True)
class FreeInit:
    """Rounds of sampling, and the frequencies that are kept from one to the next."""

    iterations: int = 2
    """Rounds of sampling, each as long as one without FreeInit. 1 is off."""
    filter: FrequencyFilter = "gaussian"
    """The low-pass filter. gaussian falls off slowly, ideal at once, butterworth in between."""
    spatial_stop: float = 0.25
    """Stop frequency in height and width, as a share of the highest one. 0 keeps nothing."""
    temporal_stop: float = 0.25
    """Stop frequency in time, likewise."""
    order: int = 4
    """butterworth only: higher is steeper."""

    def __post_init__(self) -> None:
        """Refuse values that no filter takes."""
        check_types(self)
        FREE_INIT_ITERATIONS.check("free_init iterations", self.iterations, hint="1 is off")
        checked("free_init filter", self.filter, FrequencyFilter)
        SHARE.check("free_init spatial_stop", self.spatial_stop)
        SHARE.check("free_init temporal_stop", self.temporal_stop)
        FREE_INIT_ORDER.check("free_init order", self.order)

    def renewed(self, result: Tensor, noise: Tensor, fresh: Tensor, sigma_max: float) -> Tensor:
        """Return the noise of the next round.

        The result is noised as AnimateDiff-Evolved does it: unscaled latents count as of unit
        variance. At the highest level that differs from scaled ones by less than 0.3 %.

        Args:
            result: Of the last round, unscaled latents [frames, channels, height, width].
            noise: The noise that this round began with, of unit variance.
            fresh: Noise of another seed.
            sigma_max: The highest noise level, for unscaled latents.
        """
        noised = (result + noise.to(result) * sigma_max) / (sigma_max**2 + 1) ** 0.5
        return self.mixed(noised, fresh)

    def mixed(self, noised: Tensor, fresh: Tensor) -> Tensor:
        """Return noise with the low frequencies of one tensor and the others of another.

        Args:
            noised: [frames, channels, height, width], the last result at the highest noise level.
            fresh: Noise of the same shape.
        """
        import torch  # noqa: PLC0415 - the options, which are in this module, need none

        axes = (0, 2, 3)
        low = self._low_pass(noised.shape).to(noised)
        kept = torch.fft.fftn(noised, dim=axes) * low
        renewed = torch.fft.fftn(fresh.to(noised), dim=axes) * (1 - low)
        mixed: Tensor = torch.fft.ifftn(kept + renewed, dim=axes).real
        return mixed

    def _low_pass(self, shape: tuple[int, ...]) -> Tensor:
        """Return the filter's factors in the order of `fftn`, [frames, 1, height, width].

        Distances are squared, in units in which the highest frequency of an axis is 1.
        """
        import torch  # noqa: PLC0415

        frames, _, height, width = shape
        if 0 in (self.spatial_stop, self.temporal_stop):
            return torch.zeros(frames, 1, height, width)

        def squares(size: int) -> Tensor:
            # From the lowest, negative frequency on, and then in the order of fftn.
            shifted: Tensor = torch.fft.ifftshift((2 * torch.arange(size) / size - 1) ** 2)
            return shifted

        ratio = self.spatial_stop / self.temporal_stop
        distance = (
            squares(frames).view(-1, 1, 1, 1) * ratio**2
            + squares(height).view(1, 1, -1, 1)
            + squares(width).view(1, 1, 1, -1)
        )
        if self.filter == "gaussian":
            return (-distance / (2 * self.spatial_stop**2)).exp()
        if self.filter == "butterworth":
            return 1 / (1 + (distance / self.spatial_stop**2) ** self.order)
        # As in diffusers and AnimateDiff-Evolved.
        return (distance <= 2 * self.spatial_stop).float()


def round_seed(seed: int, index: int) -> int:
    """Return the seed of the fresh noise of a round: as in AnimateDiff-Evolved, the next one.

    >>> round_seed(2**64 - 1, 1)
    0
    """
    return (seed + index) % _SEEDS
