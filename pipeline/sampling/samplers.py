"""The samplers by name: ComfyUI's, with its results, and tcd, which ComfyUI does not have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .denoise import Denoise
from .names import Sampler
from .noise_schedule import NoiseSchedule
from .solvers import (
    adams,
    cfg_pp,
    consistency,
    dpm_solver,
    dpm_solver_pp,
    er_sde,
    euler,
    exponential,
    gradient,
    sa_solver,
    uni_pc,
)
from .step_noise import StepNoise, brownian_noise, independent_noise


def _one_call(steps: int) -> int:
    return steps


def _two_calls(steps: int) -> int:
    return 2 * steps - 1


def _three_calls(steps: int) -> int:
    return 3 * steps - 2


def _calls_ahead(steps: int) -> int:
    """Count those of Heun++: three in a step, two in the last but one, one in the last."""
    return max(1, 3 * steps - 3)


def _unknown(_steps: int) -> None:
    """Return None: the number depends on the errors of the steps."""


@dataclass(frozen=True)
class SamplerSpec:
    """A sampler, and what is needed to run it."""

    run: Callable[[Denoise, Tensor, Tensor, StepNoise, NoiseSchedule], Tensor]
    # How often the model is called in a number of steps. The last step takes one call.
    model_calls: Callable[[int], int | None] = _one_call
    # True if the noise of its steps follows one Brownian path.
    brownian: bool = False
    # True if ComfyUI runs it without the lowest noise level above 0.
    skip_penultimate: bool = False

    def step_noise(self, like: Tensor, seed: int, sigmas: Tensor) -> StepNoise:
        """Return the noise for its steps, in the shape of `like`."""
        if self.brownian:
            return brownian_noise(like, seed, sigmas)
        return independent_noise(like, seed)


_DPMPP_SDE = SamplerSpec(dpm_solver_pp.dpmpp_sde, _two_calls, brownian=True)
_DPMPP_2M_SDE = SamplerSpec(dpm_solver_pp.dpmpp_2m_sde, brownian=True)
_DPMPP_2M_SDE_HEUN = SamplerSpec(dpm_solver_pp.dpmpp_2m_sde_heun, brownian=True)
_DPMPP_3M_SDE = SamplerSpec(dpm_solver_pp.dpmpp_3m_sde, brownian=True)

# The names in `_gpu` draw the same noise as those without: it is always drawn on the CPU here, so
# that a seed gives the same result on every device.
SAMPLERS: dict[Sampler, SamplerSpec] = {
    "euler": SamplerSpec(euler.euler),
    "euler_ancestral": SamplerSpec(euler.euler_ancestral),
    "heun": SamplerSpec(euler.heun, _two_calls),
    "dpmpp_2m": SamplerSpec(dpm_solver_pp.dpmpp_2m),
    "dpmpp_2m_sde": _DPMPP_2M_SDE,
    "dpmpp_sde": _DPMPP_SDE,
    # DDIM without noise is Euler's method in these coordinates (Song et al. 2021, section 4.3).
    "ddim": SamplerSpec(euler.euler),
    "uni_pc": SamplerSpec(uni_pc.uni_pc, skip_penultimate=True),
    "lcm": SamplerSpec(consistency.lcm),
    "tcd": SamplerSpec(consistency.tcd),
    "euler_cfg_pp": SamplerSpec(cfg_pp.euler_cfg_pp),
    "euler_ancestral_cfg_pp": SamplerSpec(cfg_pp.euler_ancestral_cfg_pp),
    "heunpp2": SamplerSpec(euler.heunpp2, _calls_ahead),
    "exp_heun_2_x0": SamplerSpec(exponential.exp_heun_2_x0, _two_calls),
    "exp_heun_2_x0_sde": SamplerSpec(exponential.exp_heun_2_x0_sde, _two_calls),
    "dpm_2": SamplerSpec(dpm_solver.dpm_2, _two_calls, skip_penultimate=True),
    "dpm_2_ancestral": SamplerSpec(dpm_solver.dpm_2_ancestral, _two_calls, skip_penultimate=True),
    "lms": SamplerSpec(adams.lms),
    "dpm_fast": SamplerSpec(dpm_solver.dpm_fast),
    "dpm_adaptive": SamplerSpec(dpm_solver.dpm_adaptive, _unknown),
    "dpmpp_2s_ancestral": SamplerSpec(dpm_solver_pp.dpmpp_2s_ancestral, _two_calls),
    "dpmpp_2s_ancestral_cfg_pp": SamplerSpec(cfg_pp.dpmpp_2s_ancestral_cfg_pp, _two_calls),
    "dpmpp_sde_gpu": _DPMPP_SDE,
    "dpmpp_2m_cfg_pp": SamplerSpec(cfg_pp.dpmpp_2m_cfg_pp),
    "dpmpp_2m_sde_gpu": _DPMPP_2M_SDE,
    "dpmpp_2m_sde_heun": _DPMPP_2M_SDE_HEUN,
    "dpmpp_2m_sde_heun_gpu": _DPMPP_2M_SDE_HEUN,
    "dpmpp_3m_sde": _DPMPP_3M_SDE,
    "dpmpp_3m_sde_gpu": _DPMPP_3M_SDE,
    # The same step, in the coordinates of DDPM.
    "ddpm": SamplerSpec(euler.euler_ancestral),
    "ipndm": SamplerSpec(adams.ipndm),
    "ipndm_v": SamplerSpec(adams.ipndm_v),
    "deis": SamplerSpec(adams.deis),
    "res_multistep": SamplerSpec(exponential.res_multistep),
    "res_multistep_cfg_pp": SamplerSpec(cfg_pp.res_multistep_cfg_pp),
    "res_multistep_ancestral": SamplerSpec(exponential.res_multistep_ancestral),
    "res_multistep_ancestral_cfg_pp": SamplerSpec(cfg_pp.res_multistep_ancestral_cfg_pp),
    "gradient_estimation": SamplerSpec(gradient.gradient_estimation),
    "gradient_estimation_cfg_pp": SamplerSpec(cfg_pp.gradient_estimation_cfg_pp),
    "er_sde": SamplerSpec(er_sde.er_sde),
    "seeds_2": SamplerSpec(exponential.seeds_2, _two_calls),
    "seeds_3": SamplerSpec(exponential.seeds_3, _three_calls),
    "sa_solver": SamplerSpec(sa_solver.sa_solver),
    "sa_solver_pece": SamplerSpec(sa_solver.sa_solver_pece, _two_calls),
    "uni_pc_bh2": SamplerSpec(uni_pc.uni_pc_bh2, skip_penultimate=True),
}
