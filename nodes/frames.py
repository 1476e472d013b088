"""Frames in memory through the networks: encode, restyle, decode."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..pipeline import AnimateDiffV2VError, Models, Progress, SamplingSettings
from ..pipeline.frame_job import FRAMES_PER_CHUNK, restyle_latents
from ..pipeline.models import LatentCodec
from ..pipeline.progress import PhaseScale, ReportProgress
from ..pipeline.sampling import Conditioning, Control, SourceBlend, StyleImages

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guides:
    """What guides sampling beside the prompts."""

    controls: Sequence[Control]
    styles: Sequence[StyleImages]
    source_blend: SourceBlend


class FrameJob:
    """One run of the sampler over IMAGE frames, with one progress bar over its phases."""

    def __init__(
        self,
        models: Models,
        *,
        settings: SamplingSettings,
        progress: ReportProgress,
        stop_if_cancelled: Callable[[], bool],
    ) -> None:
        """Bind the networks that the phases will use; they are moved by the caller."""
        self._models, self._settings = models, settings
        self._progress, self._stop = progress, stop_if_cancelled
        self._scale = PhaseScale(passes=settings.passes)

    def encode(self, images: Tensor) -> Tensor:
        """Give the latents [frames, 4, height / 8, width / 8] of frames [frames, h, w, 3]."""
        parts = []
        for start in range(0, len(images), FRAMES_PER_CHUNK):
            self._stop()
            parts.append(self._codec.encode(images[start : start + FRAMES_PER_CHUNK].cpu()))
            done = sum(map(len, parts)) / len(images)
            self._progress(Progress("encode", self._scale.at("encode", done), "encoding"))
        return torch.cat(parts)

    def restyle(self, latents: Tensor, conditioning: Conditioning, additions: Guides) -> Tensor:
        """Sample; see sample_latents."""

        def report(step: Progress) -> None:
            self._progress(replace(step, fraction=self._scale.at("sample", step.fraction)))

        return restyle_latents(
            self._models,
            latents,
            conditioning=conditioning,
            settings=self._settings,
            controls=additions.controls,
            styles=additions.styles,
            source_blend=additions.source_blend,
            progress=report,
            is_cancelled=self._stop,
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Give the frames of latents, float32 [frames, height, width, 3], allocated once."""
        images, done = torch.empty(0), 0
        for chunk in self._codec.decode(latents):
            self._stop()
            if done == 0:
                images = torch.empty(len(latents), *chunk.shape[1:])
            images[done : done + len(chunk)] = chunk
            done += len(chunk)
            fraction = self._scale.at("decode_latents", done / len(latents))
            self._progress(Progress("decode_latents", fraction, "decoding"))
        return images

    @property
    def _codec(self) -> LatentCodec:
        return self._models.codec


def cropped(images: Tensor) -> Tensor:
    """Cut the middle out of IMAGE frames so that both sides are multiples of 8; drop alpha."""
    height, width = images.shape[1] // 8 * 8, images.shape[2] // 8 * 8
    if not (height and width):
        raise AnimateDiffV2VError(
            f"The images are {images.shape[2]}x{images.shape[1]} pixels; they must be 8x8 at least."
        )
    if (height, width) != tuple(images.shape[1:3]):
        logger.info("The images are cut to %dx%d pixels, multiples of 8.", width, height)
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width, :3]
