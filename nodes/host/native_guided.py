"""A guider of ComfyUI as the model that this pack's samplers call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import create_model_options_clone, set_model_options_post_cfg_function
from comfy.samplers import CFGGuider, sampling_function
from torch import Tensor

from ...pipeline import AnimateDiffV2VError
from ...pipeline.models.unet import MotionUNet
from ...pipeline.prompts import PromptTrack
from ...pipeline.sampling import AnyControl, Conditioning, Guidance
from ...pipeline.sampling.noise_schedule import NoiseSchedule
from ...pipeline.sampling.style import StyleTrack
from .window_guides import GUIDES, WindowGuides


class Guider(CFGGuider):
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
class Prepared:
    """A guider whose MODEL is loaded, and what ComfyUI gives to samplers besides it."""

    guider: Guider
    options: dict[str, Any]
    seed: int


class NativeGuided:
    """The model that samplers call, as `GuidedModel`, by way of a guider of ComfyUI."""

    def __init__(
        self,
        prepared: Prepared,
        tracks: Sequence[PromptTrack],
        _unet: MotionUNet,
        *,
        schedule: NoiseSchedule,
        conditioning: Conditioning,
        guidance: Guidance,
        on_passes: Callable[[float], None],
        controls: Sequence[AnyControl],
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
        scale = self._guidance.scale_at(sigma, self._schedule, len(noisy))
        self._guides.begin(sum(len(self._guider.conds[name]) for name in self._names))
        denoised = self._guider.call(
            noisy.to(device),
            noisy.new_full((len(noisy),), float(sigma), device=device),
            names=self._names,
            scale=1.0 if isinstance(scale, Tensor) else scale,
            model_options=_per_frame(self._options, scale)
            if isinstance(scale, Tensor)
            else self._options,
            seed=self._seed,
        )
        return denoised.float().cpu()


def _per_frame(options: dict[str, Any], scale: Tensor) -> dict[str, Any]:
    """Return ComfyUI's options with a guidance scale for each frame, [frames, 1, 1, 1].

    Raises:
        AnimateDiffV2VError: the MODEL has guidance of its own.
    """
    if "sampler_cfg_function" in options:
        raise AnimateDiffV2VError(
            "guidance_scale is a curve, but a patch of the MODEL replaces guidance and takes one "
            "scale for all frames: use a number, or a MODEL without that patch."
        )

    def guided(arguments: dict[str, Any]) -> Tensor:
        negative: Tensor = arguments["uncond"]
        noise: Tensor = negative + (arguments["cond"] - negative) * scale.to(negative)
        return noise

    return {**options, "sampler_cfg_function": guided, "disable_cfg1_optimization": True}


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
