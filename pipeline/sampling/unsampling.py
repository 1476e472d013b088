"""Inversion: noise from which sampling would produce the source, to keep its structure.

Song et al. 2021 (arXiv 2010.02502, section 4.3): the sampler's own steps along rising noise levels,
without guidance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..prompts.track import PromptTrack
from .denoise import Denoise
from .keyframes import AnyControl
from .names import Sampler
from .noise_schedule import NoiseSchedule
from .samplers import SAMPLERS

# Samplers that draw noise, need falling levels or two predictions are inverted by the most similar
# other one.
_BACKWARDS: dict[Sampler, Sampler] = {
    "euler_ancestral": "euler",
    "dpmpp_2m_sde": "dpmpp_2m",
    "dpmpp_sde": "heun",
    "uni_pc": "dpmpp_2m",
    "lcm": "euler",
    "tcd": "euler",
    "euler_cfg_pp": "euler",
    "euler_ancestral_cfg_pp": "euler",
    "heunpp2": "heun",
    "exp_heun_2_x0": "heun",
    "exp_heun_2_x0_sde": "heun",
    "dpm_2": "heun",
    "dpm_2_ancestral": "heun",
    "lms": "dpmpp_2m",
    "dpm_fast": "dpmpp_2m",
    "dpm_adaptive": "dpmpp_2m",
    "dpmpp_2s_ancestral": "heun",
    "dpmpp_2s_ancestral_cfg_pp": "heun",
    "dpmpp_sde_gpu": "heun",
    "dpmpp_2m_cfg_pp": "dpmpp_2m",
    "dpmpp_2m_sde_gpu": "dpmpp_2m",
    "dpmpp_2m_sde_heun": "dpmpp_2m",
    "dpmpp_2m_sde_heun_gpu": "dpmpp_2m",
    "dpmpp_3m_sde": "dpmpp_2m",
    "dpmpp_3m_sde_gpu": "dpmpp_2m",
    "ddpm": "euler",
    "ipndm": "dpmpp_2m",
    "ipndm_v": "dpmpp_2m",
    "deis": "dpmpp_2m",
    "res_multistep": "dpmpp_2m",
    "res_multistep_cfg_pp": "dpmpp_2m",
    "res_multistep_ancestral": "dpmpp_2m",
    "res_multistep_ancestral_cfg_pp": "dpmpp_2m",
    "gradient_estimation": "dpmpp_2m",
    "gradient_estimation_cfg_pp": "dpmpp_2m",
    "er_sde": "dpmpp_2m",
    "seeds_2": "heun",
    "seeds_3": "heun",
    "sa_solver": "dpmpp_2m",
    "sa_solver_pece": "dpmpp_2m",
    "uni_pc_bh2": "dpmpp_2m",
}
# Replaces a level of 0, by which samplers divide: too low to be visible, but above rounding errors.
_LOWEST = 1e-3
_VALUES_OF_A_WEIGHT = 16


def backwards(sampler: Sampler) -> Sampler:
    """Return the sampler that inverts `sampler`."""
    return _BACKWARDS.get(sampler, sampler)


def unsampled(
    latents: Tensor, model: Denoise, sigmas: Tensor, *, sampler: Sampler, schedule: NoiseSchedule
) -> Tensor:
    """Return the noisy latents at `sigmas[0]` that sampling would turn into `latents`.

    Args:
        latents: [frames, 4, height, width], scaled, without noise.
        model: The model, without guidance.
        sigmas: The falling noise levels of sampling, the last 0.
        sampler: The sampler to invert.
        schedule: The noise levels of the training steps.
    """
    rising = torch.unique_consecutive(sigmas.flip(0)).clamp(min=_LOWEST)
    spec = SAMPLERS[backwards(sampler)]
    return spec.run(model, latents, rising, lambda _from, _to: torch.zeros(()), schedule)


def content_key(
    latents: Tensor, prompt: PromptTrack, controls: Sequence[AnyControl], *settings: object
) -> str:
    """Return a digest of everything that a result of unsampling depends on, except the UNet."""
    digest = hashlib.sha256(repr((latents.shape, prompt.frames, settings)).encode())
    digest.update(_bytes(latents))
    digest.update(_bytes(prompt.encodings))
    for control in controls:
        given, tensors = control.contents()
        digest.update(repr(given).encode())
        for tensor in tensors:
            digest.update(_bytes(tensor))
        digest.update(_weights(control.network.parameters()))
    return digest.hexdigest()


def _weights(parameters: Iterable[nn.Parameter]) -> bytes:
    """Return a few values of each weight, enough to tell networks apart."""
    samples = []
    for weight in parameters:
        flat = weight.detach().flatten()
        samples.append(flat[:: max(1, len(flat) // _VALUES_OF_A_WEIGHT)].float())
    return _bytes(torch.cat(samples))


def _bytes(tensor: Tensor) -> bytes:
    return np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes()
