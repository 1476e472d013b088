"""Sampling: noise, schedules, samplers, guidance, context windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..on_demand import on_demand

if TYPE_CHECKING:
    from .control import Control
    from .custom import CustomSampler, CustomSampling
    from .free_init import FreeInit, FrequencyFilter
    from .guidance import Guidance
    from .guided_model import Conditioning
    from .guides import Guides
    from .keyframes import AnyControl, Keyframes
    from .names import Arrangement, BetaScheduleChoice, NoiseType, Sampler, Scheduler
    from .sample import sample_latents
    from .settings import SamplingSettings
    from .source_blend import SourceBlend
    from .span import Span
    from .speed import SpeedOptions
    from .style import StyleImages
    from .windows import (
        ContextMemory,
        ContextOptions,
        ContextSchedule,
        FuseMethod,
        window_for,
    )

__all__ = [
    "AnyControl",
    "Arrangement",
    "BetaScheduleChoice",
    "Conditioning",
    "ContextMemory",
    "ContextOptions",
    "ContextSchedule",
    "Control",
    "CustomSampler",
    "CustomSampling",
    "FreeInit",
    "FrequencyFilter",
    "FuseMethod",
    "Guidance",
    "Guides",
    "Keyframes",
    "NoiseType",
    "Sampler",
    "SamplingSettings",
    "Scheduler",
    "SourceBlend",
    "Span",
    "SpeedOptions",
    "StyleImages",
    "sample_latents",
    "window_for",
]

on_demand(
    __name__,
    {
        "control": ("Control",),
        "custom": ("CustomSampler", "CustomSampling"),
        "free_init": ("FreeInit", "FrequencyFilter"),
        "guidance": ("Guidance",),
        "guided_model": ("Conditioning",),
        "guides": ("Guides",),
        "keyframes": ("AnyControl", "Keyframes"),
        "names": (
            "Arrangement",
            "BetaScheduleChoice",
            "NoiseType",
            "Sampler",
            "Scheduler",
        ),
        "sample": ("sample_latents",),
        "settings": ("SamplingSettings",),
        "source_blend": ("SourceBlend",),
        "span": ("Span",),
        "speed": ("SpeedOptions",),
        "style": ("StyleImages",),
        "windows": (
            "ContextMemory",
            "ContextOptions",
            "ContextSchedule",
            "FuseMethod",
            "window_for",
        ),
    },
)
