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

    Each takes the layer, the features and last `num_frames`, and gives features.
    """

    resnet: Callable[[Any, Tensor, Tensor, int], Tensor]
    """Takes also the time step's embedding."""
    transformer: Callable[[Any, Tensor, Prompts, int], Tensor]
    """Takes also what `encoded_prompts` gives."""
    motion: Callable[[MotionModule, Tensor, int], Tensor]


def motion_module(module: MotionModule, features: Tensor, num_frames: int) -> Tensor:
    """Let the frames of each clip see each other."""
    moved: Tensor = module(features, num_frames)
    return moved


PLAIN_LAYERS = Layers(resnet, transformer, motion_module)
