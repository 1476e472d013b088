"""What a way through the layers of the UNet consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .motion_module import MotionModule
from .spatial_layers import Prompts, resnet, transformer


@dataclass(frozen=True)
class Layers:
    """How features [clips * num_frames, channels, height, width] go through each kind of layer.

    Each takes the layer, the features and `num_frames`, and gives features. What works on tokens
    takes last how many pixels of frames to work on at a time; None is all.
    """

    resnet: Callable[[Any, Tensor, Tensor, int], Tensor]
    """Takes also the time step's embedding."""
    transformer: Callable[[Any, Tensor, Prompts, int, int | None], Tensor]
    """Takes also what `encoded_prompts` gives."""
    motion: Callable[[MotionModule, Tensor, int, int | None], Tensor]


def motion_module(
    module: MotionModule, features: Tensor, num_frames: int, tokens_at_once: int | None
) -> Tensor:
    """Let the frames of each clip see each other."""
    moved: Tensor = module(features, num_frames, tokens_at_once)
    return moved


PLAIN_LAYERS = Layers(resnet, transformer, motion_module)
