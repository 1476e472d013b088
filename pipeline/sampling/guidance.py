"""Classifier-free guidance: its scale, and the part of the schedule in which it acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..choices import check_types, in_range
from ..curve import Curve, Strength, check_strength
from ..ranges import GUIDANCE_SCALE, SHARE

if TYPE_CHECKING:
    from torch import Tensor

    from .noise_schedule import NoiseSchedule

_OF_A_FRAME = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Strength of the prompt against the negative prompt."""

    scale: Strength = 7.0
    """1 ignores the negative prompt, which halves the work. With a curve, it halves that of windows
    whose frames all have 1, or of steps that have it."""
    start: float = 0.0
    """Share of the schedule before which the scale is 1."""
    end: float = 1.0
    """Share of the schedule after which the scale is 1."""
    rescale: float = 0.0
    """Share of the result whose contrast is brought back to that of the positive prompt alone, as
    ComfyUI's RescaleCFG does (arXiv 2305.08891, section 3.4); 0.7 is usual."""
    parallel: float = 1.0
    """Share of guidance along the prediction that is kept, which makes colours oversaturated; 0 is
    adaptive projected guidance (arXiv 2410.02416) without momentum and norm limit."""

    def __post_init__(self) -> None:
        """Refuse a scale or an interval out of range."""
        check_types(self)
        check_strength(GUIDANCE_SCALE, "guidance_scale", self.scale, hint="7 is usual")
        SHARE.check("guidance start", self.start)
        in_range("guidance end", self.end, self.start, 1)
        SHARE.check("guidance_rescale", self.rescale)
        SHARE.check("guidance_parallel", self.parallel)

    @property
    def is_linear(self) -> bool:
        """True if the result is a weighted sum of both predictions."""
        return self.rescale == 0 and self.parallel == 1

    def scale_at(self, sigma: Tensor, schedule: NoiseSchedule, num_frames: int) -> float | Tensor:
        """Return the scale at a noise level: a number, or one for each frame if they differ.

        Shares of the schedule count training steps.

        Returns:
            A tensor is [frames, 1, 1, 1], float32, on the CPU.
        """
        last = float(schedule.timestep(schedule.sigmas[-1]))
        share = 1.0 - float(schedule.timestep(sigma)) / last
        if not self.start <= share <= self.end:
            return 1.0
        if not isinstance(self.scale, Curve):
            return self.scale
        if self.scale.is_over_steps:
            return self.scale.at(schedule.share_at(sigma))
        import torch  # noqa: PLC0415 - the settings need none

        return torch.tensor(self.scale.values(num_frames)).view(-1, 1, 1, 1)

    def guided(
        self,
        noisy: Tensor,
        positive: Tensor,
        negative: Tensor,
        *,
        sigma: Tensor,
        scale: float | Tensor,
    ) -> Tensor:
        """Return the clean latents that follow from those of both prompts.

        Args:
            noisy: The latents at level `sigma`, [frames, 4, height, width].
            positive: The clean latents that the positive prompt predicts.
            negative: Those of the negative prompt.
            sigma: The noise level.
            scale: The guidance scale at this level, for all frames or for each, [frames, 1, 1, 1].
        """
        change = positive - negative
        if self.parallel != 1:
            length = (positive * positive).sum(dim=_OF_A_FRAME, keepdim=True)
            along = (change * positive).sum(dim=_OF_A_FRAME, keepdim=True) / length * positive
            change = change - (1 - self.parallel) * along
        if not isinstance(scale, float | int):
            scale = scale.to(change)
        result = positive + (scale - 1) * change
        if self.rescale == 0:
            return result
        # In the terms of v-prediction, v = (noisy - (1 + sigma^2) * clean) / (sigma * ...); the
        # denominator cancels out.
        squared = 1 + sigma**2
        guided, plain = noisy - squared * result, noisy - squared * positive
        spread = plain.std(dim=_OF_A_FRAME, keepdim=True) / guided.std(
            dim=_OF_A_FRAME, keepdim=True
        )
        rescaled = guided * (self.rescale * spread + 1 - self.rescale)
        return (noisy - rescaled) / squared
