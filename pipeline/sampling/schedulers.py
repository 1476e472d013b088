"""ComfyUI's schedulers, and Align Your Steps: the noise levels that a sampler visits."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..choices import checked
from ..ranges import SHARE, STEPS
from .names import Scheduler
from .noise_schedule import NoiseSchedule

# A denoise close to 0 uses the last few steps of a long schedule, of this length at most: a longer
# one would only differ in rounding.
LONGEST_SCHEDULE = 100_000
# Of Align Your Steps, for ten steps of Stable Diffusion 1.5.
_AYS_LEVELS = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
# Share of the way that `linear_quadratic` covers in the first half of its steps.
_LINEAR_SHARE = 0.025


def sampling_sigmas(
    schedule: NoiseSchedule,
    *,
    scheduler: Scheduler,
    steps: int,
    denoise: float = 1.0,
    skip_penultimate: bool = False,
) -> Tensor:
    """Return noise levels from high to low, the last one 0.

    Args:
        schedule: The levels of the training steps.
        scheduler: Its name in ComfyUI.
        steps: Steps between the levels.
        denoise: At 1 the whole schedule; below, the last `steps` steps of a schedule of
            int(steps / denoise), as in KSampler; 0 returns an empty schedule.
        skip_penultimate: Leave out the lowest level above 0, as ComfyUI does for UniPC.

    Returns:
        [steps + 1], fewer where a scheduler has fewer.

    Raises:
        AnimateDiffV2VError: unknown scheduler, steps outside 1 to 1000, or denoise outside 0 to 1.
    """
    checked("scheduler", scheduler, Scheduler)
    SHARE.check("denoise", denoise)
    STEPS.check("steps", steps)
    if denoise == 0:
        return torch.empty(0)
    whole = denoise > 0.9999
    total = steps if whole else int(min(steps / denoise, LONGEST_SCHEDULE))
    sigmas = _SCHEDULERS[scheduler](schedule, total + skip_penultimate)
    if skip_penultimate:
        sigmas = torch.cat([sigmas[:-2], sigmas[-1:]])
    return sigmas if whole else sigmas[-(steps + 1) :]


def _from_timesteps(schedule: NoiseSchedule, timesteps: Tensor) -> Tensor:
    return torch.cat([schedule.sigma(timesteps), torch.zeros(1)])


def _normal(schedule: NoiseSchedule, steps: int) -> Tensor:
    return _from_timesteps(schedule, torch.linspace(*_ends(schedule), steps))


def _sgm_uniform(schedule: NoiseSchedule, steps: int) -> Tensor:
    return _from_timesteps(schedule, torch.linspace(*_ends(schedule), steps + 1)[:-1])


def _ends(schedule: NoiseSchedule) -> tuple[float, float]:
    return (
        float(schedule.timestep(schedule.sigmas[-1])),
        float(schedule.timestep(schedule.sigmas[0])),
    )


def _karras(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Return the levels of Karras et al. 2022 (arXiv 2206.00364), equation 5, rho 7."""
    high, low = schedule.sigma_max ** (1 / 7), schedule.sigma_min ** (1 / 7)
    levels = (high + torch.linspace(0, 1, steps) * (low - high)) ** 7
    return torch.cat([levels, torch.zeros(1)])


def _exponential(schedule: NoiseSchedule, steps: int) -> Tensor:
    high, low = math.log(schedule.sigma_max), math.log(schedule.sigma_min)
    return torch.cat([torch.linspace(high, low, steps).exp(), torch.zeros(1)])


def _simple(schedule: NoiseSchedule, steps: int) -> Tensor:
    stride = len(schedule.sigmas) / steps
    picks = [-(1 + int(step * stride)) for step in range(steps)]
    return torch.cat([schedule.sigmas[picks], torch.zeros(1)])


def _ddim_uniform(schedule: NoiseSchedule, steps: int) -> Tensor:
    stride = max(len(schedule.sigmas) // steps, 1)
    return torch.cat([torch.zeros(1), schedule.sigmas[1::stride]]).flip(0)


def _beta(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Return quantiles of a beta distribution with both parameters 0.6 (arXiv 2407.12173)."""
    shares = 1 - np.linspace(0, 1, steps, endpoint=False)
    from scipy.special import betaincinv  # noqa: PLC0415 - slow to load, for this scheduler alone

    picks = np.rint(betaincinv(0.6, 0.6, shares) * (len(schedule.sigmas) - 1)).astype(int)
    distinct = [pick for i, pick in enumerate(picks) if i == 0 or pick != picks[i - 1]]
    return torch.cat([schedule.sigmas[distinct], torch.zeros(1)])


def _linear_quadratic(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Return Movie Gen's levels: small even steps, then growing ones (arXiv 2410.13720).

    With Mochi's threshold: the first half of the steps covers 2.5% of the way, each as much; the
    other steps follow the parabola that continues them and ends at 0.
    """
    if steps == 1:
        return torch.tensor([schedule.sigma_max, 0.0])
    linear = steps // 2
    slope = _LINEAR_SHARE / linear
    later = torch.arange(steps - linear + 1, dtype=torch.float64)
    bend = (1 - _LINEAR_SHARE - slope * (steps - linear)) / (steps - linear) ** 2
    travelled = torch.cat(
        [
            torch.arange(linear) * slope,
            _LINEAR_SHARE + slope * later + bend * later**2,
        ]
    )
    levels = (1 - travelled) * schedule.sigma_max
    levels[-1] = 0.0
    return levels.float()


def _kl_optimal(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Return the levels that are best for normal data: Sabour et al. 2024 (arXiv 2404.14507)."""
    high, low = math.atan(schedule.sigma_max), math.atan(schedule.sigma_min)
    angles = torch.linspace(high, low, steps, dtype=torch.float64)
    return torch.cat([angles.tan().float(), torch.zeros(1)])


def _align_your_steps(schedule: NoiseSchedule, steps: int) -> Tensor:
    """Return the levels that suit Stable Diffusion 1.5 in few steps: arXiv 2404.14507, table 4.

    Their logarithms are stretched to the schedule's own range, because AnimateDiff's levels end
    elsewhere than Stable Diffusion's, and interpolated for other numbers of steps than ten.
    """
    published = np.log(_AYS_LEVELS)
    shares = (published - published[-1]) / (published[0] - published[-1])
    low, high = math.log(schedule.sigma_min), math.log(schedule.sigma_max)
    wanted = np.linspace(0, len(shares) - 1, steps + 1)
    mapped = low + np.interp(wanted, np.arange(len(shares)), shares) * (high - low)
    levels = torch.from_numpy(np.exp(mapped)).float()
    levels[-1] = 0.0
    return levels


_SCHEDULERS: dict[Scheduler, Callable[[NoiseSchedule, int], Tensor]] = {
    "normal": _normal,
    "karras": _karras,
    "exponential": _exponential,
    "sgm_uniform": _sgm_uniform,
    "simple": _simple,
    "ddim_uniform": _ddim_uniform,
    "beta": _beta,
    "linear_quadratic": _linear_quadratic,
    "kl_optimal": _kl_optimal,
    "align_your_steps": _align_your_steps,
}
