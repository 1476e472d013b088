"""This pack's sampling over a MODEL that ComfyUI runs, so that patches and hooks act.

ComfyUI's guider prepares the MODEL, its hooks and its conditionings as for KSampler. Inside it,
this pack's samplers call the guider instead of this pack's own network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from comfy.model_patcher import (
    create_model_options_clone,
    set_model_options_post_cfg_function,
)
from comfy.samplers import CFGGuider, sampling_function
from torch import Tensor

from ...pipeline import SamplingSettings, SpeedOptions
from ...pipeline.models.unet import MotionUNet
from ...pipeline.prompts import PromptTrack
from ...pipeline.sampling import (
    Conditioning,
    Control,
    CustomSampling,
    Guidance,
    sample_latents,
    window_for,
)
from ...pipeline.sampling.noise_schedule import NoiseSchedule
from ...pipeline.sampling.sample import noise_schedule
from ...pipeline.sampling.style import StyleTrack
from .applied_motion import AppliedMotion
from .devices import Devices
from .managed_models import WholeModelPatcher
from .native_model import with_beta_schedule
from .window_guides import GUIDES, WindowGuides

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
        custom: CustomSampling,
        **options: Any,
    ) -> Tensor:
        """Sample as `sample_latents` does, with the noise that the MODEL predicts.

        Of `unet`, the motion modules and the noise schedule are used.
        """
        _warn_of(settings.speed)
        schedule = noise_schedule(unet, settings)
        sigmas = custom.levels(schedule, settings)
        if len(sigmas) < 2:
            return latents.clone()
        settings = replace(
            settings,
            context=window_for(unet.max_frames, len(latents), settings.context),
            speed=replace(settings.speed, deep_cache_interval=1, compile=False),
        )
        prompts = self.conditionings(conditioning, len(latents))
        offload = Devices.of_comfyui().offload
        guider = _Guider(self._applied(unet, settings, schedule, offload))
        guider.inner_set_conds({str(index): each for index, (_, each) in enumerate(prompts)})
        # Without what earlier jobs have unsampled: it does not depend on patches.
        options["unsampled_latents"] = None
        sampler = _InsideGuider(
            lambda model: sample_latents(
                unet,
                latents,
                conditioning,
                settings,
                custom=custom,
                make_guided=partial(_NativeGuided, model, [track for track, _ in prompts]),
                **options,
            )
        )
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


class _Guider(CFGGuider):
    """ComfyUI's guider with any number of prompts, of which a call names two."""

    def call(
        self, noisy: Tensor, sigmas: Tensor, *, names: Sequence[str], scale: float, **more: Any
    ) -> Tensor:
        """Denoise with the prompts named `names`, the positive and the negative one."""
        self._names = names
        self.set_cfg(scale)
        denoised: Tensor = self(noisy, sigmas, **more)
        return denoised

    def predict_noise(
        self,
        x: Tensor,
        timestep: Tensor,
        model_options: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Denoise; the names are ComfyUI's."""
        positive, negative = (self.conds[name] for name in self._names)
        denoised: Tensor = sampling_function(
            self.inner_model,
            x,
            timestep,
            negative,
            positive,
            self.cfg,
            model_options=model_options or {},
            seed=seed,
        )
        return denoised


@dataclass(frozen=True)
class _Prepared:
    """A guider whose MODEL is loaded, and what ComfyUI gives to samplers besides it."""

    guider: _Guider
    options: dict[str, Any]
    seed: int


class _InsideGuider:
    """A SAMPLER that runs a function while the guider's MODEL is loaded and its hooks are set."""

    latents: Tensor
    """The result of the function."""

    def __init__(self, run: Callable[[_Prepared], Tensor]) -> None:
        self._run = run

    def sample(
        self,
        guider: _Guider,
        _sigmas: Tensor,
        extra_args: Mapping[str, Any],
        _callback: Any,
        noise: Tensor,
        *_others: Any,
    ) -> Tensor:
        """Run the function; what is returned has no meaning."""
        self.latents = self._run(_Prepared(guider, extra_args["model_options"], extra_args["seed"]))
        return noise


class _NativeGuided:
    """The model that samplers call, as `GuidedModel`, by way of a guider of ComfyUI."""

    def __init__(
        self,
        prepared: _Prepared,
        tracks: Sequence[PromptTrack],
        _unet: MotionUNet,
        *,
        schedule: NoiseSchedule,
        conditioning: Conditioning,
        guidance: Guidance,
        on_passes: Callable[[float], None],
        controls: Sequence[Control],
        styles: Sequence[StyleTrack],
        **_others: Any,
    ) -> None:
        """Bind the guider to a job.

        Args:
            prepared: The guider.
            tracks: The prompt that each of the guider's conditionings stands for.
            schedule: See `GuidedModel`, also for what follows.
            conditioning: Two of `tracks`.
            guidance: Scale and interval.
            on_passes: Called after windows.
            controls: ControlNets of this pack.
            styles: IP-Adapters of this pack.
        """
        self._guider, self._seed = prepared.guider, prepared.seed
        self._schedule, self._guidance = schedule, guidance
        both = (conditioning.positive, conditioning.negative)
        self._names = [
            next(str(index) for index, each in enumerate(tracks) if each is track) for track in both
        ]
        self._options = create_model_options_clone(prepared.options)
        self._guides = WindowGuides(schedule, controls, styles, on_passes)
        self._options["transformer_options"][GUIDES] = self._guides
        self._unconditional = _Unconditional()

    def keep_unconditional(self) -> None:
        """Predict for the negative prompt at any scale from now on, and keep the result."""
        self._options = set_model_options_post_cfg_function(
            self._options, self._unconditional.keep, disable_cfg1_optimization=True
        )

    def unconditional(self) -> Tensor:
        """Return the latest call's result for the negative prompt alone."""
        if self._unconditional.latest is None:
            raise RuntimeError("The model has not been called, or keeps no such result.")
        return self._unconditional.latest

    def __call__(self, noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
        """Denoise [frames, 4, height, width], float32, on the CPU, from level `sigma`.

        `step` is not used: ComfyUI's patches and this pack's windows tell it by the level.
        """
        del step
        device = self._guider.model_patcher.load_device
        self._guides.begin(sum(len(self._guider.conds[name]) for name in self._names))
        denoised = self._guider.call(
            noisy.to(device),
            noisy.new_full((len(noisy),), float(sigma), device=device),
            names=self._names,
            scale=self._guidance.scale_at(sigma, self._schedule),
            model_options=self._options,
            seed=self._seed,
        )
        return denoised.float().cpu()


class _Unconditional:
    """The latest result for the negative prompt alone.

    Apart from the model, which ComfyUI's options would otherwise keep alive.
    """

    latest: Tensor | None = None

    def keep(self, arguments: dict[str, Any]) -> Tensor:
        """Keep it; a function that ComfyUI calls after guidance."""
        self.latest = arguments["uncond_denoised"].float().cpu()
        denoised: Tensor = arguments["denoised"]
        return denoised
