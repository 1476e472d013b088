"""Sampling on latents: noise for a seed, steps down the schedule, and the restyled latents."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..choices import checked_type
from ..curve import highest, values_of
from ..errors import AnimateDiffV2VError
from ..models.batching import ChunkSizes
from ..models.feature_cache import FeatureCache
from ..models.last_result import LastResult
from ..models.motion_module import MotionModules
from ..models.ops.accumulation import fp16_accumulation
from ..models.ops.compiled import compiled_layers
from ..models.ops.interface import Ops
from ..models.ops.select import default_ops
from ..models.ops.stored_layers import fp8_products
from ..models.unet import MotionUNet
from ..models.vae import LATENT_SCALE
from ..progress import IsCancelled, ReportProgress, never, numbered, silent
from .calls import CallCounter, CompilingNotice, part
from .custom import NO_CUSTOM_SAMPLING, CustomSampler, CustomSampling
from .denoise import Denoise, DenoiseBoth, Guided, HasUnconditional
from .finite_results import check_inputs, check_result, stopping
from .free_init import round_seed
from .guidance import Guidance
from .guided_model import Conditioning, GuidedModel
from .guides import NO_GUIDES, Guides
from .held_frames import hold_frames, start_levels
from .initial_noise import initial_noise
from .kept_calls import KeptCalls
from .noise_schedule import NoiseSchedule
from .samplers import SAMPLERS
from .settings import SamplingSettings
from .style import StyleTrack
from .unsampling import backwards, content_key, unsampled
from .windows import ContextOptions

logger = logging.getLogger(__name__)

# While a video is sampled, up to fourteen tensors of the size of its latents exist at a time; those
# of 128 frames of 512x512 take this much together, and more stay in main memory.
_MOST_ON_DEVICE = 128 * 14 * 4 * 64 * 64 * 4
_TENSORS_OF_A_SAMPLER = 14
# Unsampling runs without guidance, sampling mostly with it, which doubles the work.
_UNSAMPLING_SHARE = 1 / 3

# Returns the model that a sampler calls; takes the arguments of `GuidedModel`.
MakeGuided = Callable[..., Guided]


def noise_schedule(unet: MotionUNet, settings: SamplingSettings) -> NoiseSchedule:
    """Return the noise levels that the settings name, or those that the network was trained on."""
    choice = settings.beta_schedule
    beta_schedule = unet.beta_schedule if choice == "autoselect" else choice
    return NoiseSchedule(beta_schedule, unet.parameterization)


@torch.inference_mode()
def sample_latents(
    unet: MotionUNet,
    latents: Tensor,
    conditioning: Conditioning,
    settings: SamplingSettings,
    *,
    guides: Guides = NO_GUIDES,
    custom: CustomSampling = NO_CUSTOM_SAMPLING,
    chunks: ChunkSizes | None = None,
    unsampled_latents: LastResult | None = None,
    make_guided: MakeGuided = GuidedModel,
    kept_calls: KeptCalls | None = None,
    progress: ReportProgress = silent,
    is_cancelled: IsCancelled = never,
) -> Tensor:
    """Restyle a video given as latents.

    The result depends on the arguments alone, not on `chunks` or on earlier calls; on a CPU it is
    the same bit for bit.

    Args:
        unet: The network, on the device and in the dtype to compute in.
        latents: [frames, 4, height / 8, width / 8], unscaled: the VAE's output, and ComfyUI's
            LATENT convention.
        conditioning: The encoded prompts.
        settings: Steps, seed, windows and so on. A `denoise` of 0 returns a copy of the latents.
        guides: ControlNets, IP-Adapters, and how much of the source is kept.
        custom: A sampler or noise levels in place of those of the settings.
        chunks: How much goes through the UNet at a time; None is the default of its device.
            Compiled operations always take all tokens.
        unsampled_latents: Keeps the result of noise_type "unsample" for the next call on this UNet.
        make_guided: Makes the model that samplers call; hosts with networks of their own give it.
        kept_calls: Keeps the results of the model's calls for a run after this one is killed.
        progress: Called after each pass of the UNet; `fraction` is the share of the sampling done.
        is_cancelled: Called before each pass of the UNet.

    Returns:
        Latents of the same shape and convention, float32, on the CPU.

    Raises:
        AnimateDiffV2VError: arguments do not fit each other, `settings.speed` asks for compiled
            code that is not available, or a step gives latents that are not finite.
        Cancelled: `is_cancelled` returned True.
    """
    guides = _checked_arguments(unet, latents, conditioning, settings, guides)
    schedule = noise_schedule(unet, settings)
    denoise = values_of(settings.denoise, len(latents))
    sigmas = custom.levels(schedule, settings, max(denoise))
    if len(sigmas) < 2:
        return latents.clone()
    starts = start_levels(denoise, lambda each: custom.levels(schedule, settings, each))
    notice = CompilingNotice(progress)
    with _ops(unet, settings, notice) as ops:
        window = guides.checked_window(unet, latents, settings.context)
        run = _Run(
            unet, settings, guides, custom.sampler, schedule, sigmas, starts, window, ops, chunks,
            make_guided, kept_calls, notice.report, is_cancelled,
        )  # fmt: skip
        return run.sample_rounds(latents, conditioning, unsampled_latents or LastResult())


@dataclass(frozen=True)
class _Run:
    """One call of `sample_latents` whose arguments are checked."""

    unet: MotionUNet
    settings: SamplingSettings
    guides: Guides
    custom_sampler: CustomSampler | None
    schedule: NoiseSchedule
    sigmas: Tensor
    starts: Tensor
    context: ContextOptions
    ops: Ops
    chunks: ChunkSizes | None
    make_guided: MakeGuided
    kept_calls: KeptCalls | None
    progress: ReportProgress
    is_cancelled: IsCancelled

    def sample_rounds(
        self, latents: Tensor, conditioning: Conditioning, unsampled_latents: LastResult
    ) -> Tensor:
        """Sample once, or as often as FreeInit says, then with noise made of the last result."""
        rounds, noise = self.settings.rounds, None
        for index in range(rounds):
            report = numbered(self.progress, "round", index + 1, rounds)
            report = part(report, index / rounds, (index + 1) / rounds)
            run = self if rounds == 1 else replace(self, progress=report)
            phase = f"sample{index + 1}" if index else "sample"
            result = run.sample(latents, conditioning, unsampled_latents, noise, phase)
            if index + 1 < rounds:
                noise = self._renewed(result, noise, index + 1)
        return result

    def _renewed(self, result: Tensor, noise: Tensor | None, index: int) -> Tensor:
        """Return the noise for round `index`, of the result of the last round and its noise."""
        assert self.settings.free_init is not None
        noise = self._drawn(result, 0) if noise is None else noise
        fresh, sigma_max = self._drawn(result, index), self.schedule.sigma_max / LATENT_SCALE
        return self.settings.free_init.renewed(result, noise, fresh, sigma_max)

    def _drawn(self, like: Tensor, index: int) -> Tensor:
        settings = self.settings
        return initial_noise(
            like,
            seed=round_seed(settings.seed, index),
            noise_type=settings.noise_type,
            context=self.context,
        )

    def sample(
        self,
        latents: Tensor,
        conditioning: Conditioning,
        unsampled_latents: LastResult,
        noise: Tensor | None,
        phase: str,
    ) -> Tensor:
        """Sample once, from the given noise or that of the seed."""
        settings, schedule, sigmas = self.settings, self.schedule, self.sigmas
        device = self._sampling_device(latents)
        source = latents.float().to(device) * LATENT_SCALE
        start = 0.0  # the share of the work that is done when sampling begins
        if settings.noise_type == "unsample":
            noisy, start = self._unsampled(source, conditioning, unsampled_latents)
            noise = (noisy - source) / sigmas[0]
        else:
            noise = (self._drawn(latents, 0) if noise is None else noise).to(device)
            noisy = schedule.noised(source, noise, sigmas[0])
        total = None
        if self.custom_sampler is None:
            total = SAMPLERS[settings.sampler].model_calls(len(sigmas) - 1)
        calls = CallCounter(total, sigmas, part(self.progress, start, 1.0), self.is_cancelled)
        guided = self._model(
            conditioning,
            settings.speed.narrowed(settings.guidance),
            calls,
            styles=[style.track(len(latents)) for style in self.guides.styles],
            cache=FeatureCache(interval=settings.speed.deep_cache_interval),
        )
        model: Denoise = guided
        if not self.guides.source_blend.is_idle:
            model = self.guides.source_blend.around(
                model, source=source, noise=noise, schedule=schedule
            )
        model, inner = hold_frames(model, guided, self.starts, source=source, noise=noise)
        model = stopping(model, dtype=self.unet.dtype, guidance_scale=self._guidance_scale)
        interval = settings.speed.deep_cache_interval
        model, inner = self._kept(model, inner, phase, total, interval=interval)
        both = DenoiseBoth(calls.counted(model), inner)
        del model
        if self.custom_sampler is not None:
            if settings.noise_type == "unsample":
                noise = (noisy - source) / schedule.noise_factor(sigmas[0])
            del noisy
            result = self.custom_sampler(
                both,
                source=source,
                noise=noise,
                sigmas=sigmas,
                schedule=schedule,
                settings=settings,
            )
            return result / LATENT_SCALE
        del source, noise  # each takes as much memory as the whole video's latents
        spec = SAMPLERS[settings.sampler]
        step_noise = spec.step_noise(noisy, settings.seed, sigmas)
        result = spec.run(both, noisy, sigmas, step_noise, schedule) / LATENT_SCALE
        return self._checked(result)

    def _kept(
        self,
        model: Denoise,
        guided: HasUnconditional,
        phase: str,
        calls: int | None,
        *,
        interval: int = 1,
    ) -> tuple[Denoise, HasUnconditional]:
        """Return the model, and the one that has the unconditional prediction, with calls kept."""
        if self.kept_calls is None:
            return model, guided
        calls = calls or len(self.sigmas) - 1
        kept = self.kept_calls.around(model, guided, phase=phase, calls=calls, interval=interval)
        return kept, kept

    def _checked(self, result: Tensor) -> Tensor:
        """Return the result on the CPU; raise AnimateDiffV2VError unless it is finite."""
        if result.device.type == "cpu":  # each of its steps was checked
            return result
        last, scale = len(self.sigmas) - 2, self._guidance_scale
        return check_result(result.cpu(), last, dtype=self.unet.dtype, guidance_scale=scale)

    @property
    def _guidance_scale(self) -> float:
        return highest(self.settings.guidance.scale)

    def _sampling_device(self, latents: Tensor) -> torch.device:
        """Return the device for the latents between the passes of the UNet.

        On the UNet's own device no pass waits for a copy. It is the CPU if other networks, a host's
        sampler or a limit on memory need that, or if the latents are too large. Noise levels stay
        on the CPU, where reading them does not wait for the device.
        """
        device, size = self.unet.device, latents.numel() * latents.element_size()
        is_ours = self.make_guided is GuidedModel and self.custom_sampler is None
        fits = _TENSORS_OF_A_SAMPLER * size <= _MOST_ON_DEVICE
        is_fast = device.type == "cuda" and self.chunks is None
        return device if is_ours and fits and is_fast else torch.device("cpu")

    def _model(
        self,
        conditioning: Conditioning,
        guidance: Guidance,
        calls: CallCounter,
        *,
        styles: Sequence[StyleTrack] = (),
        cache: FeatureCache | None = None,
    ) -> Guided:
        return self.make_guided(
            self.unet,
            schedule=self.schedule,
            conditioning=conditioning,
            guidance=guidance,
            context=self.context,
            on_passes=calls.on_passes,
            controls=self.guides.controls,
            styles=styles,
            cache=cache,
            ops=self.ops,
            chunks=self.chunks,
        )

    def _unsampled(
        self, source: Tensor, conditioning: Conditioning, unsampled_latents: LastResult
    ) -> tuple[Tensor, float]:
        """Return the noisy latents that lead to the source, and the share of work for them."""
        key = self._unsampling_key(source, conditioning)
        share = 0.0 if unsampled_latents.has(key) else _UNSAMPLING_SHARE
        report = part(self.progress, 0.0, share)
        return unsampled_latents.get(key, lambda: self._unsample(source, conditioning, report)).to(
            source.device
        ), share

    def _unsample(
        self, source: Tensor, conditioning: Conditioning, progress: ReportProgress
    ) -> Tensor:
        sampler, steps = self.settings.sampler, len(self.sigmas) - 1
        spec = SAMPLERS[backwards(sampler)]
        total = spec.model_calls(steps)
        calls = CallCounter(total, self.sigmas, progress, self.is_cancelled, doing="unsampling")
        guided = self._model(conditioning.of_source(), Guidance(scale=1.0), calls)
        model = stopping(guided, dtype=self.unet.dtype, guidance_scale=1.0)
        model, _ = self._kept(model, guided, "unsample", total)
        return unsampled(
            source,
            calls.counted(model),
            self.sigmas,
            sampler=sampler,
            schedule=self.schedule,
        )

    def _unsampling_key(self, source: Tensor, conditioning: Conditioning) -> str:
        """Digest everything that `_unsample` depends on, except the UNet."""
        return content_key(
            source,
            conditioning.of_source().positive,
            self.guides.controls,
            self.schedule.beta_schedule,
            self.schedule.prediction,
            self.sigmas.tolist(),
            self.settings.sampler,
            self.context,
            self.settings.speed.compile,
            self.settings.speed.reduced_precision,
        )


@contextmanager
def _ops(unet: MotionUNet, settings: SamplingSettings, notice: CompilingNotice) -> Iterator[Ops]:
    """Provide the operations to run the UNet with, compiled or less exact if settings say so."""
    reduced = settings.speed.reduced_precision
    with fp16_accumulation(on=reduced), fp8_products((unet,), on=reduced):
        if settings.speed.compile:
            with compiled_layers(unet.device, on_compile=notice.compiling) as ops:
                yield ops
        else:
            yield default_ops(unet.device, unet.dtype)


def _checked_arguments(
    unet: MotionUNet,
    latents: Tensor,
    conditioning: Conditioning,
    settings: SamplingSettings,
    guides: Guides,
) -> Guides:
    """Return the guides, with keyframes at frames of this video, if the arguments are right."""
    checked_type("latents", latents, Tensor)
    checked_type("conditioning", conditioning, Conditioning)
    checked_type("settings", settings, SamplingSettings)
    checked_type("guides", guides, Guides)
    _check_latents(latents)
    check_inputs(latents, conditioning)
    guides.check_fits(unet, latents)
    motion: MotionModules | None = getattr(unet, "motion", None)
    if motion is not None:
        motion.masks.check_count(len(latents))
    if settings.speed.compile and getattr(unet, "is_uneven", False):
        raise AnimateDiffV2VError(
            "compile is on, and a LoRA or the motion module has a curve or a mask as its strength, "
            "which compiled layers cannot: switch compile off, or give numbers."
        )
    return guides.placed(len(latents))


def _check_latents(latents: Tensor) -> None:
    if latents.ndim != 4 or latents.shape[1] != 4 or 0 in latents.shape:
        raise AnimateDiffV2VError(
            f"The latents have the shape {list(latents.shape)}; Stable Diffusion 1.5 needs "
            "[frames, 4, height / 8, width / 8]."
        )
