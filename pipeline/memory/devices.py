"""The device and the dtype to compute in."""

from __future__ import annotations

import torch

from ..choices import checked_type
from ..errors import AnimateDiffV2VError


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


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype for `auto`, float32, float16 or bfloat16; `auto` is float32 on a CPU."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    return dtypes[name]
