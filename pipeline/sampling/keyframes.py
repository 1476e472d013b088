"""Keyframes: pictures of a few frames, by which SparseCtrl guides the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..choices import check_types
from ..errors import AnimateDiffV2VError
from ..models.residuals import Residuals
from ..models.sparsectrl import SparseControlNetwork
from ..models.unet import MotionUNet
from ..models.vae import LATENT_SCALE, LatentCodec
from ..ranges import CONTROL_STRENGTH
from .control import Control, check_mask, check_shape, fitted
from .span import WHOLE_SCHEDULE, Span
from .windows import Window

# AnimateDiff's SparseCtrl was trained with v3: it does not suit the features of earlier modules.
_UNSUITABLE = {None: "no motion module", "v1": "a v1 one", "v2": "a v2 (or Lightning) one"}


@dataclass(frozen=True, kw_only=True)
class Keyframes:
    """A SparseCtrl network with pictures of a few frames.

    It acts on the positive and the negative prompt alike. A context window is guided by the
    keyframes inside it, or else by the nearest ones; see `keyframes_of_window`.
    """

    network: SparseControlNetwork
    pictures: Tensor
    """[keyframes, height, width, 3], uint8 or float 0..1."""
    frames: tuple[int, ...] = (0,)
    """The frame of the video that each picture shows. -1 is the last one, -2 the one before it."""
    strength: float = 1.0
    span: Span = WHOLE_SCHEDULE
    mask: Tensor | None = None
    """[masks, height, width], float 0..1: where it acts. A single mask is used for all frames."""
    latents: Tensor | None = None
    """[keyframes, 4, height / 8, width / 8], the VAE's latents of the pictures; see `encoded`."""

    def __post_init__(self) -> None:
        """Refuse values that no sampler can use."""
        check_types(self)
        CONTROL_STRENGTH.check("keyframe strength", self.strength)
        if self.pictures.ndim != 4 or self.pictures.shape[-1] < 3 or 0 in self.pictures.shape:
            raise AnimateDiffV2VError(
                f"The keyframes of {self.network.name} have the shape "
                f"{list(self.pictures.shape)}; they must be [keyframes, height, width, 3]."
            )
        if len(self.frames) != len(self.pictures):
            raise AnimateDiffV2VError(
                f"{len(self.pictures)} keyframes are given for {self.network.name}, and "
                f"{len(self.frames)} frame numbers: give a frame number for each picture."
            )
        check_mask(self.network.name, self.mask)

    @property
    def needs_codec(self) -> bool:
        """True if the network takes latents of the pictures, and they are not encoded yet."""
        return self.network.takes_latents and self.latents is None

    def encoded(self, codec: LatentCodec, width: int, height: int) -> Keyframes:
        """Return the keyframes with their latents, if the network takes latents.

        Args:
            codec: The VAE, on the device to compute on.
            width: Pixels of the video.
            height: Pixels of the video.
        """
        if not self.needs_codec:
            return self
        check_shape(f"The keyframes of {self.network.name}", self.pictures, width, height)
        pictures = fitted(self.pictures, width=width, height=height, is_smooth=True)
        return replace(self, latents=codec.encode(pictures.movedim(1, -1)))

    def placed(self, num_frames: int) -> Keyframes:
        """Return the keyframes with frames counted from the first one of a video.

        Raises:
            AnimateDiffV2VError: a frame is outside of the video, or is named twice.
        """
        return replace(self, frames=placed_frames(self.frames, num_frames))

    def check_fits(self, unet: MotionUNet, latents: Tensor) -> None:
        """Raise AnimateDiffV2VError unless network, pictures, frames and mask fit the latents.

        Args:
            unet: The network to guide.
            latents: [frames, 4, height / 8, width / 8].
        """
        name = self.network.name
        self._check_motion(unet)
        self.network.check_fits(unet)
        self.placed(len(latents))
        height, width = (8 * side for side in latents.shape[-2:])
        check_shape(f"The keyframes of {name}", self.pictures, width, height)
        if self.needs_codec:
            raise AnimateDiffV2VError(
                f"The keyframes of {name} have no latents: call `encoded` with the VAE first."
            )
        if self.mask is not None:
            if len(self.mask) not in (1, len(latents)):
                raise AnimateDiffV2VError(
                    f"{name} has {len(self.mask)} masks, and the video has {len(latents)} frames: "
                    "give one for each frame or one for all."
                )
            check_shape(f"The masks of {name}", self.mask, width, height)

    def _check_motion(self, unet: MotionUNet) -> None:
        """Raise AnimateDiffV2VError unless the network was trained with such motion modules."""
        name = self.network.name
        if self.network.has_mid_block:
            if unet.motion is None or unet.motion.mid_block is None:
                raise AnimateDiffV2VError(
                    f"{name} was trained with a motion module that has a middle block, which the "
                    "model lacks: use the motion module that it was made for."
                )
            return
        unsuitable = _UNSUITABLE.get(unet.family)
        if unsuitable:
            raise AnimateDiffV2VError(
                f"Keyframes need AnimateDiff's v3 motion module, which {name} was trained with, "
                f"and the model has {unsuitable}: use v3_sd15_mm."
            )

    def residuals(
        self,
        sample: Tensor,
        timestep: Tensor,
        context: Tensor,
        windows: Sequence[Window],
        depth: int | None = None,
    ) -> Residuals:
        """Return the residuals for windows of the video, as `Control.residuals`."""
        given = self._given(sample)
        inputs = torch.cat([self._of_window(window, given) for window in windows])
        residuals: Residuals = self.network(inputs, timestep, context, len(windows[0]), depth)
        mask = None
        if self.mask is not None:
            rows = [min(frame, len(self.mask) - 1) for window in windows for frame in window]
            mask = self.mask[rows].unsqueeze(1).to(sample.device)
        return residuals.scaled(self.strength, mask)

    def _given(self, sample: Tensor) -> Tensor:
        """Return the keyframes as the network takes them, on the device of the sample."""
        if self.latents is not None:
            return (self.latents.float() * LATENT_SCALE).to(sample)
        height, width = (8 * side for side in sample.shape[-2:])
        return fitted(self.pictures, width=width, height=height, is_smooth=True).to(sample)

    def _of_window(self, window: Window, given: Tensor) -> Tensor:
        """Return the input of the network for a window, [frames, channels + 1, height, width]."""
        _, channels, height, width = given.shape
        inputs = given.new_zeros(len(window), channels + 1, height, width)
        for row, keyframe in keyframes_of_window(window, self.frames).items():
            inputs[row, :-1] = given[keyframe]
            inputs[row, -1] = 1
        return inputs

    def with_network(self, network: Any) -> Keyframes:
        """Return the keyframes with a copy of their network."""
        return replace(self, network=network)

    def cut(self, part: Callable[[Tensor], Tensor]) -> Keyframes:
        """Return the keyframes of a tile; `part` cuts it out of [n, height, width, ...]."""
        latents = self.latents
        if latents is not None:
            latents = part(latents.movedim(1, -1)).movedim(-1, 1)
        mask = None if self.mask is None else part(self.mask)
        return replace(self, pictures=part(self.pictures), latents=latents, mask=mask)

    def contents(self) -> tuple[object, Iterable[Tensor]]:
        """Return the settings and tensors that the residuals depend on besides the network."""
        mask = () if self.mask is None else (self.mask,)
        settings = (self.strength, self.span, self.frames, self.pictures.shape)
        return settings, (self.pictures, *mask)


AnyControl: TypeAlias = Control | Keyframes
"""What adds residuals to the UNet's features."""


def placed_frames(frames: Sequence[int], num_frames: int) -> tuple[int, ...]:
    """Return frame numbers counted from the first frame of a video.

    >>> placed_frames((0, -1), 16)
    (0, 15)

    Raises:
        AnimateDiffV2VError: a frame is outside of the video, or is named twice.
    """
    for frame in frames:
        if not -num_frames <= frame < num_frames:
            raise AnimateDiffV2VError(
                f"A keyframe is at frame {frame}, and the video has {num_frames} frames: "
                f"frames go from 0 to {num_frames - 1}, and -1 is the last one."
            )
    placed = tuple(frame % num_frames for frame in frames)
    twice = next((each for each in placed if placed.count(each) > 1), None)
    if twice is not None:
        raise AnimateDiffV2VError(
            f"Two keyframes are at frame {twice}: give each one a frame of its own."
        )
    return placed


def keyframes_of_window(window: Window, frames: Sequence[int]) -> dict[int, int]:
    """Return which keyframe stands in which row of a window.

    As in Advanced-ControlNet (its context_aware "nearest_hint"): if no keyframe is inside, the
    nearest one stands in the first or last row, whichever is closer to it. At equal distances two
    do, one at either end; a single keyframe then stands in the middle.

    >>> keyframes_of_window([4, 5, 6, 7], (0, 6))
    {2: 1}
    >>> keyframes_of_window([8, 9, 10, 11], (0, 6))
    {0: 1}
    >>> keyframes_of_window([8, 9, 10, 11], (6, 13))
    {0: 0, 3: 1}

    Args:
        window: The frame that each row shows.
        frames: The frame of each keyframe.
    """
    inside = {window.index(frame): index for index, frame in enumerate(frames) if frame in window}
    if inside:
        return inside

    def nearest(frame: int) -> tuple[int, int]:
        distance, keyframe = min((abs(each - frame), i) for i, each in enumerate(frames))
        return distance, keyframe

    first, last = nearest(window[0]), nearest(window[-1])
    end = len(window) - 1
    if first[0] < last[0]:
        return {0: first[1]}
    if first[0] > last[0]:
        return {end: last[1]}
    if len(frames) == 1:
        return {end // 2: first[1]}
    return {0: first[1], end: last[1]}
