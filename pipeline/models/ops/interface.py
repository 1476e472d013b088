"""The operations that a backend of the UNet provides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..motion_module import MotionModule
from .eager import CrossAttentionKV


@dataclass(frozen=True)
class Ops:
    """How features [clips * num_frames, channels, height, width] go through each kind of layer.

    Each takes the layer, the features and `num_frames`, and gives features. What works on tokens
    takes last how many pixels of frames to work on at a time; None is all.
    """

    resnet: Callable[[Any, Tensor, Tensor | None, int], Tensor]
    """Takes also the time step's embedding; None in the VAE."""
    transformer: Callable[[Any, Tensor, CrossAttentionKV, int, int | None], Tensor]
    """Takes also what `cross_attention_kv` gives."""
    motion: Callable[[MotionModule, Tensor, int, int | None], Tensor]
    activated_norm: Callable[[Any, Tensor, int], Tensor]
    """Takes a group norm."""
    upsampler: Callable[[Any, Tensor, tuple[int, int]], Tensor]
    """Takes the height and width to come to."""
    memory_format: torch.memory_format = torch.preserve_format
    """How the weights of convolutions best lie in memory; they work with any."""
