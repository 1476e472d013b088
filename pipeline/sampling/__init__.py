"""Sampling: noise, schedules, samplers, guidance, context windows."""

from __future__ import annotations

from .guided_model import Conditioning, Guidance
from .initial_noise import MAX_SEED, NoiseType
from .sample import BetaScheduleChoice, sample_latents, window_for
from .samplers import Sampler
from .schedulers import Scheduler
from .windows import ContextOptions, ContextSchedule, FuseMethod

__all__ = [
    "MAX_SEED",
    "BetaScheduleChoice",
    "Conditioning",
    "ContextOptions",
    "ContextSchedule",
    "FuseMethod",
    "Guidance",
    "NoiseType",
    "Sampler",
    "Scheduler",
    "sample_latents",
    "window_for",
]
