"""The way of frames through the networks: encode, sample, decode."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .models import LatentCodec, Models, TextEncoder
from .presets import few_frames, warn_of_mismatch
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
from .sampling import Conditioning, Control, SourceBlend, StyleImages, sample_latents
from .sampling.settings import SamplingSettings
from .spooled_controls import SpooledControls
from .video import VideoReader, VideoWriter

logger = logging.getLogger(__name__)

# Frames that are in memory at a time on their way from the reader to the codec.
FRAMES_PER_CHUNK = 8


def encode_prompts(text_encoder: TextEncoder, prompt: str, negative_prompt: str) -> Conditioning:
    """Encode what the clip shall show and what it shall not."""
    return Conditioning.of(text_encoder.encode(prompt), text_encoder.encode(negative_prompt))


def restyle_latents(
    models: Models,
    latents: Tensor,
    *,
    conditioning: Conditioning,
    settings: SamplingSettings,
    controls: Sequence[Control] = (),
    styles: Sequence[StyleImages] = (),
    source_blend: SourceBlend | None = None,
    progress: ReportProgress = silent,
    is_cancelled: IsCancelled = never,
) -> Tensor:
    """Sample with `settings`; see sample_latents."""
    warn_of_mismatch(settings, models)
    few = few_frames(len(latents), settings, models)
    if few:
        logger.warning("%s", few)
        progress(Progress("sample", 0.0, few))  # what the API's callers read
    return sample_latents(
        models.unet,
        latents,
        conditioning=conditioning,
        seed=settings.seed,
        steps=settings.steps,
        guidance=settings.guidance,
        sampler=settings.sampler,
        scheduler=settings.scheduler,
        denoise=settings.denoise,
        beta_schedule=settings.beta_schedule,
        context=settings.context,
        noise_type=settings.noise_type,
        controls=controls,
        styles=styles,
        source_blend=source_blend,
        speed=settings.speed,
        unsampled_clips=models.unsampled_clips,
        chunks=models.chunks,
        progress=progress,
        is_cancelled=is_cancelled,
    )


def _encode(
    reader: VideoReader,
    codec: LatentCodec,
    controls: SpooledControls,
    clock: _Clock,
    report: _Reporter,
) -> Tensor:
    parts = []
    frames = iter(reader)
    while chunk := _timed_chunk(frames, clock):
        report.chunk("encode", reader.frame_count)
        with clock.phase("encode"):
            parts.append(codec.encode(torch.from_numpy(np.stack(chunk))))
            controls.add(chunk)
    return torch.cat(parts)


def _timed_chunk(frames: Iterator[np.ndarray], clock: _Clock) -> list[np.ndarray]:
    with clock.phase("decode"):
        return list(islice(frames, FRAMES_PER_CHUNK))


def _decode(
    latents: Tensor, codec: LatentCodec, writer: VideoWriter, clock: _Clock, report: _Reporter
) -> None:
    """Decode, and write what was decoded last in the meantime."""
    chunks, written, done = codec.decode(latents), None, 0
    with ThreadPoolExecutor(max_workers=1) as writing:
        while True:
            with clock.phase("decode_latents"):
                chunk = next(chunks, None)
                frames = None if chunk is None else as_bytes(chunk)
            with clock.phase("write"):
                if written is not None:
                    written.result()
            if frames is None:
                return
            written = writing.submit(writer.write, frames)
            done += len(frames)
            report.chunk("decode_latents", done)


def as_bytes(frames: Tensor) -> NDArray[np.uint8]:
    """Give frames of 0..1, of any device and shape, as bytes 0..255 in main memory.

    They are rounded where they lie: a quarter of the bytes is left to bring over.
    """
    rounded = (frames * 255).round()
    in_order = rounded.to(torch.uint8, memory_format=torch.contiguous_format)
    result: NDArray[np.uint8] = in_order.cpu().numpy()
    return result


@dataclass
class _Clock:
    """Adds up the seconds of each phase."""

    seconds: dict[Phase, float] = field(default_factory=dict)
    total: float = 0.0

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - started)

    def add(self, name: Phase, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def timings(self) -> Timings:
        """The seconds so far; 0 for a phase that has not begun."""
        phases = {phase: self.seconds.get(phase, 0.0) for phase in get_args(Phase)}
        return Timings(**phases, total=self.total)


class _Reporter:
    """Tells where the job stands, frame by frame and pass by pass."""

    def __init__(
        self,
        progress: ReportProgress,
        is_cancelled: IsCancelled,
        frames: int | None,
        settings: SamplingSettings,
    ) -> None:
        self._progress, self._is_cancelled, self._frames = progress, is_cancelled, frames
        self._scale = PhaseScale(passes=settings.passes)

    def chunk(self, phase: Phase, done: int) -> None:
        """Tell that `done` frames went through a phase."""
        stop_if(self._is_cancelled)
        share = min(1.0, done / self._frames) if self._frames else 0.0
        of_all = f" of {self._frames}" if self._frames else ""
        verb = "encoded" if phase == "encode" else "decoded"
        message = f"{verb} {done}{of_all} frames"
        self._progress(Progress(phase, self._scale.at(phase, share), message))

    def sampling(self, step: Progress) -> None:
        """Pass on what sampling tells, on the job's scale."""
        self._progress(replace(step, fraction=self._scale.at("sample", step.fraction)))
