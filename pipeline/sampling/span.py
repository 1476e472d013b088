"""A part of the noise schedule, with ComfyUI's start_percent and end_percent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..choices import check_types, in_range
from ..ranges import SHARE

if TYPE_CHECKING:
    from torch import Tensor

    from .noise_schedule import NoiseSchedule


@dataclass(frozen=True)
class Span:
    """A part of the noise schedule, from one share to another: 0 is pure noise, 1 no noise.

    Shares count training steps, not the sampler's steps, and refer to the whole schedule even if
    `denoise` skips its beginning: ComfyUI's start_percent and end_percent.
    """

    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        """Refuse shares out of range or out of order."""
        check_types(self)
        SHARE.check("start", self.start)
        in_range("end", self.end, self.start, 1)

    def contains(self, sigma: Tensor, schedule: NoiseSchedule) -> bool:
        """Return whether a noise level lies in the span, both ends included."""
        return _level(self.end, schedule) <= float(sigma) <= _level(self.start, schedule)


WHOLE_SCHEDULE = Span()


def _level(share: float, schedule: NoiseSchedule) -> float:
    if share <= 0:
        return math.inf
    return 0.0 if share >= 1 else schedule.sigma_at(share)
