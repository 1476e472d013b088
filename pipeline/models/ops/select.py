"""The choice between the implementations of the UNet's operations."""

from __future__ import annotations

import logging
import time
from functools import cache

import torch
from torch import Tensor, nn

from ..motion_module import MotionModule
from .eager import activated_norm, resnet, transformer, upsampler
from .interface import Ops

logger = logging.getLogger(__name__)

# Two kernels from Triton's cache on disk take a fraction of this, and building them more.
_BUILDING_SECONDS = 0.5


def motion_module(
    module: MotionModule, features: Tensor, num_frames: int, tokens_at_once: int | None
) -> Tensor:
    """Run a motion module; see motion_module.MotionModule."""
    moved: Tensor = module(features, num_frames, tokens_at_once)
    return moved


EAGER_OPS = Ops(resnet, transformer, motion_module, activated_norm, upsampler)


def lay_out_weights(network: nn.Module, device: torch.device) -> None:
    """Arrange the weights of convolutions in memory as the default operations want them."""
    kernels = next((weight for weight in network.parameters() if weight.dim() == 4), None)
    if kernels is not None:
        form = default_ops(device, kernels.dtype).memory_format
        network.to(memory_format=form)  # type: ignore[call-overload]


@cache
def default_ops(device: torch.device, dtype: torch.dtype) -> Ops:
    """Return the fastest operations for a device and a dtype; results differ by rounding only.

    These are the fused ones on NVIDIA GPUs with Triton and 16-bit dtypes, else the eager ones.
    """
    if device.type != "cuda" or torch.version.hip is not None or dtype.itemsize != 2:
        return EAGER_OPS
    try:
        # Triton may be missing, as on Windows, or lack a compiler, which only shows when it runs.
        from .fused import FUSED_OPS, try_out  # noqa: PLC0415

        started = time.perf_counter()
        try_out(device, dtype)
        _tell_of_building(time.perf_counter() - started)
    except Exception as reason:
        logger.warning(
            "The networks run without fused kernels and take longer: Triton does not work here "
            "(%s: %s). The package triton, on Windows triton-windows, brings it.",
            type(reason).__name__, reason,
        )  # fmt: skip
        return EAGER_OPS
    return FUSED_OPS


def _tell_of_building(seconds: float) -> None:
    """Log that the kernels are built, if trying two of them took long."""
    if seconds > _BUILDING_SECONDS:
        logger.warning(
            "Kernels are built for this graphics card, and kept on disk: this job takes longer, 16 "
            "seconds on an H200."
        )
