"""ControlNets with their control frames, which keep the structure of a video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..choices import check_types
from ..errors import AnimateDiffV2VError
from ..models.controlnet import ControlNetwork
from ..models.residuals import Residuals
from ..models.unet import MotionUNet
from ..ranges import CONTROL_STRENGTH
from .span import WHOLE_SCHEDULE, Span
from .windows import Window

# Cropping of a side that is tolerated to match aspect ratios: videos are cropped to multiples of 8
# pixels, and 3 % covers rounded sizes.
_CUT_PIXELS, _CUT_SHARE = 8, 0.03


@dataclass(frozen=True, kw_only=True)
class Control:
    """A ControlNet with its frames.

    It acts on the positive and the negative prompt alike, as ComfyUI's Apply ControlNet does, and
    on each context window with the control frames of that window.
    """

    network: ControlNetwork
    frames: Tensor
    """[frames, height, width, 3], uint8 or float 0..1. Read window by window, so that it may be a
    memory-mapped file. A single frame is used for all."""
    strength: float = 1.0
    span: Span = WHOLE_SCHEDULE
    mask: Tensor | None = None
    """[masks, height, width], float 0..1: where it acts. A single mask is used for all frames."""
    repeat_last: bool = False
    """Repeat the last frame if there are fewer than the video has."""

    def __post_init__(self) -> None:
        """Refuse values that no sampler can use."""
        check_types(self)
        CONTROL_STRENGTH.check("control strength", self.strength)
        if self.frames.ndim != 4 or self.frames.shape[-1] < 3 or 0 in self.frames.shape:
            raise AnimateDiffV2VError(
                f"The control frames of {self.network.name} have the shape "
                f"{list(self.frames.shape)}; they must be [frames, height, width, 3]."
            )
        check_mask(self.network.name, self.mask)

    def check_fits(self, unet: MotionUNet, latents: Tensor) -> None:
        """Raise AnimateDiffV2VError unless network, frames and mask fit the latents.

        Args:
            unet: The network to guide.
            latents: [frames, 4, height / 8, width / 8].
        """
        self.network.check_fits(unet)
        height, width = (8 * side for side in latents.shape[-2:])
        self._check_count("control frames", len(self.frames), len(latents))
        check_shape(f"The control frames of {self.network.name}", self.frames, width, height)
        if self.mask is not None:
            self._check_count("masks", len(self.mask), len(latents))
            check_shape(f"The masks of {self.network.name}", self.mask, width, height)

    def _check_count(self, what: str, found: int, frames: int) -> None:
        if found in (1, frames) or (self.repeat_last and found < frames):
            return
        remedy = "or turn repeat_last on" if found < frames else "for the same selection of frames"
        raise AnimateDiffV2VError(
            f"{self.network.name} has {found} {what}, and the video has {frames} frames: give one "
            f"for each frame or one for all, {remedy}."
        )

    def residuals(
        self,
        sample: Tensor,
        timestep: Tensor,
        context: Tensor,
        windows: Sequence[Window],
        depth: int | None = None,
    ) -> Residuals:
        """Return the residuals for windows of the video, one after another.

        Args:
            sample: As the UNet gets it, on its device.
            timestep: As the UNet gets it.
            context: As the UNet gets it, for each row.
            windows: The frames that each window shows, equally many.
            depth: Number of skip connections to return residuals for, outermost first; None returns
                all residuals.
        """
        height, width = (8 * side for side in sample.shape[-2:])
        frames = [frame for window in windows for frame in window]
        pictures = fitted(_picked(self.frames, frames), width=width, height=height)
        mask = None
        if self.mask is not None:
            mask = _picked(self.mask, frames).unsqueeze(1).to(sample.device)
        residuals: Residuals = self.network(sample, timestep, context, pictures.to(sample), depth)
        return residuals.scaled(self.strength, mask)

    def with_network(self, network: Any) -> Control:
        """Return the control with a copy of its network."""
        return replace(self, network=network)

    def cut(self, part: Callable[[Tensor], Tensor]) -> Control:
        """Return the control of a tile; `part` cuts it out of [n, height, width, ...]."""
        mask = None if self.mask is None else part(self.mask)
        return replace(self, frames=part(self.frames), mask=mask)

    def contents(self) -> tuple[object, Iterable[Tensor]]:
        """Return the settings and tensors that the residuals depend on besides the network."""
        mask = () if self.mask is None else (self.mask,)
        settings = (self.strength, self.span, self.frames.shape, self.repeat_last)
        return settings, chain(self.frames, mask)


def check_mask(name: str, mask: Tensor | None) -> None:
    """Raise AnimateDiffV2VError unless the mask of a network, if any, has three dimensions."""
    if mask is not None and (mask.ndim != 3 or 0 in mask.shape):
        raise AnimateDiffV2VError(
            f"The mask of {name} has the shape {list(mask.shape)}; it must be "
            "[masks, height, width]."
        )


def check_shape(what: str, pictures: Tensor, width: int, height: int) -> None:
    """Raise AnimateDiffV2VError unless pictures have the aspect ratio of a video, in any size.

    Args:
        what: The pictures by name, in the plural, for the sentence.
        pictures: [n, h, w, ...].
        width: Pixels of the video.
        height: Pixels of the video.
    """
    found = (pictures.shape[2], pictures.shape[1])
    scale = max(width / found[0], height / found[1])
    cut = (found[0] * scale - width, found[1] * scale - height)
    if any(
        over > max(_CUT_PIXELS, _CUT_SHARE * side)
        for over, side in zip(cut, (width, height), strict=True)
    ):
        raise AnimateDiffV2VError(
            f"{what} are {found[0]}x{found[1]} pixels, another shape than the video's "
            f"{width}x{height}: make them from frames of the video's size."
        )


def _picked(rows: Tensor, frames: Sequence[int]) -> Tensor:
    return rows[[min(frame, len(rows) - 1) for frame in frames]]


def fitted(pictures: Tensor, *, width: int, height: int, is_smooth: bool = False) -> Tensor:
    """Return [n, h, w, 3] as [n, 3, height, width], float, cropped around the middle.

    As ComfyUI fits control frames: cropped to the same aspect ratio, then scaled by the nearest
    pixel, which adds no new colours to a map of edges or depths. With `is_smooth` pixels are
    averaged, as suits pictures.
    """
    scale = torch.iinfo(torch.uint8).max if pictures.dtype == torch.uint8 else 1
    rows = pictures[..., :3].movedim(-1, 1)
    aspect, wanted = rows.shape[3] / rows.shape[2], width / height
    x = round((rows.shape[3] - rows.shape[3] * wanted / aspect) / 2) if aspect > wanted else 0
    y = round((rows.shape[2] - rows.shape[2] * aspect / wanted) / 2) if aspect < wanted else 0
    rows = rows[:, :, y : rows.shape[2] - y, x : rows.shape[3] - x]
    if rows.shape[-2:] != (height, width):
        if is_smooth:
            rows = functional.interpolate(
                rows.float(), size=(height, width), mode="bilinear", antialias=True
            )
        else:
            rows = functional.interpolate(rows, size=(height, width), mode="nearest-exact")
    return rows.float() / scale
