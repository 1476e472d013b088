"""Sampling on latents alone: noise in by the seed, steps down the schedule, a clip out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..choices import checked
from ..errors import AnimateDiffV2VError
from ..models.unet import BetaSchedule, MotionUNet
from ..progress import IsCancelled, Progress, ReportProgress, never, silent, stop_if
from .control import Control
from .guided_model import Conditioning, Guidance, GuidedModel
from .initial_noise import NoiseType, initial_noise
from .noise_schedule import NoiseSchedule
from .samplers import SAMPLERS, Denoise, Sampler, SamplerSpec
from .schedulers import Scheduler, sampling_sigmas
from .style import StyleImages
from .windows import ContextOptions

logger = logging.getLogger(__name__)

BetaScheduleChoice = Literal["autoselect", "sqrt_linear", "linear", "lcm"]
# Frames in a pass where there is no motion module and frames are independent.
BATCHED_FRAMES = 16
# Between the VAE's latents and the ones that Stable Diffusion 1.5 was trained on.
LATENT_SCALE = 0.18215


@torch.inference_mode()
def sample_latents(
    unet: MotionUNet,
    latents: Tensor,
    *,
    conditioning: Conditioning,
    seed: int,
    steps: int = 25,
    guidance: Guidance | None = None,
    sampler: Sampler = "euler",
    scheduler: Scheduler = "normal",
    denoise: float = 1.0,
    beta_schedule: BetaScheduleChoice = "autoselect",
    context: ContextOptions | None = None,
    noise_type: NoiseType = "default",
    controls: Sequence[Control] = (),
    styles: Sequence[StyleImages] = (),
    progress: ReportProgress = silent,
    is_cancelled: IsCancelled = never,
) -> Tensor:
    """Restyle a clip of latents.

    latents: [frames, 4, height / 8, width / 8], float32, unscaled: what the VAE gives, ComfyUI's
    LATENT convention. Returned are latents of the same shape and convention, on the CPU.
    denoise: 1 starts from noise alone; at 0 the input comes back.
    context: how a long clip is cut into windows; None makes one window of the whole clip where the
    motion module knows so many frames, and standard windows of 16 where it does not.
    controls: ControlNets with a picture for each frame, on the UNet's device; several add up.
    styles: IP-Adapters with their images, on the UNet's device; several add up.
    progress: told after each pass of the UNet, `fraction` being that of the sampling.

    Results depend on the arguments only, not on chunks or earlier runs: bit for bit on a CPU.
    Raises AnimateDiffV2VError for values out of range, Cancelled when `is_cancelled` says so.
    """
    _check_latents(latents)
    for control in controls:
        control.check_fits(unet, latents)
    for style in styles:
        style.check_fits(unet)
    checked("sampler", sampler, Sampler)
    spec = SAMPLERS[sampler]
    schedule = NoiseSchedule(_beta_schedule(unet, beta_schedule))
    sigmas = sampling_sigmas(
        schedule,
        scheduler=scheduler,
        steps=steps,
        denoise=denoise,
        skip_penultimate=spec.skip_penultimate,
    )
    if len(sigmas) < 2:
        return latents.clone()
    context = window_for(unet, len(latents), context)
    calls = _CallCounter(spec, len(sigmas) - 1, progress, is_cancelled)
    model = GuidedModel(
        unet,
        schedule=schedule,
        conditioning=conditioning,
        guidance=guidance or Guidance(),
        context=context,
        on_passes=calls.on_passes,
        controls=controls,
        styles=[style.track(len(latents)) for style in styles],
    )
    noise = initial_noise(latents, seed=seed, noise_type=noise_type, context=context)
    noisy = _noised(latents.float().cpu() * LATENT_SCALE, noise, sigmas[0], schedule)
    result = spec.run(
        calls.counted(model), noisy, sigmas, spec.step_noise(noisy, seed, sigmas), schedule
    )
    return result / LATENT_SCALE


class _CallCounter:
    """Turns the model's calls into progress."""

    def __init__(
        self, spec: SamplerSpec, steps: int, progress: ReportProgress, is_cancelled: IsCancelled
    ) -> None:
        self._steps, self._total, self._done = steps, spec.model_calls(steps), 0
        self._progress, self._is_cancelled = progress, is_cancelled

    def counted(self, model: Denoise) -> Denoise:
        """The model, stopping and telling progress around each call."""

        def call(noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
            stop_if(self._is_cancelled)
            result = model(noisy, sigma, step)
            self._tell(1.0, result)
            self._done += 1
            return result

        return call

    def on_passes(self, share: float) -> None:
        stop_if(self._is_cancelled)
        if share < 1:
            self._tell(share, None)

    def _tell(self, share: float, preview: Tensor | None) -> None:
        step = 1 + self._done * self._steps // self._total
        message = f"sampling step {step} of {self._steps}"
        fraction = min(1.0, (self._done + share) / self._total)
        self._progress(Progress("sample", fraction, message, preview))


def _check_latents(latents: Tensor) -> None:
    if latents.ndim != 4 or latents.shape[1] != 4 or 0 in latents.shape:
        raise AnimateDiffV2VError(
            f"The latents have the shape {list(latents.shape)}; Stable Diffusion 1.5 needs "
            "[frames, 4, height / 8, width / 8]."
        )


def _beta_schedule(unet: MotionUNet, choice: BetaScheduleChoice) -> BetaSchedule:
    checked("beta_schedule", choice, BetaScheduleChoice)
    return unet.beta_schedule if choice == "autoselect" else choice


def window_for(unet: MotionUNet, num_frames: int, context: ContextOptions | None) -> ContextOptions:
    """The windows that a clip of `num_frames` is sampled in.

    context: as asked for; None is the whole clip where the motion module knows so many frames, and
    windows of 16 that overlap by 4 where it does not.
    Raises AnimateDiffV2VError for windows longer than the module's positional encoding.
    """
    limit = unet.max_frames
    if context is None:
        # Frames that do not see each other may be cut anywhere.
        if num_frames <= (limit or BATCHED_FRAMES):
            return ContextOptions(length=num_frames, overlap=0)
        if limit is None:
            return ContextOptions(length=BATCHED_FRAMES, overlap=0, schedule="batched")
        length = min(ContextOptions.length, limit)
        overlap = min(ContextOptions.overlap, length // 2)
        logger.info(
            "%d frames are more than the motion module knows at once (%d): using context windows "
            "of %d, overlapping by %d.", num_frames, limit, length, overlap,
        )  # fmt: skip
        return ContextOptions(length=length, overlap=overlap)
    if limit is not None and context.length > limit:
        raise AnimateDiffV2VError(
            f"context length is {context.length}, but this motion module knows at most {limit} "
            f"frames at once: use {limit} or less, 16 is usual."
        )
    return context


def _noised(latents: Tensor, noise: Tensor, sigma: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Add noise of level `sigma`; at the schedule's top, as much as the model was trained on."""
    if float(sigma) >= schedule.sigma_max * (1 - 1e-5):
        return latents + noise * (1 + sigma**2).sqrt()
    return latents + noise * sigma
