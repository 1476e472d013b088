"""Samplers and noise levels from elsewhere, in place of those that the settings name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import AnimateDiffV2VError
from .denoise import DenoiseBoth
from .noise_schedule import NoiseSchedule
from .samplers import SAMPLERS
from .schedulers import sampling_sigmas
from .settings import SamplingSettings


class CustomSampler(Protocol):
    """A sampler of another package, which runs over this package's model."""

    def __call__(
        self,
        model: DenoiseBoth,
        *,
        source: Tensor,
        noise: Tensor,
        sigmas: Tensor,
        schedule: NoiseSchedule,
        settings: SamplingSettings,
    ) -> Tensor:
        """Sample, beginning with noise on the source.

        Args:
            model: The model, with guidance, windows and masks.
            source: [frames, 4, height, width], float32, on the CPU: the source's scaled latents.
            noise: Of the same shape and unit variance. `NoiseSchedule.noised` adds it to the
                source.
            sigmas: The noise levels [steps + 1], falling.
            schedule: The levels of the training steps.
            settings: The settings; those that say how to sample have no effect.

        Returns:
            Scaled latents of the same shape.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class CustomSampling:
    """A sampler or noise levels, or both, that replace those of the settings."""

    sampler: CustomSampler | None = None
    """Replaces `SamplingSettings.sampler`, which then only names how noise_type "unsample" runs."""
    sigmas: Tensor | None = None
    """The noise levels [steps + 1], falling; replace steps, scheduler and denoise. Empty ones
    return the source. If the last is above 0, noise of that level remains in the result."""

    def __post_init__(self) -> None:
        """Refuse noise levels that cannot be sampled along."""
        if self.sigmas is not None:
            _check(self.sigmas)

    @property
    def steps(self) -> int:
        """The number of steps that the sigmas make; 0 where they are empty or left out."""
        return 0 if self.sigmas is None else max(0, len(self.sigmas) - 1)

    def levels(self, schedule: NoiseSchedule, settings: SamplingSettings, denoise: float) -> Tensor:
        """Return the noise levels to sample along, float32, on the CPU.

        Args:
            schedule: The levels of the training steps.
            settings: All but its denoise is used.
            denoise: As in `SamplingSettings`.
        """
        if self.sigmas is not None:
            return self.sigmas.detach().float().cpu()
        return sampling_sigmas(
            schedule,
            scheduler=settings.scheduler,
            steps=settings.steps,
            denoise=denoise,
            skip_penultimate=self.sampler is None and SAMPLERS[settings.sampler].skip_penultimate,
        )


NO_CUSTOM_SAMPLING = CustomSampling()


def _check(sigmas: Tensor) -> None:
    if sigmas.ndim != 1:
        raise AnimateDiffV2VError(
            f"The sigmas have the shape {list(sigmas.shape)}; they must be a list of noise levels."
        )
    if len(sigmas) == 1:
        raise AnimateDiffV2VError(
            "The sigmas hold one noise level; sampling needs two or more, the last usually 0."
        )
    shown = ", ".join(f"{level:g}" for level in sigmas[:4].tolist())
    if not bool(torch.isfinite(sigmas).all()) or bool((sigmas < 0).any()):
        raise AnimateDiffV2VError(
            f"The sigmas ({shown}, …) must be finite numbers that are not below 0."
        )
    if len(sigmas) and (bool((sigmas[1:] > sigmas[:-1]).any()) or float(sigmas[0]) == 0):
        raise AnimateDiffV2VError(
            f"The sigmas ({shown}, …) must start above 0 and never rise. To start from noise that "
            "leads back to the source, use noise_type unsample instead of flipped sigmas."
        )
