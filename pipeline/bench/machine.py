"""Facts about this machine and its software, for reports."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

_UNKNOWN = "not installed"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine and its software."""

    device: str
    """The device's type and index, as torch names it."""
    name: str
    """The name of the graphics card or the processor."""
    dtype: str
    """The dtype that is computed in."""
    cores: int
    """Cores that this process may use."""
    threads: int
    """Threads that PyTorch computes with on the CPU."""
    memory_gb: float
    """Memory of the device in 10^9 bytes; `free_gb` too."""
    free_gb: float
    system: str
    python: str
    versions: dict[str, str]
    """Of the packages that matter for speed."""


def this_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Return the facts about this machine that matter for a device."""
    total, free = device_memory(device)
    packages = ("animatediff-v2v", "torch", "triton", "numpy")
    return Machine(
        device=str(device),
        name=device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        memory_gb=total / 1e9,
        free_gb=free / 1e9,
        system=platform.platform(),
        python=sys.version.split()[0],
        versions={name: _version(name) for name in packages},
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return _UNKNOWN


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name(device: torch.device) -> str:
    """Return the name of the graphics card, or of the processor and its vector instructions."""
    if device.type in ("cuda", "xpu"):
        return str(getattr(torch, device.type).get_device_name(device))
    if device.type != "cpu":
        return f"{platform.processor() or platform.machine()} ({device.type})"
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def device_memory(device: torch.device) -> tuple[int, int]:
    """Return all and the free memory of a device in bytes; 0 where the system does not say."""
    if device.type in ("cuda", "xpu"):
        free, total = getattr(torch, device.type).mem_get_info(device)
        return total, free
    info = Path("/proc/meminfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines())
        total, free = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
        return total, free
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total, total
    return 0, 0
