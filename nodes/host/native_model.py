"""A MODEL's network, dtype and noise levels."""

from __future__ import annotations

import copy
from typing import Any

import comfy.model_sampling
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy_extras.nodes_model_advanced import LCM, ModelSamplingDiscreteDistilled
from torch import Tensor

from ...pipeline import AnimateDiffV2VError
from ...pipeline.models.unet import Parameterization
from ...pipeline.sampling.noise_schedule import TRAINING_STEPS, NoiseSchedule
from .native import HIGHEST_SIGMA, without_injections


def unet_shapes(model: Any) -> dict[str, Tensor]:
    """Return the tensors of a MODEL's UNet under the names of a checkpoint, without their values.

    Raises:
        AnimateDiffV2VError: the MODEL has a network of another kind.
    """
    unet = model.get_model_object("diffusion_model")
    unet = getattr(unet, "_orig_mod", unet)  # as it is when it is compiled
    if not isinstance(unet, UNetModel):
        raise AnimateDiffV2VError(
            f"The connected MODEL is a {type(model.model).__name__}: Apply AnimateDiff needs a "
            "Stable Diffusion 1.5 MODEL, for example from Load Checkpoint."
        )
    with without_injections(model):
        tensors = unet.state_dict()
    return {
        f"model.diffusion_model.{name}": torch.empty(tensor.shape, device="meta")
        for name, tensor in tensors.items()
    }


def compute_dtype(model: Any) -> torch.dtype:
    """Return the dtype that ComfyUI computes the UNet of a MODEL in."""
    dtype: torch.dtype = model.model.get_dtype_inference()
    return dtype


def with_beta_schedule(model: Any, beta_schedule: Any) -> Any:
    """Return a copy of a MODEL that samples on the noise levels of another beta schedule.

    It predicts what it did before (the noise, v, the latents, or by LCM's formula), and keeps a
    zero terminal SNR. The schedules of latent consistency models bring LCM's formula along.

    Raises:
        AnimateDiffV2VError: the MODEL does not sample on discrete noise levels.
    """
    sampling = model.get_model_object("model_sampling")
    if not isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete):
        raise AnimateDiffV2VError(
            f"The connected MODEL is sampled by {type(sampling).__mro__[1].__name__}, which has no "
            'beta schedule: remove its ModelSampling node, or set beta_schedule to "use existing".'
        )
    zero_snr = float(sampling.sigma_max) > HIGHEST_SIGMA
    schedule = NoiseSchedule(beta_schedule, Parameterization(zero_terminal_snr=zero_snr))
    levels = schedule.sigmas
    if len(levels) < TRAINING_STEPS:
        sampling = _LcmSampling(model.model.model_config)
        sampling.skip_steps = TRAINING_STEPS // len(levels)
    else:
        sampling = copy.deepcopy(sampling)
        stride = TRAINING_STEPS // len(sampling.sigmas)
        levels = levels[stride - 1 :: stride]
    sampling.set_sigmas(levels)
    changed = model.clone()
    changed.add_object_patch("model_sampling", sampling)
    return changed


class _LcmSampling(ModelSamplingDiscreteDistilled, LCM):
    """ComfyUI's sampling of latent consistency models."""
