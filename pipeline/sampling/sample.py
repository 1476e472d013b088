"""Sampling on latents alone: noise in by the seed, steps down the schedule, a clip out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from ..choices import checked, checked_type
from ..errors import AnimateDiffV2VError
from ..models.batching import ChunkSizes
from ..models.feature_cache import FeatureCache
from ..models.last_result import LastResult
from ..models.ops.compiled import compiled_layers
from ..models.ops.interface import Ops
from ..models.ops.select import default_ops
from ..models.unet import BetaSchedule, MotionUNet
from ..progress import IsCancelled, ReportProgress, never, silent
from ..ranges import SEED
from .calls import CallCounter, CompilingNotice, part
from .control import Control
from .denoise import Denoise
from .finite_results import check_inputs, stopping
from .guidance import Guidance
from .guided_model import Conditioning, GuidedModel
from .initial_noise import initial_noise
from .names import BetaScheduleChoice, NoiseType, Sampler, Scheduler
from .noise_schedule import NoiseSchedule
from .samplers import SAMPLERS
from .schedulers import sampling_sigmas
from .source_blend import SourceBlend
from .speed import SpeedOptions
from .style import StyleImages, StyleTrack
from .unsampling import backwards, content_key, unsampled
from .windows import ContextOptions

logger = logging.getLogger(__name__)

# Frames in a pass where there is no motion module and frames are independent.
BATCHED_FRAMES = 16
# Between the VAE's latents and the ones that Stable Diffusion 1.5 was trained on.
LATENT_SCALE = 0.18215
# Unsampling runs each step without guidance, sampling mostly with it, which is twice the work.
_UNSAMPLING_SHARE = 1 / 3


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
    source_blend: SourceBlend | None = None,
    speed: SpeedOptions | None = None,
    unsampled_clips: LastResult | None = None,
    chunks: ChunkSizes | None = None,
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
    source_blend: keeps the source where a mask says so, or everywhere to a share.
    speed: what changes the result for speed, or compiles; None is nothing. Unsampling stays exact.
    unsampled_clips: remembers what noise_type "unsample" found, for the next call on this UNet.
    chunks: how much goes through the UNet at a time; None is what is usual on its device. Ops
    that are compiled take all tokens.
    progress: told after each pass of the UNet, `fraction` being that of the sampling.

    Results depend on the arguments only, not on chunks or earlier runs: bit for bit on a CPU.
    Raises AnimateDiffV2VError for values out of range and where `speed` asks for compiled code that
    cannot be had, Cancelled when `is_cancelled` says so.
    """
    checked_type("latents", latents, Tensor)
    checked_type("conditioning", conditioning, Conditioning)
    checked_type("guidance", guidance, Guidance | None)
    checked_type("context", context, ContextOptions | None)
    checked_type("speed", speed, SpeedOptions | None)
    checked_type("steps", steps, int)
    checked_type("denoise", denoise, float)
    _check_latents(latents)
    check_inputs(latents, conditioning)
    _check_additions(unet, latents, controls, styles, source_blend)
    checked("sampler", sampler, Sampler)
    checked("noise_type", noise_type, NoiseType)
    SEED.check("seed", seed)
    spec = SAMPLERS[sampler]
    schedule = NoiseSchedule(_beta_schedule(unet, beta_schedule), unet.parameterization)
    sigmas = sampling_sigmas(
        schedule,
        scheduler=scheduler,
        steps=steps,
        denoise=denoise,
        skip_penultimate=spec.skip_penultimate,
    )
    if len(sigmas) < 2:
        return latents.clone()
    speed, notice = speed or SpeedOptions(), CompilingNotice(progress)
    with ExitStack() as opened:
        layers = default_ops(unet.device, unet.dtype)
        if speed.compile:
            layers = opened.enter_context(compiled_layers(unet.device, on_compile=notice.compiling))
        window = window_for(unet, len(latents), context)
        job = _Job(
            unet, schedule, sigmas, sampler, window, controls, layers, chunks,
            notice.report, is_cancelled,
        )  # fmt: skip
        source = latents.float().cpu() * LATENT_SCALE
        start = 0.0
        if noise_type == "unsample":
            remembered = unsampled_clips or LastResult()
            noisy, start = _unsampled(job, source, conditioning, remembered)
            noise = (noisy - source) / sigmas[0]
        else:
            noise = initial_noise(latents, seed=seed, noise_type=noise_type, context=job.context)
            noisy = _noised(source, noise, sigmas[0], schedule)
        calls = CallCounter(spec, len(sigmas) - 1, part(job.progress, start, 1.0), is_cancelled)
        model: Denoise = job.model(
            conditioning,
            speed.narrowed(guidance or Guidance()),
            calls,
            [style.track(len(latents)) for style in styles],
            FeatureCache(interval=speed.deep_cache_interval),
        )
        if source_blend is not None and not source_blend.is_idle:
            model = source_blend.around(model, source=source, noise=noise, schedule=schedule)
        del source, noise  # of a long clip each is a good part of the memory
        scale = (guidance or Guidance()).scale
        model = stopping(model, dtype=unet.dtype, guidance_scale=scale)
        result = spec.run(
            calls.counted(model), noisy, sigmas, spec.step_noise(noisy, seed, sigmas), schedule
        )
        return result / LATENT_SCALE


@dataclass(frozen=True)
class _Job:
    """What sampling and unsampling have in common."""

    unet: MotionUNet
    schedule: NoiseSchedule
    sigmas: Tensor
    sampler: Sampler
    context: ContextOptions
    controls: Sequence[Control]
    layers: Ops
    chunks: ChunkSizes | None
    progress: ReportProgress
    is_cancelled: IsCancelled

    def model(
        self,
        conditioning: Conditioning,
        guidance: Guidance,
        calls: CallCounter,
        styles: Sequence[StyleTrack] = (),
        cache: FeatureCache | None = None,
    ) -> GuidedModel:
        return GuidedModel(
            self.unet,
            schedule=self.schedule,
            conditioning=conditioning,
            guidance=guidance,
            context=self.context,
            on_passes=calls.on_passes,
            controls=self.controls,
            styles=styles,
            cache=cache,
            layers=self.layers,
            chunks=self.chunks,
        )

    def unsampled(
        self, source: Tensor, conditioning: Conditioning, progress: ReportProgress
    ) -> Tensor:
        """The noisy latents that the source would come from."""
        spec, steps = SAMPLERS[backwards(self.sampler)], len(self.sigmas) - 1
        calls = CallCounter(spec, steps, progress, self.is_cancelled, doing="unsampling")
        model = self.model(conditioning.of_source(), Guidance(scale=1.0), calls)
        return unsampled(
            source,
            calls.counted(stopping(model, dtype=self.unet.dtype, guidance_scale=1.0)),
            self.sigmas,
            sampler=self.sampler,
            schedule=self.schedule,
        )

    def key(self, source: Tensor, conditioning: Conditioning) -> str:
        """Digest what `unsampled` depends on, but for the UNet."""
        return content_key(
            source,
            conditioning.of_source().positive,
            self.controls,
            self.schedule.beta_schedule,
            self.schedule.prediction,
            self.sigmas.tolist(),
            self.sampler,
            self.context,
            self.layers is not default_ops(self.unet.device, self.unet.dtype),
        )


def _unsampled(
    job: _Job, source: Tensor, conditioning: Conditioning, remembered: LastResult
) -> tuple[Tensor, float]:
    """The noisy latents that the source would come from, and the share of the work that it took."""
    key = job.key(source, conditioning)
    share = 0.0 if remembered.has(key) else _UNSAMPLING_SHARE
    report = part(job.progress, 0.0, share)
    return remembered.get(key, lambda: job.unsampled(source, conditioning, report)), share


def _check_additions(
    unet: MotionUNet,
    latents: Tensor,
    controls: Sequence[Control],
    styles: Sequence[StyleImages],
    source_blend: SourceBlend | None,
) -> None:
    for control in controls:
        control.check_fits(unet, latents)
    for style in styles:
        style.check_fits(unet)
    if source_blend is not None:
        source_blend.check_fits(latents)


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
