"""The whole job, from file to file, streaming: read, encode, sample, decode, write.

Frames pass through a few at a time; only latents, 1/48 of the size of 8-bit frames, wait in RAM.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .bounded_memory import BoundedJob, Work, longest_window
from .choices import checked_type
from .devices import resolve_device, resolve_dtype
from .embeddings import embedding_finder
from .job_files import check_memory_bound
from .models import LatentCodec, Models, TextEncoder, load_models
from .models.compiled_layers import check_can_compile
from .models.memory import MemoryBound
from .output_file import check_output
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
from .prompts import PromptTrack, encode_schedule
from .request import ModelFiles, Request, Result, SamplingSettings, Timings
from .sampling import Conditioning, Control, SourceBlend, StyleImages, sample_latents
from .spooled_controls import SpooledControls
from .style_files import load_style
from .video import FORMATS, AudioSpan, VideoReader, VideoWriter

logger = logging.getLogger(__name__)

BeforePhase = Callable[[Phase], None]

# Frames that are in memory at a time on their way from the reader to the codec.
FRAMES_PER_CHUNK = 8


def video_to_video(
    request: Request,
    models: Models | ModelFiles,
    *,
    progress: ReportProgress = silent,
    is_cancelled: IsCancelled = never,
    before_phase: BeforePhase = lambda _phase: None,
) -> Result:
    """Restyle a video file into another one.

    models: loaded networks, or the files to load them from.
    progress: told after every chunk of frames and every pass of the UNet.
    is_cancelled: asked as often; True stops the job.
    before_phase: called before the networks of a phase are used, for a host that moves them.

    The output appears under its name when it is whole; on any error nothing of it is left. A file
    that has appeared under that name in the meantime stays, and the output's name gets a number.
    Raises AnimateDiffV2VError for whatever is wrong with files or values, Cancelled when stopped.
    """
    checked_type("request", request, Request)
    checked_type("models", models, Models | ModelFiles)
    for name, function in (
        ("progress", progress),
        ("is_cancelled", is_cancelled),
        ("before_phase", before_phase),
    ):
        checked_type(name, function, Callable)
    check_output(request.output, inputs=request.inputs, overwrite=request.overwrite)
    bound = models.max_memory_gb if isinstance(models, ModelFiles) else models.bound
    check_memory_bound(request, has_bound=bound is not None)
    clock = _Clock()
    started = time.perf_counter()
    with _reader(request) as reader, _writer(request, reader) as writer, ExitStack() as opened:
        networks = _loaded(models, request.sampling)
        report = _Reporter(progress, is_cancelled, reader.expected_frame_count, request.sampling)
        controls = opened.enter_context(
            SpooledControls(request, unet=networks.unet, width=reader.width, height=reader.height)
        )
        styles = [load_style(style, unet=networks.unet) for style in request.styles]
        begin = before_phase
        if networks.bound is not None:
            work = _work(request, networks, reader)
            bounded = opened.enter_context(BoundedJob(networks, controls.networks, work))
            networks, begin = bounded.models, _both(bounded.begin, before_phase)
        begin("encode")
        latents = _encode(reader, networks.codec, controls, clock, report)
        with clock.phase("encode"):
            conditioning = _conditioning(networks.text_encoder, request, frames=len(latents))
        begin("sample")
        with clock.phase("sample"):
            sampled = restyle_latents(
                networks,
                latents,
                conditioning=conditioning,
                settings=request.sampling,
                controls=controls.controls(),
                styles=styles,
                source_blend=controls.source_blend(),
                progress=report.sampling,
                is_cancelled=is_cancelled,
            )
        begin("decode_latents")
        _decode(sampled, networks.codec, writer, clock, report)
        finishing = time.perf_counter()
    clock.add("write", time.perf_counter() - finishing)
    clock.total = time.perf_counter() - started
    progress(Progress("write", 1.0, f"wrote {writer.path.name}"))
    return Result(
        path=writer.path if writer.path.name != request.output.name else request.output,
        content_type=FORMATS[request.format].content_type,
        file_size=writer.file_size,
        frame_count=writer.frame_count,
        seed=request.sampling.seed,
        timings=clock.timings(),
    )


def _loaded(models: Models | ModelFiles, settings: SamplingSettings) -> Models:
    if isinstance(models, ModelFiles):
        if settings.speed.compile:
            check_can_compile(resolve_device(models.device))
        return load_files(models, fp8_weights=settings.speed.fp8_weights)
    return models


def load_files(files: ModelFiles, *, fp8_weights: bool = False) -> Models:
    """Load a job's networks on the device and in the dtype that `files` asks for.

    fp8_weights: store those of the UNet in 8 bits.
    With `files.max_memory_gb` they wait in main memory; video_to_video brings them to the device.
    """
    checked_type("files", files, ModelFiles)
    device = resolve_device(files.device)
    bound = None
    if files.max_memory_gb is not None:
        bound = MemoryBound(device, int(files.max_memory_gb * 1e9))
    models = load_models(
        files.checkpoint,
        motion_module=files.motion_module,
        vae=files.vae,
        text_encoder=files.text_encoder,
        loras=files.loras,
        motion_loras=files.motion_loras,
        device=device,
        dtype=resolve_dtype(files.dtype, device),
        waiting=torch.device("cpu") if bound else device,
        motion_scale=files.motion_scale,
        clip_skip=files.clip_skip,
        fp8_weights=fp8_weights,
        find_embedding=embedding_finder(files.embeddings) if files.embeddings else None,
    )
    return replace(models, bound=bound)


def _work(request: Request, models: Models, reader: VideoReader) -> Work:
    settings = request.sampling
    frames = longest_window(models, settings, reader.expected_frame_count)
    return Work(frames=frames, width=reader.width, height=reader.height, settings=settings)


def _both(first: BeforePhase, second: BeforePhase) -> BeforePhase:
    def begin(phase: Phase) -> None:
        first(phase)
        second(phase)

    return begin


def encode_prompts(text_encoder: TextEncoder, prompt: str, negative_prompt: str) -> Conditioning:
    """Encode what the clip shall show and what it shall not."""
    return Conditioning.of(text_encoder.encode(prompt), text_encoder.encode(negative_prompt))


def _conditioning(text_encoder: TextEncoder, request: Request, *, frames: int) -> Conditioning:
    schedule = request.prompt_schedule
    keyframes = schedule.keyframes(frames) if schedule else {0: request.prompt}
    source = request.source_prompt if request.sampling.noise_type == "unsample" else None
    return Conditioning(
        encode_schedule(keyframes, text_encoder.encode),
        PromptTrack(text_encoder.encode(request.negative_prompt)),
        None if source is None else PromptTrack(text_encoder.encode(source)),
    )


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
        portions=models.portions,
        progress=progress,
        is_cancelled=is_cancelled,
    )


def _reader(request: Request) -> VideoReader:
    return VideoReader(
        request.input,
        selection=request.selection,
        width=request.width,
        height=request.height,
        fit=request.fit,
    )


def _writer(request: Request, reader: VideoReader) -> VideoWriter:
    return VideoWriter(
        request.output,
        width=reader.width,
        height=reader.height,
        frame_rate=reader.frame_rate,
        format=FORMATS[request.format].name,
        crf=request.crf,
        audio=_sound(reader) if request.audio else None,
        pingpong=request.pingpong,
        loop_count=request.loop_count,
        hardware=request.hardware_encoder,
        metadata=request.metadata,
        overwrite=request.overwrite,
    )


def _sound(reader: VideoReader) -> AudioSpan | None:
    start, duration = reader.time_span
    if not reader.info.has_audio:
        return None
    return AudioSpan(reader.info.path, start_seconds=start, duration_seconds=duration)


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
