"""The operations that a backend of the UNet provides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..motion_module import MotionModule
from .eager import CrossAttentionKV
from .window_memory import RowMemory


class RunTransformer(Protocol):
    """The operation of a spatial transformer."""

    def __call__(
        self,
        block: Any,
        features: Tensor,
        prompts: CrossAttentionKV,
        num_frames: int,
        tokens_at_once: int | None,
        /,
        *,
        memory: RowMemory | None = None,
    ) -> Tensor:
        """See eager.transformer."""
        ...


@dataclass(frozen=True)
class Ops:
    """The operations a UNet backend provides, one for each kind of layer.

    Each takes the layer, features [batch * num_frames, channels, height, width] and `num_frames`,
    and returns features. Operations on tokens also take the number of tokens to process at a time;
    None is all.
    """

    resnet: Callable[[Any, Tensor, Tensor | None, int], Tensor]
    """Also takes the time step's embedding; None in the VAE."""
    transformer: RunTransformer
    """Also takes the result of `cross_attention_kv`, and what rows see of other windows."""
    motion: Callable[[MotionModule, Tensor, int, int | None], Tensor]
    activated_norm: Callable[[Any, Tensor, int], Tensor]
    """Takes a group norm."""
    upsampler: Callable[[Any, Tensor, tuple[int, int]], Tensor]
    """Also takes the height and width of the result."""
    memory_format: torch.memory_format = torch.preserve_format
    """Best memory format for the weights of convolutions; any other works too."""
