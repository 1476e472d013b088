"""ComfyUI's SAMPLER over this package's model."""

from __future__ import annotations

import logging
from typing import Any

import comfy.model_sampling
import torch
from torch import Tensor

from ...pipeline import AnimateDiffV2VError, SamplingSettings
from ...pipeline.curve import highest
from ...pipeline.sampling.denoise import DenoiseBoth
from ...pipeline.sampling.noise_schedule import NoiseSchedule

logger = logging.getLogger(__name__)

# What a sampler may ask of the model besides calling it, and this package does not do.
_WITHOUT_EFFECT = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_calc_cond_batch_function",
    "model_function_wrapper",
)


class HostSampler:
    """A SAMPLER, as a sampler of the pipeline."""

    def __init__(self, sampler: Any) -> None:
        """Wrap a SAMPLER.

        Raises:
            AnimateDiffV2VError: it has no method `sample`.
        """
        if not callable(getattr(sampler, "sample", None)):
            raise AnimateDiffV2VError(
                f"sampler_object is a {type(sampler).__name__}, not a SAMPLER: connect a node such "
                "as KSamplerSelect."
            )
        self._sampler = sampler

    def __call__(
        self,
        model: DenoiseBoth,
        *,
        source: Tensor,
        noise: Tensor,
        sigmas: Tensor,
        schedule: NoiseSchedule,
        settings: SamplingSettings,
    ) -> Tensor:
        """Sample as ComfyUI's guiders do; masks are part of the model."""
        options = {"transformer_options": {"sample_sigmas": sigmas}}
        guider = _Guider(model, sigmas, schedule, settings)
        try:
            result: Tensor = self._sampler.sample(
                guider,
                sigmas,
                {"model_options": options, "seed": settings.seed},
                None,  # no callback: progress counts the model's calls
                noise,
                source,
                None,
                True,
            )
        except AttributeError as error:
            if not isinstance(error.obj, _STAND_INS):
                raise
            raise AnimateDiffV2VError(
                f"The sampler in sampler_object asks the model for {error.name}, which models of "
                "this pack do not have. Choose another sampler."
            ) from error
        if result.shape != source.shape:
            raise AnimateDiffV2VError(
                f"The sampler in sampler_object returned latents of the shape "
                f"{list(result.shape)} for {list(source.shape)}. Choose another sampler."
            )
        return result.float().cpu()


class _Guider:
    """What samplers see as the guider: a model with guidance."""

    def __init__(
        self,
        model: DenoiseBoth,
        sigmas: Tensor,
        schedule: NoiseSchedule,
        settings: SamplingSettings,
    ) -> None:
        self._model, self._sigmas, self._schedule = model, sigmas, schedule
        self._guidance = settings.speed.narrowed(settings.guidance)
        self._told: set[str] = set()
        self.cfg = highest(self._guidance.scale)
        self.conds: dict[str, Any] = {}
        self.model_options: dict[str, Any] = {}
        self.inner_model = _Model(schedule)
        self.model_patcher = _Patcher(self.inner_model)

    def __call__(
        self,
        noisy: Tensor,
        sigma: Tensor,
        model_options: dict[str, Any] | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Denoise [frames, 4, height, width] from levels [frames], which must be the same."""
        options = model_options or {}
        self._warn_of(options)
        level = _single_level(sigma)
        functions = options.get("sampler_post_cfg_function", [])
        if functions:
            self._model.keep_unconditional()
        # The step whose level comes next, for levels between two steps.
        step = int((self._sigmas > level * (1 + 1e-4)).sum())
        denoised = self._model(noisy, level, min(step, len(self._sigmas) - 2))
        for function in functions:
            denoised = function(self._arguments(denoised, noisy, sigma, level, options))
        return denoised

    def _arguments(
        self, denoised: Tensor, noisy: Tensor, sigma: Tensor, level: Tensor, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Return what ComfyUI gives to a function after guidance."""
        unconditional = self._model.unconditional()
        scale: Any = self._guidance.scale_at(level, self._schedule, len(noisy))
        conditional = unconditional
        if isinstance(scale, Tensor):
            change = (denoised - unconditional) / torch.where(scale == 0, torch.inf, scale)
            conditional, scale = unconditional + change, self.cfg
        elif scale != 0:
            conditional = unconditional + (denoised - unconditional) / scale
        return {
            "denoised": denoised,
            "cond": None,
            "uncond": None,
            "cond_scale": scale,
            "model": self.inner_model,
            "uncond_denoised": unconditional,
            "cond_denoised": conditional,
            "sigma": sigma,
            "model_options": options,
            "input": noisy,
        }

    def _warn_of(self, options: dict[str, Any]) -> None:
        for name in _WITHOUT_EFFECT:
            if options.get(name) and name not in self._told:
                self._told.add(name)
                logger.warning(
                    "The sampler in sampler_object sets %s, which has no effect here.", name
                )


class _Model:
    """What samplers see as the model inside the guider."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.model_sampling = _ModelSampling(schedule)

    def process_latent_in(self, latents: Tensor) -> Tensor:
        return latents

    def process_latent_out(self, latents: Tensor) -> Tensor:
        return latents


class _Patcher:
    """What samplers see as the ModelPatcher."""

    def __init__(self, model: _Model) -> None:
        self.model = model
        self.model_options: dict[str, Any] = {}
        self.load_device = torch.device("cpu")

    def get_model_object(self, name: str) -> Any:
        return getattr(self.model, name)


class _ModelSampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    """ComfyUI's conversions of noise levels, by this package's noise schedule."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self._schedule = schedule
        self.set_sigmas(schedule.sigmas)

    def timestep(self, sigma: Tensor) -> Tensor:
        found = [self._schedule.timestep(each) for each in sigma.reshape(-1)]
        return torch.cat(found).view(sigma.shape)

    def sigma(self, timestep: Tensor) -> Tensor:
        return self._schedule.sigma(timestep)


_STAND_INS = (_Guider, _Model, _Patcher, _ModelSampling)


def _single_level(sigma: Tensor) -> Tensor:
    levels = torch.as_tensor(sigma).reshape(-1)
    if bool((levels != levels[0]).any()):
        raise AnimateDiffV2VError(
            "The sampler in sampler_object gives the frames different noise levels, which this "
            "pack's model cannot take. Choose another sampler."
        )
    return levels[0]
