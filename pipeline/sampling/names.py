"""Names of samplers, schedulers and other choices, importable without PyTorch."""

from __future__ import annotations

from typing import Literal

Sampler = Literal[
    "euler",
    "euler_ancestral",
    "heun",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_sde",
    "ddim",
    "uni_pc",
    "lcm",
    "tcd",
]
Scheduler = Literal[
    "normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta"
]
NoiseType = Literal["default", "constant", "repeated_context", "FreeNoise", "unsample"]
BetaScheduleChoice = Literal["autoselect", "sqrt_linear", "linear", "lcm"]
Arrangement = Literal["average", "concat", "travel", "per_window"]
