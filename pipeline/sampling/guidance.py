"""Classifier-free guidance: its scale, and the part of the schedule in which it acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..choices import check_types, in_range
from ..ranges import GUIDANCE_SCALE, SHARE

if TYPE_CHECKING:
    from torch import Tensor

    from .noise_schedule import NoiseSchedule


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Strength of the prompt against the negative prompt."""

    scale: float = 7.0
    """1 ignores the negative prompt, which halves the work."""
    start: float = 0.0
    """Share of the schedule before which the scale is 1."""
    end: float = 1.0
    """Share of the schedule after which the scale is 1."""

    def __post_init__(self) -> None:
        """Refuse a scale or an interval out of range."""
        check_types(self)
        GUIDANCE_SCALE.check("guidance_scale", self.scale, hint="7 is usual")
        SHARE.check("guidance start", self.start)
        in_range("guidance end", self.end, self.start, 1)

    def scale_at(self, sigma: Tensor, schedule: NoiseSchedule) -> float:
        """Return the scale at a noise level; shares of the schedule count training steps."""
        last = float(schedule.timestep(schedule.sigmas[-1]))
        share = 1.0 - float(schedule.timestep(sigma)) / last
        return self.scale if self.start <= share <= self.end else 1.0
