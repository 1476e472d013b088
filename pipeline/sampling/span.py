"""The part of the schedule in which something acts, as ComfyUI counts it."""

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
    """From a share of the schedule to another: 0 is its noisiest level, 1 none.

    Shares count training steps, not the sampler's own steps, and of the whole schedule even where
    `denoise` leaves its beginning out: ComfyUI's start_percent and end_percent.
    """

    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no span."""
        check_types(self)
        SHARE.check("start", self.start)
        in_range("end", self.end, self.start, 1)

    def contains(self, sigma: Tensor, schedule: NoiseSchedule) -> bool:
        """Whether a noise level lies in it, both ends included."""
        return _level(self.end, schedule) <= float(sigma) <= _level(self.start, schedule)


WHOLE_SCHEDULE = Span()


def _level(share: float, schedule: NoiseSchedule) -> float:
    if share <= 0:
        return math.inf
    return 0.0 if share >= 1 else schedule.sigma_at(share)
