"""Strengths of LoRAs and motion modules in the rows of a pass."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PassStrengths:
    """Strengths in each row of a pass, float32, on the CPU; None is 1 in all rows."""

    loras: Tensor | None = None
    """[LoRAs, rows], for those of `MotionUNet.lora_curves`."""
    motion_scale: Tensor | None = None
    """[rows], if the motion scale is a curve."""
    motion_effect: Tensor | None = None
    """[rows], the share of the motion modules' change of features that is used."""


FULL_STRENGTH = PassStrengths()
