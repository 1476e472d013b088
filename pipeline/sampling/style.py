"""IP-Adapters with their images, whose style the video takes on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..choices import check_types, checked
from ..errors import AnimateDiffV2VError
from ..models.ip_adapter import IpAdapter
from ..models.ops.image_prompt import ImagePrompt
from ..models.unet import MotionUNet
from ..prompts.track import PromptTrack
from ..ranges import STYLE_WEIGHT
from .names import Arrangement
from .span import WHOLE_SCHEDULE, Span
from .windows import Window


@dataclass(frozen=True, kw_only=True)
class StyleImages:
    """An IP-Adapter with its images."""

    adapter: IpAdapter
    embeddings: Tensor
    """CLIP's embedding of each image, [images, channels]; with `adapter.takes_tokens` its tokens
    before the last layer, [images, tokens, channels]."""
    empty: Tensor
    """The encoding of "no image", [1, ...], for the negative prompt. As in training: zeros for an
    embedding, and the tokens of a grey image."""
    weight: float = 1.0
    weights: Mapping[int, float] | None = None
    """Factors of `weight` by frame of the video, interpolated linearly between them."""
    arrangement: Arrangement = "average"
    """The use of several images. average: their mean, in every frame. concat: all of them, in
    every frame. travel: one after another, spread evenly over the video and mixed between.
    per_window: spread like that, but each context window uses the image nearest to its middle."""
    span: Span = WHOLE_SCHEDULE

    def __post_init__(self) -> None:
        """Refuse values that no sampler can use."""
        check_types(self)
        checked("arrangement", self.arrangement, Arrangement)
        STYLE_WEIGHT.check("weight", self.weight)
        for frame, factor in (self.weights or {}).items():
            STYLE_WEIGHT.check(f"the weight at frame {frame}", factor)
        dimensions = 3 if self.adapter.takes_tokens else 2
        channels = self.adapter.sizes.image_channels
        for embeddings in (self.embeddings, self.empty):
            if embeddings.ndim != dimensions or embeddings.shape[-1] != channels:
                raise AnimateDiffV2VError(
                    f"{self.adapter.name} needs a CLIP vision model whose output has {channels} "
                    f"channels, and this one's has {embeddings.shape[-1]}: "
                    f"use {_vision_model(channels, dimensions)}."
                )

    def track(self, num_frames: int) -> StyleTrack:
        """Return the images' tokens along the video, projected once for all steps."""
        embeddings = self.embeddings
        if self.arrangement == "average":
            embeddings = embeddings.mean(dim=0, keepdim=True)
        tokens = self.adapter.tokens(embeddings)
        empty = self.adapter.tokens(self.empty)
        if self.arrangement == "concat":
            # Repeating keys does not change attention, and lets both prompts share a pass.
            empty = empty.repeat(1, len(tokens), 1)
            tokens = tokens.flatten(0, 1).unsqueeze(0)
        frames = spread(len(tokens), num_frames)
        return StyleTrack(self, PromptTrack(tokens[: len(frames)], frames), PromptTrack(empty))

    def check_fits(self, unet: MotionUNet) -> None:
        """Raise AnimateDiffV2VError unless the adapter was made for this UNet."""
        self.adapter.check_fits(unet.unet)


@dataclass(frozen=True)
class StyleTrack:
    """The images of a job as tokens along its video."""

    style: StyleImages
    images: PromptTrack
    empty: PromptTrack

    def prompt(self, windows: Sequence[tuple[Window, bool]], like: Tensor) -> ImagePrompt:
        """Return the image prompt of passes that go through the UNet together.

        Args:
            windows: The window of each pass, and True for a pass with the negative prompt.
            like: Tokens are moved to its device and dtype.
        """
        tokens = torch.cat([self._tokens(window, negative) for window, negative in windows])
        frames = [frame for window, _ in windows for frame in window]
        weights = torch.tensor([self._weight(frame) for frame in frames]).view(-1, 1, 1)
        return ImagePrompt(self.style.adapter.layers, tokens.to(like), weights.to(like))

    def _tokens(self, window: Window, negative: bool) -> Tensor:
        if negative:
            return self.empty.at(window)
        if self.style.arrangement == "per_window":
            middle = window[len(window) // 2]
            nearest = min(self.images.frames, key=lambda frame: abs(frame - middle))
            return self.images.at([nearest] * len(window))
        return self.images.at(window)

    def _weight(self, frame: int) -> float:
        return self.style.weight * weight_at(frame, self.style.weights or {0: 1.0})


def spread(images: int, num_frames: int) -> tuple[int, ...]:
    """Return the frames at which images stand, from the first to the last; a single one is at 0.

    If there are more images than frames, the first ones are used.

    >>> spread(3, 9)
    (0, 4, 8)
    """
    count = min(images, num_frames)
    if count == 1:
        return (0,)
    return tuple(round(index * (num_frames - 1) / (count - 1)) for index in range(count))


def weight_at(frame: int, weights: Mapping[int, float]) -> float:
    """Return the weight of a frame, interpolated between those given; outside, the nearest one.

    >>> weight_at(6, {4: 0.0, 8: 1.0})
    0.5
    """
    frames = sorted(weights)
    following = bisect_right(frames, frame)
    if following in (0, len(frames)):
        return weights[frames[max(following - 1, 0)]]
    start, end = frames[following - 1], frames[following]
    share = (frame - start) / (end - start)
    return weights[start] + share * (weights[end] - weights[start])


def _vision_model(channels: int, dimensions: int) -> str:
    """Return the published name of the vision model whose output an adapter takes."""
    known = {
        (1024, 2): "CLIP-ViT-H-14-laion2B-s32B-b79K",
        (1280, 3): "CLIP-ViT-H-14-laion2B-s32B-b79K",
        (1280, 2): "CLIP-ViT-bigG-14-laion2B-39B-b160k",
        (1664, 3): "CLIP-ViT-bigG-14-laion2B-39B-b160k",
    }
    return known.get((channels, dimensions), "the one that it was trained with")
