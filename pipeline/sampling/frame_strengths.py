"""Strengths of LoRAs and motion modules in the frames of a pass, at its noise level."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..choices import shown
from ..curve import Curve, Strength, values_of
from ..models.motion_module import MotionModules
from ..models.pass_strengths import FULL_STRENGTH, PassStrengths, RowStrength
from ..models.unet import MotionUNet
from .noise_schedule import NoiseSchedule
from .span import Span


def strengths_of(
    unet: MotionUNet,
    frames: Sequence[int],
    num_frames: int,
    sigma: Tensor,
    schedule: NoiseSchedule,
) -> PassStrengths:
    """Return the strengths for a pass of the UNet.

    Args:
        unet: The network, with its curves.
        frames: The frame of the video that each row shows.
        num_frames: Frames of the video.
        sigma: The noise level.
        schedule: The levels of the training steps.
    """
    curves: tuple[Curve, ...] = getattr(unet, "lora_curves", ())
    motion: MotionModules | None = getattr(unet, "motion", None)
    share = schedule.share_at(sigma)
    strengths = FULL_STRENGTH
    if motion is not None:
        strengths = motion_strengths(motion, frames, num_frames, share)
    if not curves:
        return strengths
    loras = torch.zeros(len(curves), len(frames))
    for row, curve in zip(loras, curves, strict=True):
        if Span(curve.start, curve.end).contains(sigma, schedule):
            row[:] = _rows(curve, frames, num_frames, share)
    return PassStrengths(loras, strengths.motion_scale, strengths.motion_effect)


def motion_strengths(
    motion: MotionModules, frames: Sequence[int], num_frames: int, share: float
) -> PassStrengths:
    """Return the strengths of motion modules; see `strengths_of`.

    Args:
        motion: The modules, with their curves.
        frames: As there.
        num_frames: As there.
        share: The share of the noise schedule that has the noise level; see `share_at`.
    """
    masks = motion.masks
    scale, effect = (
        RowStrength(_rows(strength, frames, num_frames, share), mask, frames)
        for strength, mask in ((motion.scale, masks.scale), (motion.effect, masks.effect))
    )
    has_effect = motion.effect != 1.0 or masks.effect is not None
    varies = isinstance(motion.scale, Curve) or masks.scale is not None
    return PassStrengths(
        motion_scale=scale if varies else None, motion_effect=effect if has_effect else None
    )


def _rows(strength: Strength, frames: Sequence[int], num_frames: int, share: float) -> Tensor:
    if isinstance(strength, Curve) and strength.is_over_steps:
        return torch.full((len(frames),), strength.at(share))
    values = _values(strength, num_frames)
    return torch.tensor([values[frame] for frame in frames])


@lru_cache(maxsize=64)
def _values(strength: Strength, num_frames: int) -> tuple[float, ...]:
    """Return `values_of`: each pass asks for them, and a curve is text."""
    return values_of(strength, num_frames)


def steady_curves(strengths: Iterable[tuple[str, Strength]], start: float) -> Iterator[str]:
    """Yield a warning for each curve over the steps that changes only before sampling begins.

    Args:
        strengths: All strengths, with their names.
        start: The share of the noise schedule at which sampling begins.
    """
    for name, strength in strengths:
        if not (isinstance(strength, Curve) and strength.is_over_steps):
            continue
        if len(set(strength.numbers)) > 1 and not strength.changes_after(start):
            yield (
                f"{name} is {shown(str(strength))}, but {strength.at(start):g} in all steps, "
                f"because sampling begins at {start:.0%} of the noise schedule; points after that "
                "would let it change."
            )
