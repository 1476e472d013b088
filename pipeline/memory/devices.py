"""Where to compute and in which precision."""

from __future__ import annotations

import torch

from ..choices import checked_type
from ..errors import AnimateDiffV2VError


def resolve_device(name: str) -> torch.device:
    """Turn `auto`, or a torch device's name, into a device that is there.

    Raises AnimateDiffV2VError when there is no such device on this machine.
    """
    checked_type("device", name, str)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # the meta device, for one, gives nothing back
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise AnimateDiffV2VError(
            f"device is {name!r}, on which this machine cannot compute; "
            "auto takes the fastest that there is, cpu always works."
        ) from error
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn `auto`, float32, float16 or bfloat16 into a dtype; auto is float32 on a CPU."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    return dtypes[name]
