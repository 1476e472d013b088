"""Casts of weights from the dtype they are stored in to the one that is computed in."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn


class CastMemory:
    """A scratch buffer of a network for the one weight in use, separate for each thread.

    It is as large as the largest weight: 118 MB with Stable Diffusion 1.5 in float32.
    """

    def __init__(self) -> None:
        """Allocate nothing yet."""
        self._of_thread = threading.local()

    def __deepcopy__(self, _memo: dict[int, Any]) -> CastMemory:
        """Return a new buffer: a copied network casts into memory of its own."""
        return CastMemory()

    def cast(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Cast a weight into this thread's buffer on the CPU, overwriting the previous one."""
        memory: Tensor | None = getattr(self._of_thread, "memory", None)
        if memory is None or memory.dtype != dtype or memory.numel() < weight.numel():
            with torch.inference_mode(
                False
            ):  # an inference tensor could not be written to outside of it
                memory = torch.empty(weight.numel(), dtype=dtype)
            self._of_thread.memory = memory
        return memory[: weight.numel()].view(weight.shape).copy_(weight)


def weight_in(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    """Return a layer's weight in a dtype, times its scale if it is stored with one.

    Scratch buffer on a CPU: valid until the next call on this thread, as the layers of a network
    share it.
    """
    stored: Any = layer
    casts: CastMemory | None = getattr(layer, "casts", None)
    if casts is not None and _into_shared_memory(stored.weight, dtype):
        weight = casts.cast(stored.weight, dtype)
    else:
        weight = stored.weight.to(dtype)
    scale = getattr(layer, "scale", None)
    return weight if scale is None else weight.mul_(scale)


def _into_shared_memory(weight: Tensor, dtype: torch.dtype) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype != dtype
        and not torch.is_grad_enabled()  # the backward pass needs the weight
        and not torch.compiler.is_compiling()
    )
