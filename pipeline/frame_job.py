"""The loop that every job runs: encode frames, sample their latents, decode the result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .curve import highest
from .memory.mapped import Paused, Scratch
from .models import Models
from .models.ops.stored_layers import fp8_products
from .presets import unsuitable
from .progress import (
    IsCancelled,
    Phase,
    PhaseScale,
    Progress,
    ReportProgress,
    never,
    silent,
    stop_if,
)
from .request import Timings
from .sampling import Conditioning, CustomSampling, Guides, SamplingSettings, sample_latents
from .sampling.frame_strengths import steady_curves
from .sampling.guided_model import GuidedModel
from .sampling.kept_calls import KeptCalls
from .sampling.passes import Execution
from .sampling.sample import MakeGuided, noise_schedule

logger = logging.getLogger(__name__)

# Frames in memory at a time between the reader and the codec.
FRAMES_PER_CHUNK = 8

BeforePhase = Callable[[Phase], None]
Item = TypeVar("Item")


class FrameJob:
    """One run of a video's frames through the networks.

    Frames come and go in chunks; only latents, 1/48 of the size of 8-bit frames, are kept whole.
    """

    def __init__(
        self,
        models: Models,
        settings: SamplingSettings,
        *,
        progress: ReportProgress = silent,
        is_cancelled: IsCancelled = never,
        before_phase: BeforePhase = lambda _phase: None,
        clock: Clock | None = None,
        custom: CustomSampling | None = None,
        sample: Callable[..., Tensor] = sample_latents,
        scratch: Scratch | None = None,
        kept_calls: KeptCalls | None = None,
        make_guided: MakeGuided = GuidedModel,
        warned: set[str] | None = None,
    ) -> None:
        """Prepare a job.

        Args:
            models: The networks. `before_phase` may move them between devices.
            settings: How to sample.
            progress: Called after each chunk of frames and each pass of the UNet.
            is_cancelled: Called before each of them; True raises Cancelled.
            before_phase: Called with "encode", "sample" and "decode_latents" before the networks
                of that phase are used.
            clock: Measures the phases.
            custom: A sampler or noise levels in place of those of the settings.
            sample: Takes the place of `sample_latents`, with the same arguments.
            scratch: Files for tensors of the whole video, if they are too large for main memory.
            kept_calls: Keeps what sampling has done so far, for a job after this one is killed.
            make_guided: As for `sample_latents`.
            warned: Warnings that are not repeated; new ones are added.
        """
        self._models, self._settings = models, settings
        self._progress, self._is_cancelled = progress, is_cancelled
        self._before_phase = before_phase
        self._clock = clock or Clock()
        self._custom = custom or CustomSampling()
        self._sample_latents, self._scratch = sample, scratch
        self._kept_calls = kept_calls
        self._make_guided = make_guided
        self._warned = set() if warned is None else warned
        self._scale = PhaseScale(passes=settings.passes)

    def restyle(
        self,
        chunks: Iterable[Tensor],
        *,
        frame_count: int | None,
        conditioning: Callable[[int], Conditioning],
        guides: Callable[[], Guides],
        encode: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Encode frames and sample their latents.

        Args:
            chunks: The frames in order, each chunk [n, height, width, 3], uint8 or float 0..1.
            frame_count: Frames in all chunks, for the progress; None where it is not known.
            conditioning: Returns the encoded prompts for a number of frames; called after encoding.
            guides: Returns what guides sampling; called after encoding, before the UNet moves to
                its device.
            encode: Returns the latents of a chunk; None encodes with the VAE.

        Returns:
            Latents [frames, 4, height / 8, width / 8]; see sample_latents.
        """
        self._before_phase("encode")
        parts = self._encoded(chunks, encode or self._models.codec.encode, frame_count)
        latents = torch.cat(list(parts)) if self._scratch is None else self._scratch.joined(parts)
        with self._clock.phase("encode"):
            encoded = conditioning(len(latents))
            given = guides().encoded(self._models.codec, latents)
        self._before_phase("sample")
        with self._clock.phase("sample"):
            return self._sample(latents, encoded, given)

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Yield the frames of latents in chunks [n, height, width, 3], float32, 0..1.

        They may lie on the VAE's device.
        """
        self._before_phase("decode_latents")
        done = 0
        for chunk in self._clock.timed("decode_latents", self._models.codec.decode(latents)):
            done += len(chunk)
            self._report("decode_latents", done, len(latents))
            yield chunk

    def _encoded(
        self,
        chunks: Iterable[Tensor],
        encode: Callable[[Tensor], Tensor],
        frame_count: int | None,
    ) -> Iterator[Tensor]:
        done = 0
        for chunk in chunks:
            stop_if(self._is_cancelled)
            with self._clock.phase("encode"):
                latents = encode(chunk)
            done += len(chunk)
            self._report("encode", done, frame_count)
            yield latents

    def _sample(self, latents: Tensor, conditioning: Conditioning, guides: Guides) -> Tensor:
        models, settings = self._models, self._settings
        self._warn(len(latents))
        sample = partial(
            self._sample_latents,
            models.unet,
            latents,
            conditioning,
            settings,
            guides=guides,
            custom=self._custom,
            chunks=models.chunks,
            unsampled_latents=models.unsampled_latents,
            progress=self._report_sampling,
            is_cancelled=self._is_cancelled,
        )
        if self._kept_calls is not None:
            sample = partial(sample, kept_calls=self._kept_calls)
        with ExitStack() as opened:
            paused: Paused = nullcontext
            if self._scratch is not None:
                paused = opened.enter_context(self._scratch.mapping(latents))
            is_plain = paused is nullcontext and not models.replicas
            if is_plain and self._make_guided is GuidedModel:
                return sample()  # whose latents may stay on the device
            execution = Execution(models.replicas, paused)
            opened.enter_context(fp8_products(models.replicas, on=settings.speed.reduced_precision))
            return sample(make_guided=partial(self._make_guided, execution=execution))

    def _warn(self, frame_count: int) -> None:
        for warning in (
            *unsuitable(frame_count, self._settings, self._models),
            *self._steady_curves(),
        ):
            if warning in self._warned:
                continue
            self._warned.add(warning)
            logger.warning("%s", warning)
            # For callers of the API, who see no log.
            self._report_sampling(Progress("sample", 0.0, warning, is_warning=True))

    def _steady_curves(self) -> Iterator[str]:
        unet, settings = self._models.unet, self._settings
        schedule = noise_schedule(unet, settings)
        levels = self._custom.levels(schedule, settings, highest(settings.denoise))
        if len(levels) == 0:
            return iter(())
        start = schedule.share_at(levels.max())
        return steady_curves((*settings.strengths, *unet.strengths), start)

    def _report(self, phase: Phase, done: int, frame_count: int | None) -> None:
        """Report that `done` frames went through a phase, unless the job is cancelled."""
        stop_if(self._is_cancelled)
        share = min(1.0, done / frame_count) if frame_count else 0.0
        verb = "encoded" if phase == "encode" else "decoded"
        message = f"{verb} {done}{f' of {frame_count}' if frame_count else ''} frames"
        self._progress(Progress(phase, self._scale.at(phase, share), message))

    def _report_sampling(self, step: Progress) -> None:
        self._progress(replace(step, fraction=self._scale.at("sample", step.fraction)))


def as_bytes(frames: Tensor) -> NDArray[np.uint8]:
    """Return frames of 0..1, on any device and of any shape, as bytes 0..255 in main memory.

    They are rounded on their device, so that only a quarter of the bytes is copied from it.
    """
    rounded = (frames * 255).round()
    in_order = rounded.to(torch.uint8, memory_format=torch.contiguous_format)
    result: NDArray[np.uint8] = in_order.cpu().numpy()
    return result


@dataclass
class Clock:
    """The seconds spent in each phase."""

    seconds: dict[Phase, float] = field(default_factory=dict)
    total: float = 0.0

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Add the time spent inside to a phase."""
        started = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - started)

    def timed(self, name: Phase, items: Iterable[Item]) -> Iterator[Item]:
        """Yield `items`, adding the time that each takes to be made to a phase."""
        iterator, end = iter(items), object()
        while True:
            with self.phase(name):
                item = next(iterator, end)
            if item is end:
                return
            yield item  # type: ignore[misc]  # not the sentinel

    def add(self, name: Phase, seconds: float) -> None:
        """Add seconds to a phase."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def timings(self) -> Timings:
        """Return the seconds so far; 0 for a phase that has not begun."""
        phases = {phase: self.seconds.get(phase, 0.0) for phase in get_args(Phase)}
        return Timings(**phases, total=self.total)
