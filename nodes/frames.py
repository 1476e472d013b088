"""Runs the frames of a graph or of a file through the networks that ComfyUI manages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..pipeline import (
    AnimateDiffV2VError,
    Guides,
    Models,
    Request,
    Result,
    SamplingSettings,
    video_to_video,
)
from ..pipeline.frame_job import FRAMES_PER_CHUNK, BeforePhase, Clock, FrameJob
from ..pipeline.job_video import refined_size
from ..pipeline.progress import Phase, ReportProgress
from ..pipeline.sampling import CustomSampling, sample_latents, window_for
from ..pipeline.video import VideoReader
from . import host
from .conditioning import PromptInputs
from .run_times import Work, remember_run

logger = logging.getLogger(__name__)

Say = Callable[[str], None]
# Before the first frame or step of a phase is done, which takes long where networks are moved.
_BEGUN: dict[Phase, str] = {
    "encode": "Encoding the frames…",
    "sample": "Preparing the first step…",
    "decode_latents": "Decoding the frames…",
}


class FrameSize(NamedTuple):
    """The size of the frames in pixels, multiples of 8."""

    width: int
    height: int

    def times(self, factor: float) -> FrameSize:
        """Return the size of enlarged frames."""
        return FrameSize(*refined_size(*self, factor))


def restyle_images(
    model: host.ManagedModels,
    images: Tensor,
    *,
    prompts: PromptInputs,
    settings: SamplingSettings,
    guides: Guides,
    guide_patchers: Sequence[host.WholeModelPatcher],
    clip: Any,
    vae: Any,
    custom: CustomSampling | None = None,
    say: Say = lambda _line: None,
) -> tuple[Tensor, Tensor]:
    """Restyle frames, with one progress bar over all phases.

    Args:
        model: The networks; those of a phase are moved to the device before it.
        images: [frames, height, width, 3], float 0..1; both sides multiples of 8.
        prompts: The prompts of the node.
        settings: How to sample.
        guides: What guides sampling besides the prompts.
        guide_patchers: The networks of `guides`, which are loaded together with the UNet.
        clip: ComfyUI's CLIP in place of the model's text encoder, or None.
        vae: ComfyUI's VAE in place of the model's, or None.
        custom: A sampler or noise levels in place of those of the settings.
        say: Shows what is being done.

    Returns:
        The frames as float32 of the same shape, and their latents.
    """
    count, height, width, _ = images.shape
    models = _with_host_networks(model.models, clip=clip, vae=vae)
    # First, because it refuses windows that the motion module cannot take.
    context = window_for(models.unet.max_frames, count, settings.context)
    window = min(count, context.length)
    is_native = model.native is not None and (model.is_patched or prompts.needs_native)
    move_networks = _mover(
        model, text=prompts.has_text and not clip, vae=not vae, is_native=is_native,
        chunk={"frames": FRAMES_PER_CHUNK, "width": width, "height": height}, say=say,
        window={"frames": window, "width": width, "height": height, "beside": guide_patchers},
    )  # fmt: skip
    clock = Clock()
    job = FrameJob(
        models, settings, clock=clock, custom=custom, before_phase=move_networks,
        progress=host.NodeProgress(models.codec, on_line=say),
        is_cancelled=host.raise_if_interrupted,
        sample=host.NativeSampling(model.native, prompts.native, beside=guide_patchers)
        if is_native else sample_latents,
    )  # fmt: skip
    latents = job.restyle(
        _chunks(images), frame_count=count, guides=lambda: guides,
        conditioning=lambda frames: prompts.encoded(
            models.text_encoder, frames=frames, channels=model.text_channels, native=is_native
        ),
    )  # fmt: skip
    restyled = _joined(job.decode(latents), count)
    work = Work.of(count, width=width, height=height, settings=settings, context=context)
    remember_run(model.checkpoint, work, vars(clock.timings()))
    say(_done(count, sum(clock.seconds.values())))
    return restyled, latents


def _mover(
    model: host.ManagedModels,
    *,
    text: bool,
    vae: bool,
    is_native: bool,
    chunk: dict[str, int],
    window: dict[str, Any],
    say: Say,
) -> Callable[[Phase], None]:
    """Return a function that moves the networks of a phase to the device before it.

    Args:
        model: The networks.
        text: True if its text encoder is used.
        vae: True if its VAE is used.
        is_native: True if ComfyUI moves the UNet.
        chunk: What encoder and VAE work on at once.
        window: What the UNet works on at once.
        say: Shows what is being done.
    """

    def move_networks(phase: Phase) -> None:
        say(_BEGUN[phase])
        if phase == "encode":
            model.load_encoders(text=text, vae=vae, **chunk)
        elif phase == "sample" and is_native:
            model.unload_unet()
        elif phase == "sample":
            model.load_unet(**window)
        elif vae:
            model.load_vae(**chunk)

    return move_networks


def _with_host_networks(models: Models, *, clip: Any, vae: Any) -> Models:
    return replace(
        models,
        text_encoder=host.HostTextEncoder(clip) if clip else models.text_encoder,
        codec=host.HostCodec(vae) if vae else models.codec,
    )


def restyle_file(
    request: Request,
    model: host.ManagedModels,
    *,
    size: FrameSize,
    control: host.Chain,
    style: host.Chain,
    prepared: VideoReader | None = None,
    progress: ReportProgress | None = None,
    before_phase: BeforePhase = lambda _phase: None,
    say: Say = lambda _line: None,
) -> Result:
    """Restyle a video file, with one progress bar over all phases.

    Args:
        request: The input, the output, and what to make of it.
        model: The networks; those of a phase are moved to the device before it.
        size: The size of the frames.
        control: ControlNets.
        style: IP-Adapters.
        prepared: What `open_reader` returned for this request, if it was called before.
        progress: Shows the progress in place of a bar of its own.
        before_phase: Called before each phase.
        say: Shows what is being done.
    """
    context, chunk = request.sampling.context, {"frames": FRAMES_PER_CHUNK, **size._asdict()}
    assert context is not None
    # Before anything else: this refuses windows that the motion module does not support.
    window = window_for(model.models.unet.max_frames, context.length, context).length

    def move_networks(phase: Phase) -> None:
        before_phase(phase)
        say("Reading the video…" if phase == "encode" else _BEGUN[phase])
        if phase == "encode":
            model.load_encoders(**chunk)
        if phase == "sample":
            beside = (*control.patchers, *style.patchers)
            model.load_unet(frames=window, **size._asdict(), beside=beside)
        if phase == "decode_latents":
            model.load_vae(**chunk)

    result = video_to_video(
        request,
        model.models,
        guides=Guides(controls=control.links, styles=style.links),
        prepared=prepared,
        progress=progress or host.NodeProgress(model.models.codec, on_line=say),
        is_cancelled=host.raise_if_interrupted,
        before_phase=move_networks,
    )
    # Estimates are of one pass over the frames that are kept.
    if not (request.restore_frames or request.is_refined):
        work = Work.of(
            result.frame_count, **size._asdict(), settings=request.sampling, context=context
        )
        remember_run(model.checkpoint, work, vars(result.timings))
    say(_done(result.frame_count, result.timings.total))
    return result


def _done(count: int, seconds: float) -> str:
    return f"{count} {'frame' if count == 1 else 'frames'} in {seconds:.1f} s"


def cropped(images: Tensor) -> Tensor:
    """Cut the middle out of IMAGE frames so that both sides are multiples of 8; drop alpha."""
    height, width = images.shape[1] // 8 * 8, images.shape[2] // 8 * 8
    if not (height and width):
        raise AnimateDiffV2VError(
            f"The images are {images.shape[2]}x{images.shape[1]} pixels; they must be at least 8x8."
        )
    if (height, width) != tuple(images.shape[1:3]):
        logger.info("The images are cut to %dx%d pixels, multiples of 8.", width, height)
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width, :3]


def _chunks(images: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(images), FRAMES_PER_CHUNK):
        yield images[start : start + FRAMES_PER_CHUNK].cpu()


def _joined(chunks: Iterable[Tensor], count: int) -> Tensor:
    """Copy chunks of `count` frames into one tensor in main memory, which is allocated once."""
    images, done = torch.empty(0), 0
    for chunk in chunks:
        if done == 0:
            images = torch.empty(count, *chunk.shape[1:])
        images[done : done + len(chunk)] = chunk
        done += len(chunk)
    return images
