"""Blending of the source into each step: keeps a background, or stays closer to the source."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..choices import check_types
from ..errors import AnimateDiffV2VError
from ..ranges import SHARE
from .control import check_shape
from .denoise import Denoise
from .noise_schedule import NoiseSchedule
from .span import Span


@dataclass(frozen=True, kw_only=True)
class SourceBlend:
    """Share of the source in each step's result, by mask and strength."""

    mask: Tensor | None = None
    """[masks, height, width], float 0..1: 1 is restyled, 0 keeps the source. A single mask is used
    for all frames. None restyles everything."""
    strength: float = 0.0
    """Share of the source in each step's result where the mask is 1."""
    end: float = 0.5
    """Share of the schedule after which `strength` is 0, which frees details in the last steps. The
    mask acts to the last step."""

    def __post_init__(self) -> None:
        """Refuse shares out of range, and masks of another shape."""
        check_types(self)
        SHARE.check("source_blend", self.strength)
        SHARE.check("source_blend_end", self.end)
        if self.mask is not None and (self.mask.ndim != 3 or 0 in self.mask.shape):
            raise AnimateDiffV2VError(
                f"The source mask has the shape {list(self.mask.shape)}; it must be "
                "[masks, height, width]."
            )

    @property
    def is_idle(self) -> bool:
        """True if it changes nothing."""
        return self.mask is None and self.strength == 0

    def check_fits(self, latents: Tensor) -> None:
        """Raise AnimateDiffV2VError unless there is a mask for each frame, or one for all.

        Args:
            latents: [frames, 4, height / 8, width / 8].
        """
        if self.mask is None:
            return
        num_frames, _, height, width = latents.shape
        check_shape("The source masks", self.mask, 8 * width, 8 * height)
        if len(self.mask) not in (1, num_frames):
            raise AnimateDiffV2VError(
                f"There are {len(self.mask)} source masks for {num_frames} frames: give one for "
                "each frame, or one for all."
            )

    def around(
        self, model: Denoise, *, source: Tensor, noise: Tensor, schedule: NoiseSchedule
    ) -> Denoise:
        """Return a model whose results contain the source.

        Where the mask is 0, the model sees the source with noise of the current level, and its
        result is replaced by the source, as with ComfyUI's latent noise mask.

        Args:
            model: The model.
            source: [frames, 4, height, width], the scaled latents.
            noise: Of the same shape and unit variance: the noise that sampling starts with.
            schedule: The noise levels.
        """
        mask = torch.ones(1, 1, 1, 1)
        if self.mask is not None:
            size = source.shape[-2:]
            mask = functional.interpolate(self.mask.float().unsqueeze(1), size, mode="bilinear")
        mask = mask.to(source.device)
        span = Span(0.0, self.end)

        def denoise(noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
            here = self.mask_at(mask, sigma)
            if self.mask is not None:
                noisy = torch.lerp(source + noise * sigma, noisy, here)
            strength = self.strength if span.contains(sigma, schedule) else 0.0
            return torch.lerp(source, model(noisy, sigma, step), here * (1.0 - strength))

        return denoise

    def mask_at(self, mask: Tensor, sigma: Tensor) -> Tensor:
        """Return the mask [masks, 1, height, width] of a noise level; the same for all.

        Hosts whose masks change along the way replace it.
        """
        del sigma
        return mask
