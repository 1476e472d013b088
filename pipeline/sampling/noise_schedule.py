"""Noise levels of the 1,000 steps that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..choices import checked
from ..models.unet import PREDICTS_NOISE, BetaSchedule, Parameterization

TRAINING_STEPS = 1000
# ComfyUI's replacement for 0, which would have an infinite sigma.
_LAST_VARIANCE = 4.8973451890853435e-08
_BETA_START, _BETA_END, _BETA_END_SDXL = 0.00085, 0.012, 0.02
_MAX_BETA = 0.999
_COSINE_OFFSET = 0.008
# Of logarithms of levels, which are float32.
_SAME_LEVEL = 1e-6


class NoiseSchedule:
    """Noise levels (sigmas) by training step, and the conversion of predictions at each.

    `linear` is Stable Diffusion 1.5's own schedule, in which the square roots of the betas rise
    linearly (diffusers: scaled_linear). `sqrt_linear` is AnimateDiff's (diffusers: linear). `lcm`
    is `linear` at the 50 steps of latent consistency models (arXiv 2310.04378). The other names are
    for networks that were trained otherwise. The names are ComfyUI's and AnimateDiff-Evolved's.
    """

    def __init__(
        self, beta_schedule: BetaSchedule, parameterization: Parameterization = PREDICTS_NOISE
    ) -> None:
        """Tabulate the sigmas.

        Args:
            beta_schedule: One of the names.
            parameterization: The quantity that the network predicts.

        Raises:
            AnimateDiffV2VError: unknown name.
        """
        checked("beta_schedule", beta_schedule, BetaSchedule)
        self.beta_schedule = beta_schedule
        self.prediction = parameterization.prediction
        table = _TABLES[beta_schedule]
        self._is_consistency_model = table.distilled_steps is not None
        self._stride = TRAINING_STEPS // (table.distilled_steps or TRAINING_STEPS)
        sigmas = torch.stack([_sigmas(betas(), parameterization) for betas in table.betas]).mean(0)
        sigmas = sigmas[self._stride - 1 :: self._stride]
        self.sigmas = sigmas.float()
        self._log_sigmas = sigmas.log().float()

    @property
    def sigma_min(self) -> float:
        """Lowest noise level above 0."""
        return float(self.sigmas[0])

    @property
    def sigma_max(self) -> float:
        """Noise level of pure noise."""
        return float(self.sigmas[-1])

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the training step [1], int64, nearest to `sigma` on a log scale."""
        nearest = (sigma.log().view(1) - self._log_sigmas).abs().argmin()
        return (nearest * self._stride + self._stride - 1).view(1)

    def sigma(self, timestep: Tensor) -> Tensor:
        """Return the noise level at a training step, interpolating logarithms between two steps."""
        position = (timestep.float() - (self._stride - 1)) / self._stride
        position = position.clamp(0, len(self.sigmas) - 1)
        low, high = position.floor().long(), position.ceil().long()
        share = position.frac()
        return ((1 - share) * self._log_sigmas[low] + share * self._log_sigmas[high]).exp()

    def sigma_at(self, share: float) -> float:
        """Return the noise level at a share of the schedule: 0 is the noisiest, 1 the last step."""
        return float(self.sigma(torch.tensor((1.0 - share) * (TRAINING_STEPS - 1))))

    def share_at(self, sigma: Tensor) -> float:
        """Return the share of the schedule that has a noise level, the inverse of `sigma_at`."""
        return share_of(float(sigma), self._log_sigmas)

    def noise_factor(self, sigma: Tensor) -> Tensor:
        """Return the factor of unit noise that makes latents of level `sigma` from clean ones.

        At the schedule's top it is that of the noise that the model was trained on.
        """
        if float(sigma) >= self.sigma_max * (1 - 1e-5):
            return (1 + sigma**2).sqrt()
        return sigma

    def noised(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Add noise of unit variance to clean latents, so that they are at level `sigma`."""
        return latents + noise * self.noise_factor(sigma)

    def denoised(self, noisy: Tensor, predicted: Tensor, sigma: Tensor) -> Tensor:
        """Return the clean latents of `noisy` (latent + sigma * noise), given the prediction.

        v_prediction: v = alpha * noise - sqrt(1 - alpha^2) * latent of the latents at unit variance
        (arXiv 2202.00512, appendix D), where alpha = 1 / sqrt(sigma^2 + 1). The lcm schedules add
        the boundary condition of consistency models, arXiv 2310.04378, appendix: c_skip and c_out
        with sigma_data 0.5 and timesteps scaled by 10.
        """
        if self.prediction == "sample":
            clean = predicted
        elif self.prediction == "v_prediction":
            clean = noisy / (sigma**2 + 1) - predicted * sigma / (sigma**2 + 1).sqrt()
        else:
            clean = noisy - predicted * sigma
        if not self._is_consistency_model:
            return clean
        # Without an axis, it may be multiplied with tensors of any device.
        scaled = self.timestep(sigma)[0] * 10.0
        skip = 0.25 / (scaled**2 + 0.25)
        out = scaled / (scaled**2 + 0.25).sqrt()
        return out * clean + skip * noisy


def share_of(sigma: float, log_sigmas: Tensor) -> float:
    """Return the share of a schedule that has a noise level; levels beyond the ends are those.

    Where several shares have it, as at the lowest level of a distilled model, it is the last.

    Args:
        sigma: The noise level.
        log_sigmas: The logarithms of the levels, ascending, on the CPU. A distilled model has one
            for each of its steps, at the last of the training steps that it stands for.
    """
    level = math.log(sigma) if sigma > 0 else -math.inf
    last = len(log_sigmas) - 1
    if level <= float(log_sigmas[0]) + _SAME_LEVEL:
        return 1.0
    above = min(last, int(torch.searchsorted(log_sigmas, level)))
    low, high = float(log_sigmas[above - 1]), float(log_sigmas[above])
    position = min(above - 1 + (level - low) / (high - low), last)
    stride = TRAINING_STEPS // len(log_sigmas)
    return 1.0 - (position * stride + stride - 1) / (TRAINING_STEPS - 1)


def _to_zero_terminal_snr(variance: Tensor) -> Tensor:
    """Rescale the signal's variance to 0 at the last step: arXiv 2305.08891, algorithm 1."""
    roots = variance.sqrt()
    roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    variance = roots**2
    variance[-1] = _LAST_VARIANCE
    return variance


def _sigmas(betas: Tensor, parameterization: Parameterization) -> Tensor:
    variance = torch.cumprod(1.0 - betas, dim=0)
    if parameterization.zero_terminal_snr:
        variance = _to_zero_terminal_snr(variance)
    return ((1.0 - variance) / variance).sqrt()


def _even(end: float) -> Tensor:
    return torch.linspace(_BETA_START, end, TRAINING_STEPS, dtype=torch.float64)


def _sqrt_linear() -> Tensor:
    return _even(_BETA_END)


def _linear(end: float = _BETA_END) -> Tensor:
    roots = torch.linspace(_BETA_START**0.5, end**0.5, TRAINING_STEPS, dtype=torch.float64)
    return roots**2


def _linear_sdxl() -> Tensor:
    return _linear(_BETA_END_SDXL)


def _sqrt() -> Tensor:
    return _even(_BETA_END).sqrt()


def _cosine() -> Tensor:
    """Return the betas of Nichol and Dhariwal 2021 (arXiv 2102.09672), equation 17."""
    shares = torch.arange(TRAINING_STEPS + 1, dtype=torch.float64) / TRAINING_STEPS
    angles = (shares + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * math.pi / 2
    variance = angles.cos() ** 2
    return (1 - variance[1:] / variance[:-1]).clamp(0, _MAX_BETA)


@dataclass(frozen=True)
class _Table:
    """How the levels of a schedule are made."""

    betas: tuple[Callable[[], Tensor], ...]
    """The levels of several are averaged."""
    distilled_steps: int | None = None
    """Training steps that a consistency model was distilled from; None if it is not one."""


_TABLES: dict[BetaSchedule, _Table] = {
    "sqrt_linear": _Table((_sqrt_linear,)),
    "linear": _Table((_linear,)),
    "lcm": _Table((_linear,), 50),
    "linear (AnimateDiff-SDXL)": _Table((_linear_sdxl,)),
    "avg(sqrt_linear,linear)": _Table((_linear, _sqrt_linear)),
    "lcm avg(sqrt_linear,linear)": _Table((_linear, _sqrt_linear), 50),
    "lcm[100_ots]": _Table((_linear,), 100),
    "lcm >> sqrt_linear": _Table((_sqrt_linear,), 50),
    "sqrt": _Table((_sqrt,)),
    "cosine": _Table((_cosine,)),
    "squaredcos_cap_v2": _Table((_cosine,)),
}
