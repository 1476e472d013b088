"""Passes of the UNet: what goes through it together, and the devices that share them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import cast

import torch
from torch import Tensor, nn

from ..memory.copies import Network, copy_to
from ..memory.mapped import Paused
from ..models.batching import ChunkSizes, ShrinkingBatch
from ..models.feature_cache import OUTERMOST_LAYERS, DeepFeatures, FeatureCache, PassKey
from ..models.ops.attention import plain_attention
from ..models.ops.feature_bank import FeatureBank
from ..models.ops.image_prompt import ImagePrompt
from ..models.ops.interface import Ops
from ..models.ops.window_memory import RowMemory, WindowMemory
from ..models.pass_strengths import PassStrengths
from ..models.residuals import NO_RESIDUALS, Residuals
from ..models.unet import MotionUNet
from ..prompts.track import PromptTrack
from .frame_strengths import strengths_of
from .keyframes import AnyControl
from .noise_schedule import NoiseSchedule
from .style import StyleTrack
from .windows import Window

# Parts that each of several devices has at hand: one in work, and one to begin at once.
_PARTS_AHEAD = 2


@dataclass(frozen=True)
class Pass:
    """A pass through the UNet: a window with one of the prompts, and its factor in the result."""

    window: Window
    prompt: PromptTrack
    factor: float | Tensor
    """For all frames, or for each, [frames of the window, 1, 1, 1]."""
    is_negative: bool
    is_whole: bool = True
    """True if all layers run; otherwise the outermost do, on features of an earlier call."""

    @property
    def key(self) -> PassKey:
        """The window and the prompt, by which deep features are kept."""
        return tuple(self.window), self.is_negative


@dataclass(frozen=True)
class Part:
    """Equally long passes that go through the UNet together, and all that they need."""

    passes: Sequence[Pass]
    noisy: Tensor
    """Their frames, one pass after another: [passes * frames, 4, height, width]."""
    sigma: Tensor
    chunks: ChunkSizes
    num_frames: int
    """Frames of the video."""
    memory: WindowMemory | FeatureBank | None = None
    """What the passes see of other windows."""
    is_kept: bool = False
    """True for passes of the first window, which go into the memory."""

    @property
    def row_memory(self) -> RowMemory | None:
        """The memory for the rows of the passes."""
        if self.memory is None:
            return None
        prompts = [None if one.is_negative else 0 for one in self.passes]
        return RowMemory(self.memory, prompts, self.frames, self.is_kept)

    @property
    def frames(self) -> int:
        """Frames of each pass."""
        return len(self.passes[0].window)

    def only(self, indices: Sequence[int]) -> Part:
        """Return consecutive passes of the part."""
        start, end = indices[0], indices[-1] + 1
        rows = self.noisy[start * self.frames : end * self.frames]
        return replace(self, passes=self.passes[start:end], noisy=rows)


@dataclass(frozen=True)
class Predicted:
    """The noise of passes."""

    passes: Sequence[Pass]
    noise: Tensor
    """[passes, frames, 4, height, width], float32, where the latents are."""
    deep: DeepFeatures | None
    """Deep features of the passes, to keep for later calls."""


class Predictor:
    """The networks of a job on one device."""

    def __init__(
        self,
        unet: MotionUNet,
        *,
        schedule: NoiseSchedule,
        controls: Sequence[AnyControl],
        styles: Sequence[StyleTrack],
        cache: FeatureCache,
        ops: Ops,
    ) -> None:
        """Bind networks to what stays the same in all calls; see GuidedModel."""
        self._unet, self._schedule = unet, schedule
        self._controls, self._styles = controls, styles
        self._cache, self._ops = cache, ops
        self._batch = ShrinkingBatch("passes of the UNet")

    def on(self, unet: MotionUNet, execution: Execution) -> Predictor:
        """Return a predictor with a copy of the UNet, and with copies of the guides beside it."""
        controls = [
            each.with_network(execution.copy(each.network, unet)) for each in self._controls
        ]
        styles = [
            replace(
                each, style=replace(each.style, adapter=execution.copy(each.style.adapter, unet))
            )
            for each in self._styles
        ]
        return Predictor(
            unet, schedule=self._schedule, controls=controls, styles=styles,
            cache=self._cache, ops=self._ops,
        )  # fmt: skip

    def is_current(self) -> AbstractContextManager[object]:
        """Return a context in which kernels are launched on this device."""
        if self._unet.device.type == "cuda":
            return torch.cuda.device(self._unet.device)
        return nullcontext()

    def predict(self, part: Part) -> list[Predicted]:
        """Return the noise of a part's passes, all at once if the device's memory allows."""
        deep: list[DeepFeatures | None] = []

        def run(indices: Sequence[int]) -> Tensor:
            noise, features = self._predict(part.only(indices))
            deep.append(features)
            return noise

        count = len(part.passes)
        noises = list(self._batch.run(run, range(count), count))
        starts = [sum(map(len, noises[:index])) for index in range(len(noises))]
        return [
            Predicted(part.passes[start : start + len(noise)], noise, features)
            for start, noise, features in zip(starts, noises, deep, strict=True)
        ]

    def _predict(self, part: Part) -> tuple[Tensor, DeepFeatures | None]:
        """Return noise [passes, frames, 4, height, width], and deep features if any are new."""
        passes, sigma = part.passes, part.sigma
        device, dtype = self._unet.device, self._unet.dtype
        # The UNet was trained on inputs of unit variance.
        sample = (part.noisy / (sigma**2 + 1).sqrt()).to(device, dtype)
        context = _context(passes).to(device, dtype)
        timestep = self._schedule.timestep(sigma).to(device)
        keys, is_whole = [one.key for one in passes], passes[0].is_whole
        deep = self._cache.for_passes(keys, like=sample, are_whole=is_whole)
        noise: Tensor = self._unet(
            sample,
            timestep,
            context,
            part.frames,
            residuals=self._residuals(sample, timestep, context, passes, sigma, whole=is_whole),
            images=self._images(passes, sample, sigma),
            deep=deep,
            strengths=self._strengths(part),
            ops=self._ops,
            chunks=part.chunks,
            memory=part.row_memory,
        )
        if deep is not None:
            deep.leave_device()
        noise = noise.float().to(part.noisy.device)
        return noise.view(len(passes), part.frames, *noise.shape[1:]), deep

    def _strengths(self, part: Part) -> PassStrengths:
        frames = [frame for one in part.passes for frame in one.window]
        return strengths_of(self._unet, frames, part.num_frames, part.sigma, self._schedule)

    def _residuals(
        self,
        sample: Tensor,
        timestep: Tensor,
        context: Tensor,
        passes: Sequence[Pass],
        sigma: Tensor,
        *,
        whole: bool,
    ) -> Residuals:
        """Return the sum of the residuals of all ControlNets that act at this noise level.

        Args:
            sample: [passes * frames, 4, height, width].
            timestep: [1].
            context: The prompt of each pass or of each row.
            passes: The passes.
            sigma: The noise level.
            whole: True when all layers of the UNet run.
        """
        depth = None if whole else OUTERMOST_LAYERS
        residuals = NO_RESIDUALS
        for control in self._controls:
            if control.span.contains(sigma, self._schedule):
                context = context.repeat_interleave(len(sample) // len(context), dim=0)
                windows = [one.window for one in passes]
                residuals = residuals.plus(
                    control.residuals(sample, timestep, context, windows, depth)
                )
        return residuals

    def _images(self, passes: Sequence[Pass], sample: Tensor, sigma: Tensor) -> list[ImagePrompt]:
        """Return the image prompts of all IP-Adapters that act at this noise level."""
        windows = [(one.window, one.is_negative) for one in passes]
        return [
            track.prompt(windows, sample)
            for track in self._styles
            if track.style.span.contains(sigma, self._schedule)
        ]


@dataclass(frozen=True)
class Execution:
    """The devices that passes run on besides the UNet's, and the context they run in."""

    replicas: Sequence[MotionUNet] = ()
    """Copies of the UNet, on devices that share the passes with its own."""
    paused: Paused = nullcontext
    """Returns a context for passes of the networks, in which tensors are as usual."""
    _copies: dict[tuple[nn.Module, MotionUNet], nn.Module] = field(default_factory=dict)

    def copy(self, network: Network, replica: MotionUNet) -> Network:
        """Return a copy of a network on the device of a replica.

        It is made once: each tile and each phase of a job has a model of its own.
        """
        key = (network, replica)
        if key not in self._copies:
            self._copies[key] = copy_to(network, replica.device)
        return cast("Network", self._copies[key])


HERE = Execution()


def predicted_in_order(
    predictors: Sequence[Predictor], parts: Iterable[Part], paused: Paused
) -> Generator[Predicted, None, None]:
    """Yield the predictions for parts, in the order of the parts.

    With several predictors, each has a thread, and takes the next part when it is free. The first
    error ends all; so does closing the iterator.
    """
    if len(predictors) == 1:
        for part in parts:
            with paused():
                predicted = predictors[0].predict(part)
            yield from predicted
        return
    free: SimpleQueue[Predictor] = SimpleQueue()
    for predictor in predictors:
        free.put(predictor)

    def predict(part: Part) -> list[Predicted]:
        predictor = free.get()
        try:
            with torch.inference_mode(), predictor.is_current(), plain_attention():
                return predictor.predict(part)
        finally:
            free.put(predictor)

    waiting: deque[Future[list[Predicted]]] = deque()
    threads = ThreadPoolExecutor(len(predictors), "device")
    try:
        for part in parts:
            waiting.append(threads.submit(predict, part))
            if len(waiting) == _PARTS_AHEAD * len(predictors):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _context(passes: Sequence[Pass]) -> Tensor:
    """Return the prompt of each pass, or of each frame if one of them changes along the video."""
    if all(one.prompt.is_constant for one in passes):
        return torch.cat([one.prompt.encodings for one in passes])
    return torch.cat([one.prompt.at(one.window) for one in passes])
