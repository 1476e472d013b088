"""The device and the dtype to compute in."""

from __future__ import annotations

import logging

import torch

from ..choices import checked_type
from ..errors import AnimateDiffV2VError

logger = logging.getLogger(__name__)


def resolve_device(name: str) -> torch.device:
    """Return the torch device with this name; `auto` is the fastest one of this machine.

    Raises:
        AnimateDiffV2VError: this machine has no such device.
    """
    checked_type("device", name, str)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # fails on the meta device, which holds no data
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise AnimateDiffV2VError(
            f"device is {name!r}, on which this machine cannot compute; "
            "auto takes the fastest one available, and cpu always works."
        ) from error
    return device


def accelerators() -> list[str]:
    """Return the names of this machine's CUDA devices, such as "cuda:0"."""
    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def resolve_dtype(
    name: str, device: torch.device, *, reduced_precision: bool = False
) -> torch.dtype:
    """Return the dtype for a name; log a warning if the device is slower with it.

    Args:
        name: float32, float16, bfloat16 or auto, which is float32 on a CPU and float16 elsewhere.
        device: The device to compute on.
        reduced_precision: Let auto be bfloat16 on a CPU that is faster with it.
    """
    is_on_cpu = device.type == "cpu"
    if name == "auto":
        fast = torch.bfloat16 if reduced_precision and has_fast_bfloat16(device) else torch.float32
        return fast if is_on_cpu else torch.float16
    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    dtype = dtypes[name]
    if (
        is_on_cpu
        and dtype != torch.float32
        and not (dtype == torch.bfloat16 and has_fast_bfloat16(device))
    ):
        logger.warning(
            "dtype is %s, which is slower than float32 on this CPU, as it has no instructions for "
            "it; auto or float32 is faster and more exact.", name,
        )  # fmt: skip
    return dtype


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 faster than float32.

    On a CPU this takes AVX512-BF16 or AMX; without them bfloat16 is slower.
    """
    if device.type != "cpu":
        return True
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    # Not part of PyTorch's public API; False where this PyTorch lacks them.
    return any(getattr(torch.cpu, name, bool)() for name in names)
