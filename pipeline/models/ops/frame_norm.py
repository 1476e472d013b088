"""Group norms that span the frames of a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class FrameSpanningGroupNorm(nn.GroupNorm):
    """A group norm over all frames of a window, as v1 motion modules were trained with."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        """Replace `norm`, using its weights."""
        super().__init__(norm.num_groups, norm.num_channels, eps=norm.eps, device="meta")
        self.weight, self.bias = norm.weight, norm.bias


def norm_over_frames(norm: Callable[[Tensor], Tensor], features: Tensor, num_frames: int) -> Tensor:
    """Normalise [batch * num_frames, channels, ...] over frames, group channels and pixels."""
    rows, channels = features.shape[:2]
    videos = features.reshape(rows // num_frames, num_frames, channels, -1)
    return norm(videos.transpose(1, 2)).transpose(1, 2).reshape(features.shape)


def group_norm(norm: Any, features: Tensor, num_frames: int) -> Tensor:
    """Normalise [batch * num_frames, channels, ...], each row or each video by itself.

    Args:
        norm: A FrameSpanningGroupNorm spans the rows of a video; anything else with the attributes
            of nn.GroupNorm normalises each row.
        features: The rows.
        num_frames: Frames of each video.
    """
    if isinstance(norm, FrameSpanningGroupNorm):
        return norm_over_frames(norm, features, num_frames)
    return functional.group_norm(features, norm.num_groups, norm.weight, norm.bias, norm.eps)


def span_frames(network: nn.Module) -> None:
    """Replace every group norm in `network` by one that spans frames."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.GroupNorm:
                setattr(parent, name, FrameSpanningGroupNorm(child))
