"""The whole job from file to file: read, encode, sample, decode, write.

Frames stream through a few at a time; only latents, 1/48 of the size of 8-bit frames, are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from .choices import checked_type
from .curve import check_frames
from .errors import AnimateDiffV2VError
from .frame_job import FRAMES_PER_CHUNK, BeforePhase, Clock, FrameJob, as_bytes
from .job_files import check_devices, check_memory_bound
from .job_video import open_reader, open_writer
from .memory.copies import copy_to
from .memory.devices import job_devices, resolve_dtype
from .memory.mapped import Scratch
from .models import Models, Placement, load_networks
from .models.batching import MemoryBound
from .models.ops.compiled import check_can_compile
from .output_file import check_output
from .passes import Passes
from .progress import IsCancelled, Progress, ReportProgress, never, silent
from .prompts.embeddings import embedding_finder
from .request import ModelFiles, Request, Result
from .restore.video import is_restored, open_source, restored_video
from .sampling import Guides, SamplingSettings
from .sampling.guides import NO_GUIDES
from .sampling.kept_calls import KeptCalls
from .sampling.keyframes import placed_frames
from .source_colours import SourceColours
from .spooled_controls import SpooledControls
from .style_files import load_style
from .video import FORMATS, VideoReader, VideoWriter
from .video.pictures import read_picture

# The arguments of video_to_video that are called.
_FUNCTIONS = ("progress", "is_cancelled", "before_phase")


def video_to_video(
    request: Request,
    models: Models | ModelFiles,
    *,
    guides: Guides = NO_GUIDES,
    prepared: VideoReader | None = None,
    max_ram_gb: float | None = None,
    kept_calls: KeptCalls | None = None,
    progress: ReportProgress = silent,
    is_cancelled: IsCancelled = never,
    before_phase: BeforePhase = lambda _phase: None,
) -> Result:
    """Restyle a video file into another one.

    The output gets its name only when complete, and a number if the name has been taken meanwhile.

    Args:
        request: The input, the output, and what to make of it.
        models: Loaded networks, or the files to load them from.
        guides: Loaded controls and styles, used besides the request's; source_blend is ignored.
        prepared: What `open_reader` returned for this request, if it was called before.
        max_ram_gb: Main memory for tensors of the whole video; see Scratch.
        kept_calls: Keeps what sampling has done so far, for a job after this one is killed.
        progress: Called after every chunk of frames and every pass of the UNet.
        is_cancelled: Called as often; True stops the job.
        before_phase: Called before the networks of a phase are used, for a host that moves them.

    Raises:
        AnimateDiffV2VError: a file or a value is wrong.
        Cancelled: `is_cancelled` returned True.
    """
    _check(request, models, guides, progress, is_cancelled, before_phase)
    clock, started = Clock(), time.perf_counter()
    reader = prepared or open_reader(request)
    with reader, open_writer(request, reader) as writer, ExitStack() as opened:
        _check_frames(request, models, reader.expected_frame_count)
        _check_pictures(request)
        networks = _loaded(models, request.sampling)
        controls = opened.enter_context(_controls(request, networks, reader))
        styles = [load_style(style, unet=networks.unet) for style in request.styles]
        scratch = opened.enter_context(Scratch(request.output, max_ram_gb=max_ram_gb))
        passes = Passes(request, networks, reader, controls, opened=opened, begin=before_phase)
        colours = SourceColours(request.match_source, mask=controls.source_mask)
        frames = passes.frames(
            _chunks(reader, controls, colours, clock),
            make_job=partial(FrameJob, is_cancelled=is_cancelled, clock=clock, scratch=scratch),
            progress=progress,
            kept_calls=kept_calls,
            guides=lambda controls: _joined(guides, controls.guides(styles)),
        )
        frames = colours.matched(frames)
        if is_restored(request, reader):
            frames = _restored(frames, request, writer, networks, opened, is_cancelled=is_cancelled)
        _write(frames, writer, clock)
        finishing = time.perf_counter()
    clock.add("write", time.perf_counter() - finishing)
    progress(Progress("write", 1.0, f"wrote {writer.path.name}"))
    clock.total = time.perf_counter() - started
    return _result(request, writer, clock)


def _check(
    request: Request, models: Models | ModelFiles, guides: Guides, *functions: object
) -> None:
    for name, function in zip(_FUNCTIONS, functions, strict=True):
        checked_type(name, function, Callable)
    checked_type("request", request, Request)
    checked_type("guides", guides, Guides)
    checked_type("models", models, Models | ModelFiles)
    check_output(request.output, inputs=request.inputs, overwrite=request.overwrite)
    bound = models.max_memory_gb if isinstance(models, ModelFiles) else models.bound
    if bound is not None and (guides.controls or guides.styles):
        raise AnimateDiffV2VError(
            "guides are not counted towards max_memory_gb: give the files of ControlNets in the "
            "request's controls, or leave max_memory_gb out."
        )
    check_memory_bound(request, has_bound=bound is not None)
    others = models.devices[1:] if isinstance(models, ModelFiles) else models.replicas
    check_devices(request, are_several=bool(others))


def _check_frames(request: Request, models: Models | ModelFiles, frame_count: int | None) -> None:
    """Raise AnimateDiffV2VError unless the video has the frames of keyframes and curves, if known.

    Sampling checks them again; this spares loading the models.
    """
    if frame_count is None:
        return
    for keyframes in request.keyframes:
        placed_frames(keyframes.frames, frame_count)
    networks = models if isinstance(models, ModelFiles) else models.unet
    for name, strength in request.sampling.strengths + networks.strengths:
        try:
            check_frames(strength, frame_count)
        except AnimateDiffV2VError as error:
            raise AnimateDiffV2VError(f"{name}: {error}") from error


def _check_pictures(request: Request) -> None:
    """Raise AnimateDiffV2VError unless keyframes and style images can be read.

    They are read again when they are needed; this spares loading the models.
    """
    keyframes = [path for each in request.keyframes for path in each.pictures]
    style_images = [path for each in request.styles for path in each.images]
    for path in keyframes + style_images:
        read_picture(path)


def _controls(request: Request, models: Models, reader: VideoReader) -> SpooledControls:
    return SpooledControls(request, unet=models.unet, width=reader.width, height=reader.height)


def _joined(given: Guides, own: Guides) -> Guides:
    return replace(own, controls=given.controls + own.controls, styles=given.styles + own.styles)


def _chunks(
    reader: VideoReader, controls: SpooledControls, colours: SourceColours, clock: Clock
) -> Iterator[Tensor]:
    """Yield the frames of a video in chunks, and note control frames and colours of them."""
    frames = iter(reader)
    while True:
        with clock.phase("decode"):
            chunk = list(islice(frames, FRAMES_PER_CHUNK))
        if not chunk:
            return
        with clock.phase("encode"):
            controls.add(chunk)
            stacked = torch.from_numpy(np.stack(chunk))
            colours.add(stacked)
        yield stacked


def _restored(
    frames: Iterable[Tensor],
    request: Request,
    writer: VideoWriter,
    networks: Models,
    opened: ExitStack,
    *,
    is_cancelled: IsCancelled,
) -> Iterator[Tensor]:
    """Yield all frames of the source's time, made of the restyled ones."""
    if networks.bound is not None:  # what restoring takes is not counted
        frames = (chunk.cpu() for chunk in frames)
    source = open_source(replace(request, width=writer.width, height=writer.height))
    opened.enter_context(source)
    return restored_video(source, frames, writer, is_cancelled=is_cancelled)


def _write(chunks: Iterable[Tensor], writer: VideoWriter, clock: Clock) -> None:
    """Write frames, each chunk while the next one is decoded."""
    written: Future[None] | None = None
    with ThreadPoolExecutor(max_workers=1) as writing:
        for chunk in chunks:
            with clock.phase("decode_latents"):
                frames = as_bytes(chunk)
            _wait(written, clock)
            written = writing.submit(writer.write, frames)
        _wait(written, clock)


def _wait(written: Future[None] | None, clock: Clock) -> None:
    """Wait until a chunk is written, and raise what its writing raised."""
    if written is not None:
        with clock.phase("write"):
            written.result()


def _result(request: Request, writer: VideoWriter, clock: Clock) -> Result:
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
            check_can_compile(job_devices(models)[0])
        return load_files(
            models,
            fp8_weights=settings.speed.fp8_weights,
            reduced_precision=settings.speed.reduced_precision,
        )
    return models


def load_files(
    files: ModelFiles, *, fp8_weights: bool = False, reduced_precision: bool = False
) -> Models:
    """Load a job's networks on the device and in the dtype that `files` asks for.

    With `files.max_memory_gb` they stay in main memory; video_to_video moves them to the device.

    Args:
        files: The files, the device and the dtype.
        fp8_weights: Store the weights of the UNet in 8 bits.
        reduced_precision: Compute in bfloat16 on a CPU that is faster with it, unless `files` names
            a dtype.

    Raises:
        AnimateDiffV2VError: a file is missing, is of another kind, or lacks a part, or the device
            is not there.
    """
    checked_type("files", files, ModelFiles)
    devices = job_devices(files)
    device = devices[0]
    bound = None
    if files.max_memory_gb is not None:
        bound = MemoryBound(device, int(files.max_memory_gb * 1e9))
    dtype = resolve_dtype(files.dtype, device, reduced_precision=reduced_precision)
    placement = Placement(device, dtype, torch.device("cpu") if bound else None)
    networks = load_networks(files, placement, fp8_weights=fp8_weights)
    finder = embedding_finder(files.embeddings) if files.embeddings else None
    models = Models.of(networks, files, find_embedding=finder)
    replicas = tuple(copy_to(models.unet, each) for each in devices[1:])
    return replace(models, bound=bound, replicas=replicas)
