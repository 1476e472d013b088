"""Noise for training: the network's input at a time step, and its target."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from animatediff_v2v.pipeline.models.unet import BetaSchedule
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from torch import Tensor

TRAINING_STEPS = 1000
# The fractions of the schedule up to which the remaining signal has the right colours, and from
# which all of it may have other colours. Both are below the intended denoise: its first steps see
# the other colours completely, later ones what remains of them.
TRUSTED_UNTIL, FOREIGN_FROM = 0.05, 0.35
TWIN_SHARE = 0.5
LATE_EMPHASIS = 0.75
PASSED_THROUGH = 0.6
OBJECT_WEIGHT = 2.0
NOISE_LIMIT = 5.0
SURELY_OBJECT, SURELY_BACKGROUND = 0.95, 0.02


@dataclass(frozen=True)
class Noised:
    """A noised batch, with the noise that the network should predict."""

    sample: Tensor
    timesteps: Tensor
    target: Tensor
    alphas: Tensor
    """Fraction of the signal's variance, [n, 1, ...]."""


def alphas_cumprod(schedule: BetaSchedule) -> Tensor:
    """Return the fraction of the signal's variance at each training step, float32 [1000]."""
    return 1.0 / (1.0 + NoiseSchedule(schedule).sigmas.square())


def timesteps(count: int, generator: torch.Generator, *, refine: bool = False) -> Tensor:
    """Draw training steps, noisier ones more often, which determine the composition.

    With `refine`, half of them are from the part of the schedule that video-to-video uses.
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
    share: Tensor | None = None,
) -> Noised:
    """Add noise to latents [n, ..., channels, height, width], scaled.

    In half of the examples, part of the signal in the noise is the twin's: video-to-video starts
    from a video with other colours, and the network must take the shapes from it and the colours
    from the prompt. The target is the noise that leads to the example itself.

    `twins` has the shape of `latents`; timesteps and alphas are [n], alphas being the signal's
    fraction of the variance. `share` [n] is the twin's part of the signal; None draws it.
    """
    noise = torch.randn(latents.shape, generator=generator)
    if share is None:
        share = _foreign_share(timesteps, generator)
    share, alpha = (_as_rows(value, latents) for value in (share, alphas))
    sample = alpha.sqrt() * latents.lerp(twins, share) + (1 - alpha).sqrt() * noise
    target = (sample - alpha.sqrt() * latents) / (1 - alpha).sqrt()
    return Noised(sample, timesteps, target, alpha)


def clean(sample: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """Return a noised sample without the noise."""
    return (sample - (1 - alpha).sqrt() * noise) / alpha.sqrt()


def picture_error(
    noise: Tensor, seen: Noised, masks: Tensor, *, limit: float = NOISE_LIMIT
) -> Tensor:
    """Return the mean squared error of the picture without the predicted noise.

    The object, which is small, gets more weight. An error of the noise itself would give the most
    weight to nearly clean pictures, but outlines are determined earlier.

    `noise` has the order of `seen.target`; `masks` are of the object, [rows, ..., 1, height,
    width]. `limit` is a ratio of noise variance to signal variance; above it, where the picture can
    only be guessed, the error of the noise is used.
    """
    weights = 1 + OBJECT_WEIGHT * masks
    error = (noise.float().view(seen.target.shape) - seen.target).square()
    error = error * ((1 - seen.alphas) / seen.alphas).clamp(max=limit)
    return (weights * error).mean() / weights.mean()


def colour_error(noise: Tensor, seen: Noised, masks: Tensor, units: Tensor) -> Tensor:
    """Return the squared errors of the mean colours of object and background, added up.

    They are means of each frame, of the picture without the predicted noise. Latents at the outline
    mix both colours and do not count.

    Args:
        noise: as for picture_error, like `seen` and `masks`.
        seen: what was predicted from.
        masks: coverage of the object.
        units: [channels, channels], multiplied with the errors of the latents' channels.
    """
    scale = ((1 - seen.alphas) / seen.alphas).sqrt()
    error = (noise.float().view(seen.target.shape) - seen.target) * scale
    return torch.stack([(mean @ units).square().mean() for mean in means(error, masks)]).sum()


def means(values: Tensor, masks: Tensor) -> list[Tensor]:
    """Return the means inside and outside the object, [..., channels]; 0 where it has no latents.

    Values are [..., channels, height, width], and masks [..., 1, height, width].
    """
    parts = surely(masks)
    return [(values * part).sum((-2, -1)) / part.sum((-2, -1)).clamp(min=1) for part in parts]


def surely(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return masks, 0 or 1, of the latents that show nothing but the object or background."""
    return (masks > SURELY_OBJECT).float(), (masks < SURELY_BACKGROUND).float()


def _foreign_share(timesteps: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(len(timesteps), generator=generator)
    chosen = torch.rand(len(timesteps), generator=generator) < TWIN_SHARE
    reach = (timesteps / TRAINING_STEPS - TRUSTED_UNTIL) / (FOREIGN_FROM - TRUSTED_UNTIL)
    return drawn.sqrt() * chosen * reach.clamp(0, 1)


def _as_rows(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
