"""A second pass: the frames of the first are enlarged, and denoised a little at that size."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from .errors import AnimateDiffV2VError
from .frame_job import FRAMES_PER_CHUNK, BeforePhase, FrameJob, as_bytes
from .job_video import open_reader, output_size
from .memory.devices import free_bytes
from .memory.estimate import Work, longest_window, sampling_memory
from .memory.offload import OffloadedModels
from .models import Models
from .models.batching import ChunkSizes
from .models.sparsectrl import AnyControlNetwork
from .models.unet import MotionUNet
from .progress import Phase, Progress, ReportProgress, numbered
from .request import Request
from .sampling import Conditioning, Guides
from .sampling.denoise import Guided
from .sampling.guided_model import GuidedModel
from .sampling.tiles import TiledModel, TileSize, tile_size
from .spooled_controls import SpooledControls
from .video import VideoReader

logger = logging.getLogger(__name__)

# Tiles along a side, in the order in which they are tried.
_TILE_COUNTS = (1, 2, 3, 4)
# Of what is free on a graphics card, for the tensors of a pass; the rest is for kernels and gaps.
_SHARE_OF_FREE = 0.9


class SecondPass:
    """The second pass of a job, with its own size, chunks and guides.

    Frames stream from the first pass into the second; nothing of them is kept.
    """

    def __init__(
        self,
        request: Request,
        models: Models,
        reader: VideoReader,
        first: SpooledControls,
        opened: ExitStack,
    ) -> None:
        """Prepare the pass, and find the largest tiles that fit if memory is limited.

        Args:
            request: The job's request.
            models: Its networks.
            reader: The reader of the first pass.
            first: The controls of the first pass, whose networks are used again.
            opened: Closes the files of this pass.

        Raises:
            AnimateDiffV2VError: the limit on memory is too small for this size.
        """
        width, height = output_size(request, reader)
        sampling = replace(request.sampling, denoise=request.refine_denoise)
        self.request = replace(request, width=width, height=height, sampling=sampling)
        self._size = (width, height)
        self._controls = opened.enter_context(
            SpooledControls(
                self.request, unet=models.unet, width=width, height=height, networks=first.networks
            )
        )
        self._guiding: list[AnyControlNetwork] = []
        self._source: Iterator[NDArray[np.uint8]] | None = None
        if request.controls or request.source_mask:
            self._source = iter(opened.enter_context(open_reader(self.request)))
        frames = longest_window(models, sampling, reader.expected_frame_count)
        self._work = Work(frames=frames, width=width, height=height, settings=sampling)
        self.models, self._tile, self._offloaded = models, None, None
        if models.bound is not None:
            self.models, self._tile, self._offloaded = self._bounded(models, opened)

    def run(
        self,
        latents: Tensor,
        *,
        decode: Callable[[Tensor], Iterator[Tensor]],
        make_job: Callable[..., FrameJob],
        conditioning: Callable[[int], Conditioning],
        guides: Callable[[SpooledControls], Guides],
    ) -> Iterator[Tensor]:
        """Return the frames of this pass, made of the latents of the first.

        Args:
            latents: The latents of the first pass.
            decode: Yields the frames of latents, as `FrameJob.decode`.
            make_job: Makes a job of networks and settings; FrameJob with its other arguments.
            conditioning: As for `FrameJob.restyle`.
            guides: Returns the guides of sampling that have the given controls.
        """
        job = make_job(self.models, self.request.sampling, make_guided=self._model)
        restyle = partial(
            job.restyle,
            frame_count=len(latents),
            conditioning=conditioning,
            guides=lambda: self._noted(guides(self._controls)),
        )
        if self.request.refine_upscale == "latent":
            firsts = iter(range(0, len(latents), FRAMES_PER_CHUNK))
            encode = partial(self._enlarged_latents, firsts=firsts)
            return job.decode(restyle(torch.split(latents, FRAMES_PER_CHUNK), encode=encode))
        return job.decode(restyle(self._chunks(decode(latents))))

    def begin(self, phase: Phase, move_networks: BeforePhase) -> None:
        """Begin a phase.

        Args:
            phase: The phase.
            move_networks: Moves its networks to the device, if memory is not limited.
        """
        if self._offloaded is not None:
            self._offloaded.begin(phase)
        move_networks(phase)
        if self._offloaded is None and phase == "sample":
            # Now that the networks of this phase alone take memory on the card.
            self._tile = self._tile_on_card(self._guiding)

    def _chunks(self, frames: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield the enlarged frames of the first pass as uint8, and make control frames of them.

        Frames are enlarged with Lanczos' filter. Where the source mask is black, they are the
        source's, at full sharpness.
        """
        done = 0
        for chunk in frames:
            large = np.stack([self._enlarged(frame) for frame in as_bytes(chunk)])
            source = self._source_frames(len(large))
            mask = self._mask(done, len(large))
            if source is not None and mask is not None:
                share = mask.unsqueeze(-1).numpy()
                mixed = source + share * (large.astype(np.float32) - source)
                large = np.rint(mixed).astype(np.uint8)
            done += len(large)
            yield torch.from_numpy(large)

    def _enlarged(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        picture = Image.fromarray(frame).resize(self._size, Image.Resampling.LANCZOS)
        pixels: NDArray[np.uint8] = np.asarray(picture)
        return pixels

    def _enlarged_latents(self, latents: Tensor, *, firsts: Iterator[int]) -> Tensor:
        """Return the enlarged latents of a chunk, and make control frames of its source.

        Where the source mask is black, they are the source's.

        Args:
            latents: Latents of the first pass.
            firsts: Yields the number of the first frame of each chunk.
        """
        size = (self._work.height // 8, self._work.width // 8)
        large = functional.interpolate(latents.float(), size, mode="bicubic").cpu()
        source = self._source_frames(len(latents))
        mask = self._mask(next(firsts), len(latents))
        if source is None or mask is None:
            return large
        kept = self.models.codec.encode(torch.from_numpy(source))
        share = functional.interpolate(mask.unsqueeze(1), size, mode="bilinear", antialias=True)
        return torch.lerp(kept, large, share)

    def _source_frames(self, number: int) -> NDArray[np.uint8] | None:
        """Return the next frames of the source and make control frames of them, if any are used."""
        if self._source is None:
            return None
        frames = list(islice(self._source, number))
        self._controls.add(frames)
        return np.stack(frames)

    def _mask(self, first: int, number: int) -> Tensor | None:
        """Return the source mask of frames, [number, height, width]; None if there is none."""
        mask = self._controls.source_mask
        if mask is None:
            return None
        return mask[[min(index, len(mask) - 1) for index in range(first, first + number)]]

    def _noted(self, guides: Guides) -> Guides:
        """Return the guides, and note their networks, which tiles are chosen for."""
        self._guiding = [each.network for each in guides.controls]
        return guides

    def _model(self, unet: MotionUNet, **given: Any) -> Guided:
        if self._tile is None:
            return GuidedModel(unet, **given)
        return TiledModel(unet, tile=self._tile, **given)

    def _bounded(
        self, models: Models, opened: ExitStack
    ) -> tuple[Models, TileSize | None, OffloadedModels]:
        """Return the networks, the size of the tiles if frames do not fit, and what moves them."""
        for count in _TILE_COUNTS:
            work = self._in_tiles(count)
            try:
                offloaded = OffloadedModels(models, self._controls.networks, work)
            except AnimateDiffV2VError:
                if count == _TILE_COUNTS[-1]:
                    raise
            else:
                return opened.enter_context(offloaded).models, work.tile, offloaded
        raise AssertionError("the loop returns or raises")

    def _tile_on_card(self, networks: Sequence[AnyControlNetwork]) -> TileSize | None:
        """Return the largest tiles that fit on an NVIDIA card; None for whole frames.

        Args:
            networks: The ControlNets, those of the request and those of a host.
        """
        device = self.models.unet.device
        if device.type != "cuda":
            return None
        free = free_bytes(device) * _SHARE_OF_FREE
        for count in _TILE_COUNTS:
            work = self._in_tiles(count)
            chunks = self.models.chunks or ChunkSizes.default(device, pixels=work.pixels)
            if sampling_memory(self.models, networks, work, chunks).peak <= free:
                break
        if work.tile is not None:
            height, width = (8 * side for side in work.tile)
            logger.info("The second pass runs in tiles of %dx%d pixels.", width, height)
        return work.tile

    def _in_tiles(self, count: int) -> Work:
        if count == 1:
            return self._work
        tile = tile_size(count, self._work.height // 8, self._work.width // 8)
        return replace(self._work, tile=tile)


def split_progress(
    report: ReportProgress, request: Request
) -> tuple[ReportProgress, ReportProgress]:
    """Return the reports of both passes, whose shares are as their pixels.

    Messages say which pass it is.
    """
    share = 1 / (1 + request.refine**2)
    report_first, report_second = (numbered(report, "pass", number, 2) for number in (1, 2))

    def first(step: Progress) -> None:
        if step.phase != "decode_latents":  # while the second pass encodes
            report_first(replace(step, fraction=share * step.fraction))

    def second(step: Progress) -> None:
        report_second(replace(step, fraction=share + (1 - share) * step.fraction))

    return first, second


def without_decoding(begin: BeforePhase) -> Callable[[Phase], None]:
    """Return a function for the first pass, whose frames are decoded while the second encodes."""

    def begin_phase(phase: Phase) -> None:
        if phase != "decode_latents":
            begin(phase)

    return begin_phase
