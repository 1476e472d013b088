"""Masks along a video by which motion modules act more or less from pixel to pixel."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import AnimateDiffV2VError


class FrameMask:
    """A mask for each frame of a video, or one for all, at the size of any layer."""

    def __init__(self, name: str, mask: Tensor) -> None:
        """Check a mask.

        Args:
            name: The name of its setting, for error sentences.
            mask: [1 or frames, height, width], 0 to 1, in any size.

        Raises:
            AnimateDiffV2VError: it has another shape, is empty, or has other values.
        """
        if mask.ndim != 3 or 0 in mask.shape:
            raise AnimateDiffV2VError(
                f"{name} has the shape {list(mask.shape)}; it must be [masks, height, width], with "
                "one mask for all frames or one for each."
            )
        low, high = (float(each) for each in mask.aminmax())
        if not 0 <= low <= high <= 1:  # False for NaN, too
            raise AnimateDiffV2VError(
                f"{name} has values from {low:g} to {high:g}; they must be from 0 to 1."
            )
        self.name = name
        self.mask = mask.detach().to("cpu", torch.float32)
        self._resized: dict[tuple[int, int], Tensor] = {}

    def check_count(self, num_frames: int) -> None:
        """Raise AnimateDiffV2VError unless it has one mask for all frames, or one for each."""
        if len(self.mask) not in (1, num_frames):
            raise AnimateDiffV2VError(
                f"{self.name} has {len(self.mask)} masks for {num_frames} frames: give one for "
                "each frame, or one for all."
            )

    def of_one_frame(self) -> FrameMask:
        """Return the mask of the first frame."""
        return FrameMask(self.name, self.mask[:1])

    def of(self, frames: Sequence[int], height: int, width: int) -> Tensor:
        """Return the masks of frames at a size, [frames, 1, height, width], float32, on the CPU.

        They are interpolated as AnimateDiff-Evolved does it, so that each value is that of the
        pixels around its middle.
        """
        size = (height, width)
        if size not in self._resized:
            self._resized[size] = functional.interpolate(
                self.mask.unsqueeze(1), size=size, mode="bilinear"
            )
        masks = self._resized[size]
        return masks if len(masks) == 1 else masks[list(frames)]


@dataclass(frozen=True, eq=False)
class MotionMasks:
    """The masks of motion modules."""

    scale: FrameMask | None = None
    """Multiplies the motion scale of a pixel, as it is attended to from other frames."""
    effect: FrameMask | None = None
    """Multiplies the motion effect."""

    @classmethod
    def of(cls, scale: Tensor | None, effect: Tensor | None) -> MotionMasks:
        """Return the masks of tensors; see FrameMask for shapes and errors."""
        return cls(
            None if scale is None else FrameMask("motion_scale_mask", scale),
            None if effect is None else FrameMask("motion_effect_mask", effect),
        )

    @property
    def given(self) -> list[FrameMask]:
        """Those that there are."""
        return [each for each in (self.scale, self.effect) if each is not None]

    @property
    def digests(self) -> tuple[str, ...]:
        """Text that is equal for equal masks."""
        return tuple(
            f"{each.name} {list(each.mask.shape)} "
            + hashlib.sha256(each.mask.contiguous().numpy().tobytes()).hexdigest()
            for each in self.given
        )

    def of_one_frame(self) -> MotionMasks:
        """Return the masks of the first frame, which fit any number of frames."""
        return MotionMasks(*(each and each.of_one_frame() for each in (self.scale, self.effect)))

    def check_count(self, num_frames: int) -> None:
        """Raise AnimateDiffV2VError unless each has one mask for all frames, or one for each."""
        for each in self.given:
            each.check_count(num_frames)


NO_MASKS = MotionMasks()
