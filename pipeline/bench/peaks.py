"""The highest speeds of a device: matrix products and copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from ..models.ops.linear import linear

_MATRIX_SIDE = {"cpu": 2048}
_COPIED_BYTES = {"cpu": 2**28}
_ROUNDS = 10
# Rounds stop early on slow machines.
_MOST_SECONDS = 6.0


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Return the highest speed of products of large square matrices, in 10^12 operations a second.

    On a CPU, MKL and oneDNN are both tried: on AMD's CPUs oneDNN was twice as fast.
    """
    size = _MATRIX_SIDE.get(device.type, 8192)
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    products: tuple[Callable[[], Any], ...] = (
        lambda: torch.matmul(left, right),
        lambda: linear(left, right, None),
    )
    fastest = min(_fastest(product, device) for product in products)
    return 2 * size**3 / fastest / 1e12


def copy_peak(device: torch.device) -> float:
    """Return the highest speed of a copy on the device in 10^9 bytes a second, both ways."""
    size = _COPIED_BYTES.get(device.type, 2**30)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _fastest(lambda: target.copy_(source), device) / 1e9


@torch.inference_mode()
def _fastest(run: Callable[[], Any], device: torch.device) -> float:
    fastest, started = float("inf"), time.perf_counter()
    for _ in range(_ROUNDS):
        fastest = min(fastest, seconds_of(run, device))
        if time.perf_counter() - started > _MOST_SECONDS / 2:
            break
    return fastest


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds that a call takes, including the device's pending work."""
    begin = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - begin


def synchronize(device: torch.device) -> None:
    """Wait until an accelerator has done all that it was given."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
