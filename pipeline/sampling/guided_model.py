"""The UNet as a model for samplers: on a whole video, with guidance, window by window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from ..choices import check_types
from ..memory.mapped import Paused
from ..models.batching import ChunkSizes, ShrinkingBatch
from ..models.feature_cache import OUTERMOST_LAYERS, FeatureCache, PassKey
from ..models.ops.image_prompt import ImagePrompt
from ..models.ops.interface import Ops
from ..models.ops.select import EAGER_OPS
from ..models.residuals import NO_RESIDUALS, Residuals
from ..models.unet import MotionUNet
from ..prompts.track import PromptTrack
from .control import Control
from .guidance import Guidance
from .noise_schedule import NoiseSchedule
from .style import StyleTrack
from .windows import ContextOptions, Window, context_windows, window_weights


@dataclass(frozen=True)
class Conditioning:
    """The encoded prompts: what the video should show, and what it should not show."""

    positive: PromptTrack
    negative: PromptTrack
    source: PromptTrack | None = None
    """A description of the source, for unsampling; None uses the positive prompt."""

    def __post_init__(self) -> None:
        """Refuse prompts that are not encoded."""
        check_types(self)

    @classmethod
    def of(cls, positive: Tensor, negative: Tensor) -> Conditioning:
        """Return the same prompts for all frames, [1, tokens, channels] each."""
        return cls(PromptTrack(positive), PromptTrack(negative))

    def aligned(self) -> Conditioning:
        """Return the prompts repeated to one number of tokens, as ComfyUI aligns them."""
        tokens = math.lcm(self.positive.tokens, self.negative.tokens)
        return Conditioning(self.positive.repeated(tokens), self.negative.repeated(tokens))

    def of_source(self) -> Conditioning:
        """Return the prompt of the source as both prompts, for unsampling."""
        prompt = self.source or self.positive
        return Conditioning(prompt, prompt)


@dataclass(frozen=True)
class _Pass:
    """A pass through the UNet: a window with one of the prompts, and its factor in the result."""

    window: Window
    prompt: PromptTrack
    factor: float
    is_negative: bool
    is_whole: bool = True
    """True if all layers run; otherwise the outermost do, on features of an earlier call."""

    @property
    def key(self) -> PassKey:
        return tuple(self.window), self.is_negative


class _Blend:
    """The weighted mean of the noise of windows, frame by frame."""

    def __init__(self, like: Tensor, context: ContextOptions) -> None:
        self._total, self._context = torch.zeros_like(like), context
        self._weights = torch.zeros(len(like), 1, 1, 1, device=like.device)

    def add(self, window: Window, noise: Tensor, factor: float) -> None:
        """Add the noise [frames of the window, 4, height, width] of a pass."""
        weights = window_weights(window, len(self._total), self._context).view(-1, 1, 1, 1)
        weights = weights.to(self._total.device)
        # If a wide stride brings a frame into a window twice, its last row counts, as in
        # AnimateDiff-Evolved.
        row_of = {frame: row for row, frame in enumerate(window)}
        frames, rows = _indices(list(row_of)), _indices(list(row_of.values()))
        self._total[frames] += (noise * weights)[rows] * factor
        self._weights[frames] += weights[rows] * factor

    def mean(self) -> Tensor:
        """Return the mean; nothing can be added after that."""
        return self._total.div_(self._weights)


class GuidedModel:
    """A model that denoises any number of frames, a few windows at a time."""

    def __init__(
        self,
        unet: MotionUNet,
        *,
        schedule: NoiseSchedule,
        conditioning: Conditioning,
        guidance: Guidance,
        context: ContextOptions,
        on_passes: Callable[[float], None],
        controls: Sequence[Control] = (),
        styles: Sequence[StyleTrack] = (),
        cache: FeatureCache | None = None,
        ops: Ops = EAGER_OPS,
        chunks: ChunkSizes | None = None,
        paused: Paused = nullcontext,
    ) -> None:
        """Bind the network to a job.

        Args:
            unet: The network.
            schedule: The noise levels that it was trained on.
            conditioning: The encoded prompts.
            guidance: Scale and interval of classifier-free guidance.
            context: Window length and overlap, and how windows are blended.
            on_passes: Called after passes with the share of the call's passes that is done; may
                raise.
            controls: ControlNets with their frames; their residuals add up.
            styles: IP-Adapters with their images along the video.
            cache: Deep features of the job, for calls in which not all layers run.
            ops: The operations to run the network's layers with.
            chunks: Sizes of the chunks that go through the network; None is its device's default.
            paused: Gives a context for passes of the network, in which tensors are as usual.
        """
        self._unet = unet
        self._schedule = schedule
        self._conditioning = conditioning.aligned()
        self._guidance = guidance
        self._context = context
        self._on_passes = on_passes
        self._controls, self._styles = controls, styles
        self._cache = cache or FeatureCache()
        self._ops = ops
        self._chunk_sizes, self._paused = chunks, paused
        self._batch = ShrinkingBatch("passes of the UNet")
        self._keeps_unconditional = False
        self._unconditional: Tensor | None = None

    def keep_unconditional(self) -> None:
        """Predict for the negative prompt at any guidance scale from now on, and keep the result.

        It takes as much memory as the latents.
        """
        self._keeps_unconditional = True

    def unconditional(self) -> Tensor:
        """Return the latest call's result for the negative prompt alone."""
        if self._unconditional is None:
            raise RuntimeError("The model has not been called, or keeps no such result.")
        return self._unconditional

    def __call__(self, noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
        """Denoise [frames, 4, height, width], float32, from level `sigma`, which is on the CPU.

        The latents may be on the CPU or on the UNet's device; the result is where they are.

        For 6 frames in the windows [0, 1, 2, 3] and [2, 3, 4, 5] with pyramid weights 1, 2, 2, 1,
        frame 2 has weight 2 in the first window and 1 in the second: its noise is (2 * a + 1 * b) /
        3. Guidance multiplies these weights by the passes' factors, which add up to 1.
        """
        step = self._cache.begin_call(step)
        windows = context_windows(len(noisy), self._context, step=step)
        scale = self._guidance.scale_at(sigma, self._schedule)
        passes = list(self._passes(windows, scale))
        guided = _Blend(noisy, self._context)
        is_linear = scale == 1 or self._guidance.is_linear
        keeps_negative = self._keeps_unconditional or not is_linear
        negative = _Blend(noisy, self._context) if keeps_negative else None
        results = self._run(passes, noisy, sigma)
        for one, noise in zip(passes, results, strict=True):
            if is_linear or not one.is_negative:
                guided.add(one.window, noise, one.factor if is_linear else 1.0)
            if negative is not None and one.is_negative:
                negative.add(one.window, noise, 1.0)
        result = self._schedule.denoised(noisy, guided.mean(), sigma)
        if negative is not None:
            self._unconditional = self._schedule.denoised(noisy, negative.mean(), sigma)
            if not is_linear:
                return self._guidance.guided(
                    noisy, result, self._unconditional, sigma=sigma, scale=scale
                )
        return result

    def _passes(self, windows: list[Window], scale: float) -> Iterator[_Pass]:
        """Yield the passes of all windows.

        Guided noise is scale * positive + (1 - scale) * negative: the factors add up to 1.
        """
        prompts = self._conditioning
        for window in windows:
            passes = [_Pass(window, prompts.positive, scale, is_negative=False)]
            if scale != 1.0 or self._keeps_unconditional:
                passes.append(_Pass(window, prompts.negative, 1.0 - scale, is_negative=True))
            is_whole = not self._cache.holds([one.key for one in passes])
            yield from (replace(one, is_whole=is_whole) for one in passes)

    def _run(self, passes: list[_Pass], noisy: Tensor, sigma: Tensor) -> Iterator[Tensor]:
        done = 0
        for _, group in groupby(passes, key=lambda one: (len(one.window), one.is_whole)):
            alike = list(group)
            chunks = self._chunk_sizes_for(len(alike[0].window), noisy)
            run = partial(self._predict_paused, noisy=noisy, sigma=sigma, chunks=chunks)
            for noise in self._batch.run(run, alike, chunks.passes):
                done += len(noise)
                self._on_passes(done / len(passes))
                yield from noise

    def _chunk_sizes_for(self, frames: int, noisy: Tensor) -> ChunkSizes:
        height, width = noisy.shape[2:]
        pixels = frames * height * width
        return self._chunk_sizes or ChunkSizes.default(self._unet.device, pixels=pixels)

    def _predict_paused(self, passes: Sequence[_Pass], **given: Any) -> Tensor:
        with self._paused():
            return self._predict(passes, **given)

    def _predict(
        self, passes: Sequence[_Pass], noisy: Tensor, sigma: Tensor, chunks: ChunkSizes
    ) -> Tensor:
        """Return the noise of equally long passes, [passes, frames, 4, height, width]."""
        frames = len(passes[0].window)
        device, dtype = self._unet.device, self._unet.dtype
        rows = [frame for one in passes for frame in one.window]
        # The UNet was trained on inputs of unit variance.
        sample = (_rows(noisy, passes) / (sigma**2 + 1).sqrt()).to(device, dtype)
        context = _context(passes).to(device, dtype)
        timestep = self._schedule.timestep(sigma).to(device)
        keys, is_whole = [one.key for one in passes], passes[0].is_whole
        deep = self._cache.for_passes(keys, like=sample, are_whole=is_whole)
        noise: Tensor = self._unet(
            sample,
            timestep,
            context,
            frames,
            residuals=self._residuals(sample, timestep, context, rows, sigma, whole=is_whole),
            images=self._images(passes, sample, sigma),
            deep=deep,
            ops=self._ops,
            chunks=chunks,
        )
        self._cache.keep(keys, deep)
        return noise.float().to(noisy.device).view(len(passes), frames, *noise.shape[1:])

    def _residuals(
        self,
        sample: Tensor,
        timestep: Tensor,
        context: Tensor,
        rows: list[int],
        sigma: Tensor,
        *,
        whole: bool,
    ) -> Residuals:
        """Return the sum of the residuals of all ControlNets that act at this noise level.

        Args:
            sample: [passes * frames, 4, height, width].
            timestep: [1].
            context: The prompt of each pass or of each row.
            rows: The frame that each row shows.
            sigma: The noise level.
            whole: True when all layers of the UNet run.
        """
        depth = None if whole else OUTERMOST_LAYERS
        residuals = NO_RESIDUALS
        for control in self._controls:
            if control.span.contains(sigma, self._schedule):
                context = context.repeat_interleave(len(rows) // len(context), dim=0)
                residuals = residuals.plus(
                    control.residuals(sample, timestep, context, rows, depth)
                )
        return residuals

    def _images(self, passes: Sequence[_Pass], sample: Tensor, sigma: Tensor) -> list[ImagePrompt]:
        """Return the image prompts of all IP-Adapters that act at this noise level."""
        windows = [(one.window, one.is_negative) for one in passes]
        return [
            track.prompt(windows, sample)
            for track in self._styles
            if track.style.span.contains(sigma, self._schedule)
        ]


def _rows(noisy: Tensor, passes: Sequence[_Pass]) -> Tensor:
    """Return the latents of the windows of passes, one after the other.

    Slices are joined, because indices would be copied to a device, which waits.
    """
    return torch.cat([noisy[_indices(list(one.window))] for one in passes])


def _indices(indices: list[int]) -> slice | list[int]:
    """Return the indices as a slice if they are consecutive: indexing by a slice copies nothing."""
    first, last = indices[0], indices[-1]
    if indices == list(range(first, last + 1)):
        return slice(first, last + 1)
    return indices


def _context(passes: Sequence[_Pass]) -> Tensor:
    """Return the prompt of each pass, or of each frame if one of them changes along the video."""
    if all(one.prompt.is_constant for one in passes):
        return torch.cat([one.prompt.encodings for one in passes])
    return torch.cat([one.prompt.at(one.window) for one in passes])
