"""Sampling: noise, schedules, samplers, guidance, context windows."""

from __future__ import annotations

from .control import Control
from .guided_model import Conditioning, Guidance
from .initial_noise import NoiseType
from .sample import BetaScheduleChoice, sample_latents, window_for
from .samplers import Sampler
from .schedulers import Scheduler
from .source_blend import SourceBlend
from .span import Span
from .speed import SpeedOptions
from .style import Arrangement, StyleImages
from .windows import ContextOptions, ContextSchedule, FuseMethod

__all__ = [
    "Arrangement",
    "BetaScheduleChoice",
    "Conditioning",
    "ContextOptions",
    "ContextSchedule",
    "Control",
    "FuseMethod",
    "Guidance",
    "NoiseType",
    "Sampler",
    "Scheduler",
    "SourceBlend",
    "Span",
    "SpeedOptions",
    "StyleImages",
    "sample_latents",
    "window_for",
]
