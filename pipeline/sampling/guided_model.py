"""The UNet as a model for samplers: on a whole video, with guidance, window by window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from ..choices import check_types
from ..models.batching import ChunkSizes
from ..models.feature_cache import FeatureCache
from ..models.ops.feature_bank import FeatureBank
from ..models.ops.interface import Ops
from ..models.ops.select import EAGER_OPS
from ..models.ops.window_memory import WindowMemory
from ..models.unet import MotionUNet
from ..prompts.track import PromptTrack
from .guidance import Guidance
from .keyframes import AnyControl
from .naive_reuse import reused
from .noise_schedule import NoiseSchedule
from .passes import HERE, Execution, Part, Pass, Predictor, predicted_in_order
from .style import StyleTrack
from .windows import ContextMemory, ContextOptions, Window, context_windows, window_weights


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

    def on(self, device: torch.device, dtype: torch.dtype) -> Conditioning:
        """Return the prompts on a device, so that they are copied to it once for all passes."""
        return Conditioning(self.positive.on(device, dtype), self.negative.on(device, dtype))

    def of_source(self) -> Conditioning:
        """Return the prompt of the source as both prompts, for unsampling."""
        prompt = self.source or self.positive
        return Conditioning(prompt, prompt)


class _Blend:
    """The weighted mean of the noise of windows, frame by frame."""

    def __init__(self, noisy: Tensor, context: ContextOptions, reused: Window | None) -> None:
        """Start with nothing.

        Args:
            noisy: The latents of all frames.
            context: How windows are weighted.
            reused: The first window, if its prediction is blended into all frames.
        """
        self._noisy, self._total, self._context = noisy, torch.zeros_like(noisy), context
        self._weights = torch.zeros(len(noisy), 1, 1, 1, device=noisy.device)
        self._reused, self._first = reused, torch.zeros(())

    def add(self, window: Window, noise: Tensor, factor: float | Tensor) -> None:
        """Add the noise [frames of the window, 4, height, width] of a pass.

        Args:
            window: Its frames.
            noise: The noise.
            factor: For all frames, or for each, [frames of the window, 1, 1, 1].
        """
        weights = window_weights(window, len(self._total), self._context).view(-1, 1, 1, 1)
        weights = weights.to(self._total.device)
        # If a wide stride brings a frame into a window twice, its last row counts, as in
        # AnimateDiff-Evolved.
        row_of = {frame: row for row, frame in enumerate(window)}
        frames, rows = _indices(list(row_of)), _indices(list(row_of.values()))
        if isinstance(factor, Tensor):
            factor = factor.to(self._total.device)
        if window is self._reused:
            self._first = self._first + noise * factor
        if isinstance(factor, Tensor):
            factor = factor[rows]
        self._total[frames] += (noise * weights)[rows] * factor
        self._weights[frames] += weights[rows] * factor

    def denoised(self, sigma: Tensor, schedule: NoiseSchedule) -> Tensor:
        """Return the latents without the mean noise; nothing can be added after that."""
        mean = self._total.div_(self._weights)
        result = schedule.denoised(self._noisy, mean, sigma)
        if self._reused is None:
            return result
        noisy = self._noisy[_indices(self._reused)]
        return reused(result, schedule.denoised(noisy, self._first, sigma), self._reused)


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
        controls: Sequence[AnyControl] = (),
        styles: Sequence[StyleTrack] = (),
        cache: FeatureCache | None = None,
        ops: Ops = EAGER_OPS,
        chunks: ChunkSizes | None = None,
        execution: Execution = HERE,
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
            execution: Copies of the network on other devices, which share the passes.
        """
        self._unet = unet
        self._schedule = schedule
        self._conditioning = conditioning.aligned()
        self._guidance = guidance
        self._context = context
        self._on_passes = on_passes
        self._cache = cache or FeatureCache()
        self._chunk_sizes, self._paused = chunks, execution.paused
        first = Predictor(
            unet, schedule=schedule, controls=controls, styles=styles, cache=self._cache, ops=ops
        )
        self._predictors = [first, *(first.on(each, execution) for each in execution.replicas)]
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
        step = self._cache.begin_call(step, float(self._schedule.timestep(sigma)))
        self._conditioning = self._conditioning.on(self._unet.device, self._unet.dtype)
        windows = context_windows(len(noisy), self._context, step=step)
        scale = self._guidance.scale_at(sigma, self._schedule, len(noisy))
        passes = list(self._passes(windows, scale))
        memory = self._context.memory_at(sigma, self._schedule, num_frames=len(noisy))
        again = windows[0] if memory == "NaiveReuse" else None
        guided = _Blend(noisy, self._context, again)
        is_linear = _is_one(scale) or self._guidance.is_linear
        keeps_negative = self._keeps_unconditional or not is_linear
        negative = _Blend(noisy, self._context, again) if keeps_negative else None
        results = self._run(passes, noisy, sigma, memory)
        for one, noise in zip(passes, results, strict=True):
            if is_linear or not one.is_negative:
                guided.add(one.window, noise, one.factor if is_linear else 1.0)
            if negative is not None and one.is_negative:
                negative.add(one.window, noise, 1.0)
        result = guided.denoised(sigma, self._schedule)
        if negative is not None:
            self._unconditional = negative.denoised(sigma, self._schedule)
            if not is_linear:
                return self._guidance.guided(
                    noisy, result, self._unconditional, sigma=sigma, scale=scale
                )
        return result

    def _passes(self, windows: list[Window], scales: float | Tensor) -> Iterator[Pass]:
        """Yield the passes of all windows.

        Guided noise is scale * positive + (1 - scale) * negative: the factors add up to 1.
        """
        prompts = self._conditioning
        is_linear = self._guidance.is_linear or _is_one(scales)
        always_negative = self._keeps_unconditional or not is_linear
        for window in windows:
            scale = scales[window] if isinstance(scales, Tensor) else scales
            passes = [Pass(window, prompts.positive, scale, is_negative=False)]
            if always_negative or not _is_one(scale):
                passes.append(Pass(window, prompts.negative, 1.0 - scale, is_negative=True))
            is_whole = not self._cache.holds([one.key for one in passes])
            yield from (replace(one, is_whole=is_whole) for one in passes)

    def _run(
        self, passes: list[Pass], noisy: Tensor, sigma: Tensor, memory: ContextMemory
    ) -> Iterator[Tensor]:
        """Yield the noise of each pass, in their order, whichever device predicts it."""
        done = 0
        for parts in self._phases(passes, noisy, sigma, memory):
            with closing(predicted_in_order(self._predictors, parts, self._paused)) as predictions:
                for made in predictions:
                    self._cache.keep([one.key for one in made.passes], made.deep)
                    done += len(made.passes)
                    self._on_passes(done / len(passes))
                    yield from made.noise

    def _phases(
        self, passes: list[Pass], noisy: Tensor, sigma: Tensor, kind: ContextMemory
    ) -> Iterator[Iterator[Part]]:
        """Yield the parts of passes that do not wait for each other."""
        if kind not in ("ContextRef", "FeatureBank"):
            yield self._parts(passes, noisy, sigma)
            return
        by_window = [list(group) for _, group in groupby(passes, key=lambda one: id(one.window))]
        if kind == "FeatureBank":
            bank = FeatureBank()
            for some in by_window:
                yield (replace(part, memory=bank) for part in self._parts(some, noisy, sigma))
                bank.end_window()
            return
        memory, first = WindowMemory(), by_window[0]
        for some, is_kept in ((first, True), (passes[len(first) :], False)):
            parts = self._parts(some, noisy, sigma)
            yield (replace(part, memory=memory, is_kept=is_kept) for part in parts)

    def _parts(self, passes: list[Pass], noisy: Tensor, sigma: Tensor) -> Iterator[Part]:
        """Yield passes that go through the UNet together, with their rows of the video."""
        for _, group in groupby(passes, key=lambda one: (len(one.window), one.is_whole)):
            alike = list(group)
            chunks = self._chunk_sizes_for(len(alike[0].window), noisy)
            for start in range(0, len(alike), chunks.passes):
                together = alike[start : start + chunks.passes]
                with self._paused():
                    rows = _rows(noisy, together)
                yield Part(together, rows, sigma, chunks, len(noisy))

    def _chunk_sizes_for(self, frames: int, noisy: Tensor) -> ChunkSizes:
        height, width = noisy.shape[2:]
        pixels = frames * height * width
        return self._chunk_sizes or ChunkSizes.default(self._unet.device, pixels=pixels)


def _is_one(scale: float | Tensor) -> bool:
    return bool((scale == 1).all()) if isinstance(scale, Tensor) else scale == 1


def _rows(noisy: Tensor, passes: Sequence[Pass]) -> Tensor:
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
