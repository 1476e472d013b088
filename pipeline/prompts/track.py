"""Encoded prompts: one for all frames, or blended from keyframe to keyframe."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..choices import check_types
from ..errors import AnimateDiffV2VError


@dataclass(frozen=True)
class PromptTrack:
    """The tokens that the UNet attends to in each frame.

    Between two keyframes the encodings are interpolated linearly; before the first and after the
    last they are constant. Interpolation happens when a window asks for it, so a track takes only
    the memory of its keyframes.
    """

    encodings: Tensor
    """[keyframes, tokens, channels], float32."""
    frames: tuple[int, ...] = (0,)
    """The frame of each keyframe, ascending; frames of the output."""

    def __post_init__(self) -> None:
        """Check that keyframes and encodings match."""
        check_types(self)
        if self.encodings.ndim != 3 or len(self.encodings) != len(self.frames):
            raise AnimateDiffV2VError(
                f"The encoded prompt has the shape {list(self.encodings.shape)} for "
                f"{len(self.frames)} keyframes; it must be [keyframes, tokens, channels]."
            )
        if any(later <= earlier for earlier, later in pairwise(self.frames)):
            raise AnimateDiffV2VError(
                f"The keyframes {list(self.frames)} are not in ascending order: name each frame "
                "once, in order."
            )

    @property
    def is_constant(self) -> bool:
        """True if all frames have the same encoding."""
        return len(self.frames) == 1

    @property
    def tokens(self) -> int:
        """Return the number of tokens of the encoding, a multiple of 77."""
        return int(self.encodings.shape[1])

    def repeated(self, tokens: int) -> PromptTrack:
        """Return the track with its tokens repeated up to `tokens`, a multiple of their number.

        Repeated keys and values do not change the result of attention.
        """
        return PromptTrack(self.encodings.repeat(1, tokens // self.tokens, 1), self.frames)

    def on(self, device: torch.device, dtype: torch.dtype) -> PromptTrack:
        """Return the track on a device; keyframes to interpolate between keep their float32."""
        if self.is_constant:
            return PromptTrack(self.encodings.to(device, dtype), self.frames)
        return PromptTrack(self.encodings.to(device), self.frames)

    def at(self, frames: Sequence[int]) -> Tensor:
        """Return the encodings at these frames, [len(frames), tokens, channels]."""
        if self.is_constant:
            return self.encodings.expand(len(frames), -1, -1)
        return torch.stack([self._at(frame) for frame in frames])

    def _at(self, frame: int) -> Tensor:
        following = bisect_right(self.frames, frame)
        if following in (0, len(self.frames)):
            return self.encodings[max(following - 1, 0)]
        start, end = self.frames[following - 1], self.frames[following]
        return torch.lerp(
            self.encodings[following - 1],
            self.encodings[following],
            (frame - start) / (end - start),
        )
