"""Noise for training: what the network sees at a time step, and what it shall say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from animatediff_v2v.pipeline.models.unet import BetaSchedule
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from torch import Tensor

TRAINING_STEPS = 1000
# The share of the schedule up to which what shines through the noise is to be trusted, and that
# from which all of it may be in foreign colours. Both lie below the denoise that is meant to be
# used: its first steps see the foreign colours whole, the later ones what is left of them.
TRUSTED_UNTIL, FOREIGN_FROM = 0.05, 0.35
TWIN_SHARE = 0.5
LATE_EMPHASIS = 0.75
PASSED_THROUGH = 0.6
OBJECT_WEIGHT = 2.0
NOISE_LIMIT = 5.0


@dataclass(frozen=True)
class Noised:
    """A batch as the network sees it, with the noise that it shall predict."""

    sample: Tensor
    timesteps: Tensor
    target: Tensor
    alphas: Tensor
    """Share of the signal's variance, [n, 1, ...]."""


def alphas_cumprod(schedule: BetaSchedule) -> Tensor:
    """Share of the signal's variance that is left at each training step, float32 [1000]."""
    return 1.0 / (1.0 + NoiseSchedule(schedule).sigmas.square())


def timesteps(count: int, generator: torch.Generator, *, refine: bool = False) -> Tensor:
    """Draw training steps, late ones more often: there the composition is made.

    refine: draw half of them from the part of the schedule that video-to-video passes through.
    """
    drawn = torch.rand(count, generator=generator) ** LATE_EMPHASIS
    if refine:
        drawn[: count // 2] *= PASSED_THROUGH
    return (drawn * TRAINING_STEPS).long().clamp(max=TRAINING_STEPS - 1)


def noised(
    latents: Tensor,
    twins: Tensor,
    *,
    timesteps: Tensor,
    alphas: Tensor,
    generator: torch.Generator,
) -> Noised:
    """Add noise to latents [n, ..., channels, height, width], scaled.

    In half of the examples some of what shines through the noise is the twin's: in
    video-to-video the start is somebody else's clip, with its own colours, and the network has to
    take the shapes from it and the colours from the prompt. The target is the noise that leads to
    the example itself.

    twins: like `latents`; timesteps, alphas: [n], alphas being the signal's share of variance.
    """
    noise = torch.randn(latents.shape, generator=generator)
    share = _foreign_share(timesteps, generator)
    share, alpha = (_as_rows(value, latents) for value in (share, alphas))
    sample = alpha.sqrt() * latents.lerp(twins, share) + (1 - alpha).sqrt() * noise
    target = (sample - alpha.sqrt() * latents) / (1 - alpha).sqrt()
    return Noised(sample, timesteps, target, alpha)


def clean(sample: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """What remains of a noised sample without the noise."""
    return (sample - (1 - alpha).sqrt() * noise) / alpha.sqrt()


def picture_error(
    noise: Tensor, seen: Noised, masks: Tensor, *, limit: float = NOISE_LIMIT
) -> Tensor:
    """Mean squared error of the picture that is left when the predicted noise is taken away.

    The object counts more: it is small, and it is the subject. Judged by the noise itself, what is
    nearly clean would count most, and outlines are decided before.

    noise: in the order of `seen.target`; masks: [rows, ..., 1, height, width], of the object.
    limit: of the noise's share of variance over the signal's; beyond it, where a picture can only
    be guessed, the noise is judged.
    """
    weights = 1 + OBJECT_WEIGHT * masks
    error = (noise.float().view(seen.target.shape) - seen.target).square()
    error = error * ((1 - seen.alphas) / seen.alphas).clamp(max=limit)
    return (weights * error).mean() / weights.mean()


def _foreign_share(timesteps: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(len(timesteps), generator=generator)
    chosen = torch.rand(len(timesteps), generator=generator) < TWIN_SHARE
    reach = (timesteps / TRAINING_STEPS - TRUSTED_UNTIL) / (FOREIGN_FROM - TRUSTED_UNTIL)
    return drawn.sqrt() * chosen * reach.clamp(0, 1)


def _as_rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
