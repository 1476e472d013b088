"""The device and the dtype to compute in."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from ..choices import checked_type
from ..errors import AnimateDiffV2VError
from ..request import ModelFiles

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
    device = _usable(name)
    if device is None:
        raise AnimateDiffV2VError(
            f"device is {name!r}, on which this machine cannot compute; "
            "auto takes the fastest one available, and cpu always works."
        )
    return device


def job_devices(files: ModelFiles) -> list[torch.device]:
    """Return the devices that a job computes on, the main one first.

    Raises:
        AnimateDiffV2VError: this machine lacks one of them, or they do not go together.
    """
    return _resolved(files.devices) if files.devices else [resolve_device(files.device)]


def _resolved(names: Sequence[str]) -> list[torch.device]:
    """Return the torch devices with these names, which share the windows of a video.

    The CPU may be named more than once: tests have no other devices.
    """
    listed = ", ".join(names)
    devices = []
    for name in names:
        device = None if name == "auto" else _usable(name)
        if device is None:
            raise AnimateDiffV2VError(
                f"devices is {listed}, and this machine cannot compute on {name!r}; {_available()}."
            )
        devices.append(_numbered(device))
    if len({device.type for device in devices}) > 1:
        raise AnimateDiffV2VError(
            f"devices is {listed}; name devices of one kind, because the results of different "
            "kinds differ by rounding."
        )
    for device in devices:
        if device.type != "cpu" and devices.count(device) > 1:
            raise AnimateDiffV2VError(
                f"devices is {listed}, which names {device} twice: name each device once."
            )
    return devices


def _usable(name: str) -> torch.device | None:
    """Return the device with this name if this machine can compute on it, else None."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # fails on the meta device, which holds no data
    except (RuntimeError, AssertionError, NotImplementedError):
        return None
    return device


def _available() -> str:
    found = accelerators()
    return f"it has {', '.join(found)}" if found else "it has no CUDA devices"


def _numbered(device: torch.device) -> torch.device:
    """Return a device with its number: cuda is the current one of several."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def free_bytes(device: torch.device) -> int:
    """Return the memory of a CUDA device that is free, or held by PyTorch without being used."""
    free, _ = torch.cuda.mem_get_info(device)
    held: int = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + held


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
