"""The settings of sampling."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..choices import check_types, checked
from ..curve import Strength, check_strength, highest
from ..errors import AnimateDiffV2VError
from ..ranges import SEED, SHARE, STEPS
from .free_init import FreeInit
from .guidance import Guidance
from .names import BetaScheduleChoice, NoiseType, Sampler, Scheduler
from .speed import SpeedOptions
from .windows import ContextOptions


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """Settings of sampling: seed, steps, guidance, noise, windows, speed."""

    seed: int
    steps: int = 25
    guidance: Guidance = field(default_factory=Guidance)
    sampler: Sampler = "euler"
    scheduler: Scheduler = "normal"
    denoise: Strength = 0.7
    """0 returns the source, 1 keeps nothing of it. With a curve, each frame joins at the first step
    that is at or below its own level; until then the others see it with noise of their level. It
    cannot be a curve over the steps."""
    beta_schedule: BetaScheduleChoice = "autoselect"
    noise_type: NoiseType = "default"
    context: ContextOptions | None = field(default_factory=ContextOptions)
    speed: SpeedOptions = field(default_factory=SpeedOptions)
    """Options that may change the result for speed or memory; off by default."""
    free_init: FreeInit | None = None
    """Rounds of sampling whose noise keeps what was slow in the round before; None is one round."""

    @property
    def passes(self) -> int:
        """Passes of each frame through the UNet, without windows and second calls."""
        if highest(self.denoise) == 0:
            return 0
        is_guided = self.guidance.scale != 1 or self.sampler.endswith("_cfg_pp")
        return self.steps * (2 if is_guided else 1) * self.rounds

    @property
    def strengths(self) -> list[tuple[str, Strength]]:
        """Those that can be curves, with their names."""
        return [("denoise", self.denoise), ("guidance_scale", self.guidance.scale)]

    @property
    def rounds(self) -> int:
        """Rounds of sampling: 1 without FreeInit."""
        return self.free_init.iterations if self.free_init else 1

    def __post_init__(self) -> None:
        """Refuse values that no sampler takes, before anything is loaded."""
        check_types(self)
        SEED.check("seed", self.seed)
        checked("sampler", self.sampler, Sampler)
        checked("scheduler", self.scheduler, Scheduler)
        checked("beta_schedule", self.beta_schedule, BetaScheduleChoice)
        checked("noise_type", self.noise_type, NoiseType)
        STEPS.check("steps", self.steps)
        check_strength(SHARE, "denoise", self.denoise, over_steps=False)
        if self.rounds > 1 and self.noise_type == "unsample":
            raise AnimateDiffV2VError(
                "noise_type is 'unsample', whose noise comes from the source, and free_init renews "
                "the noise: leave one of them out."
            )
