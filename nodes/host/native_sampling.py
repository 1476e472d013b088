"""This pack's sampling over a MODEL that ComfyUI runs, so that patches and hooks act.

ComfyUI's guider prepares the MODEL, its hooks and its conditionings as for KSampler. Inside it,
this pack's samplers call the guider instead of this pack's own network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...pipeline import SamplingSettings, SpeedOptions
from ...pipeline.curve import values_of
from ...pipeline.models.unet import MotionUNet
from ...pipeline.prompts import PromptTrack
from ...pipeline.sampling import (
    Conditioning,
    CustomSampling,
    Guides,
    SourceBlend,
    sample_latents,
    window_for,
)
from ...pipeline.sampling.noise_schedule import NoiseSchedule
from ...pipeline.sampling.sample import noise_schedule
from .applied_motion import AppliedMotion
from .devices import Devices
from .managed_models import WholeModelPatcher
from .native_guided import Guider, NativeGuided, Prepared
from .native_model import with_beta_schedule

logger = logging.getLogger(__name__)

# A value of ComfyUI's CONDITIONING type: encodings, each with its extras.
HostConditioning = list[list[Any]]


@dataclass(frozen=True)
class NativeSampling:
    """Sampling of a MODEL with this pack's motion modules; takes the place of `sample_latents`."""

    model: Any
    """The MODEL, with its patches."""
    conditionings: Callable[[Conditioning, int], Sequence[tuple[PromptTrack, HostConditioning]]]
    """Returns the CONDITIONING that each encoded prompt stands for, for a number of frames."""
    beside: Sequence[WholeModelPatcher] = ()
    """Networks that run together with the MODEL."""

    def __call__(
        self,
        unet: MotionUNet,
        latents: Tensor,
        conditioning: Conditioning,
        settings: SamplingSettings,
        *,
        guides: Guides,
        custom: CustomSampling,
        **options: Any,
    ) -> Tensor:
        """Sample as `sample_latents` does, with the noise that the MODEL predicts.

        Of `unet`, the motion modules and the noise schedule are used.
        """
        _warn_of(settings.speed)
        schedule = noise_schedule(unet, settings)
        denoise = max(values_of(settings.denoise, len(latents)))
        sigmas = custom.levels(schedule, settings, denoise)
        if len(sigmas) < 2:
            return latents.clone()
        settings = replace(
            settings,
            context=window_for(unet.max_frames, len(latents), settings.context),
            speed=replace(settings.speed, deep_cache_interval=1, compile=False),
        )
        prompts = self.conditionings(conditioning, len(latents))
        offload = Devices.of_comfyui().offload
        guider = Guider(self._applied(unet, settings, schedule, offload))
        guider.inner_set_conds({str(index): each for index, (_, each) in enumerate(prompts)})
        # Without what earlier jobs have unsampled: it does not depend on patches.
        options["unsampled_latents"] = None

        def sample(prepared: Prepared) -> Tensor:
            return sample_latents(
                unet,
                latents,
                conditioning,
                settings,
                guides=_with_changing_mask(guides, prepared, sigmas),
                custom=custom,
                make_guided=partial(NativeGuided, prepared, [track for track, _ in prompts]),
                **options,
            )

        sampler = _InsideGuider(sample)
        try:
            guider.sample(latents, latents, sampler, sigmas, disable_pbar=True, seed=settings.seed)
        finally:
            if unet.motion is not None:
                # As part of `unet`, they are under another patcher from now on.
                unet.motion.to(offload)
        return sampler.latents

    def _applied(
        self,
        unet: MotionUNet,
        settings: SamplingSettings,
        schedule: NoiseSchedule,
        offload: torch.device,
    ) -> Any:
        applied = AppliedMotion(
            unet.motion,
            spans_frames=unet.family == "v1",
            context=settings.context,
            names_few_frames=False,  # frame_job does
        )
        model = with_beta_schedule(self.model, schedule.beta_schedule)
        return applied.apply_to(model, offload, beside=self.beside)


def _warn_of(speed: SpeedOptions) -> None:
    """Name the options that only this pack's own network has."""
    without_effect = {
        "deep_cache_interval": speed.deep_cache_interval > 1,
        "fp8_weights": speed.fp8_weights,
        "compile": speed.compile,
    }
    names = [name for name, is_on in without_effect.items() if is_on]
    if names:
        logger.warning(
            "%s of Speed Options %s no effect on a MODEL with patches or hooks.",
            " and ".join(names),
            "has" if len(names) == 1 else "have",
        )


class _InsideGuider:
    """A SAMPLER that runs a function while the guider's MODEL is loaded and its hooks are set."""

    latents: Tensor
    """The result of the function."""

    def __init__(self, run: Callable[[Prepared], Tensor]) -> None:
        self._run = run

    def sample(
        self,
        guider: Guider,
        _sigmas: Tensor,
        extra_args: Mapping[str, Any],
        _callback: Any,
        noise: Tensor,
        *_others: Any,
    ) -> Tensor:
        """Run the function; what is returned has no meaning."""
        self.latents = self._run(Prepared(guider, extra_args["model_options"], extra_args["seed"]))
        return noise


@dataclass(frozen=True, kw_only=True)
class _ChangingMask(SourceBlend):
    """A mask of the source that a patch changes with the noise level: Differential Diffusion."""

    change: Callable[..., Tensor]
    """ComfyUI's denoise_mask_function."""
    guider: Guider
    sigmas: Tensor

    def mask_at(self, mask: Tensor, sigma: Tensor) -> Tensor:
        """Return the mask [masks, 1, height, width] of a noise level."""
        if self.mask is None:
            return mask
        extra = {"model": self.guider, "sigmas": self.sigmas}
        return self.change(sigma.reshape(1), mask, extra_options=extra)


def _with_changing_mask(guides: Guides, prepared: Prepared, sigmas: Tensor) -> Guides:
    change = prepared.options.get("denoise_mask_function")
    if change is None:
        return guides
    given = {field.name: getattr(guides.source_blend, field.name) for field in fields(SourceBlend)}
    blend = _ChangingMask(change=change, guider=prepared.guider, sigmas=sigmas, **given)
    return replace(guides, source_blend=blend)
