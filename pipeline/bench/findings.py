"""Causes that slow this machine down, and the setting that helps most."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ..memory.devices import has_fast_bfloat16
from ..models.ops.accumulation import fp16_accumulation
from ..models.ops.eager import attend
from ..models.ops.select import EAGER_OPS, default_ops
from .machine import usable_cores
from .peaks import matrix_peak, seconds_of

# An option that gains less is not worth a sentence.
_WORTHWHILE = 1.1
# Measured on an NVIDIA H200: 145 ms with plain layers, 91.4 with fused ones.
_FUSED_GAIN = 1.59
# Attention below this share of the matrix peak takes longer than all matrix products together.
_SLOW_ATTENTION = 0.1


@dataclass(frozen=True)
class Finding:
    """Something that is missing, with its remedy."""

    sentence: str
    setting: str
    """The option, package or variable to change."""
    gain: float
    """Speed-up of a step with it, at most."""


# What is left to gain on a machine where nothing is missing; see benchmarks/RESULTS.md.
FAST = Finding(
    "The preset fast takes 1.65 times fewer operations of the UNet; the difference is hard to see "
    "(40 dB, measured on the miniature).",
    "--preset fast",
    1.65,
)


def find(device: torch.device, dtype: torch.dtype, *, peak: float) -> Iterator[Finding]:
    """Yield what slows this machine down.

    Args:
        device: The device.
        dtype: The dtype to compute in.
        peak: The speed of matrix products in 10^12 operations a second.
    """
    finders: tuple[Callable[[torch.device, torch.dtype, float], Finding | None], ...] = (
        _no_cuda,
        _idle_cores,
        _no_triton,
        _slow_attention,
        _narrow_sums,
        _narrow_products,
    )
    for finder in finders:
        found = finder(device, dtype, peak)
        if found is not None:
            yield found


def _no_cuda(device: torch.device, _dtype: torch.dtype, _peak: float) -> Finding | None:
    if device.type != "cpu" or torch.cuda.is_available() or not shutil.which("nvidia-smi"):
        return None
    return Finding(
        f"There is an NVIDIA driver, but PyTorch {torch.__version__} cannot use it: install "
        "PyTorch with CUDA, as pytorch.org describes.",
        "PyTorch with CUDA",
        10.0,
    )


def _idle_cores(device: torch.device, _dtype: torch.dtype, _peak: float) -> Finding | None:
    threads, cores = torch.get_num_threads(), usable_cores()
    # Two threads of a core share its units: half of the processors may be all cores.
    if device.type != "cpu" or threads >= max(1, cores // 2):
        return None
    return Finding(
        f"PyTorch computes with {threads} of {cores} cores: unset OMP_NUM_THREADS, or raise it.",
        "OMP_NUM_THREADS",
        cores / threads / 2,
    )


def _no_triton(device: torch.device, dtype: torch.dtype, _peak: float) -> Finding | None:
    is_nvidia = device.type == "cuda" and torch.version.hip is None
    if not is_nvidia or dtype.itemsize != 2 or default_ops(device, dtype) is not EAGER_OPS:
        return None
    package = "triton-windows" if sys.platform == "win32" else "triton"
    return Finding(
        f"Triton does not work here, so the layers run without fused kernels: install {package}. "
        "On an H200 a step takes 1.59 times as long without.",
        package,
        _FUSED_GAIN,
    )


def _slow_attention(device: torch.device, dtype: torch.dtype, peak: float) -> Finding | None:
    share = attention_speed(device, dtype) / peak
    if share >= _SLOW_ATTENTION:
        return None
    return Finding(
        f"Attention reaches {share:.0%} of the speed of matrix products: another version of "
        "PyTorch, or a newer driver, may have a faster one for this device.",
        "another PyTorch",
        _WORTHWHILE,
    )


@torch.inference_mode()
def attention_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Return the speed of self-attention with heads of 40 channels, in 10^12 operations a second.

    That of the UNet's outermost level: 4096 tokens in a frame of 512x512.
    """
    frames, tokens, channels = (1, 2048, 320) if device.type == "cpu" else (16, 4096, 320)
    query = torch.randn(frames, tokens, channels, device=device).to(dtype)
    seconds = min(
        seconds_of(lambda: attend(query, query, query, heads=8), device) for _ in range(4)
    )
    return 4 * frames * tokens**2 * channels / seconds / 1e12


def _narrow_sums(device: torch.device, dtype: torch.dtype, peak: float) -> Finding | None:
    if device.type != "cuda" or dtype != torch.float16:
        return None
    with fp16_accumulation() as is_possible:
        gain = matrix_peak(device, dtype) / peak if is_possible else 1.0
    if gain < _WORTHWHILE:
        return None
    return Finding(
        f"With sums in 16 bits, matrix products are {gain:.2f} times as fast here: --fast "
        "uses them, for a result that is not quite the same.",
        "--fast",
        gain,
    )


def _narrow_products(device: torch.device, dtype: torch.dtype, peak: float) -> Finding | None:
    if device.type != "cpu" or dtype != torch.float32 or not has_fast_bfloat16(device):
        return None
    gain = matrix_peak(device, torch.bfloat16) / peak
    if gain < _WORTHWHILE:
        return None
    return Finding(
        f"This CPU computes with bfloat16 {gain:.2f} times as fast as with float32: "
        "--dtype bfloat16 uses it, for a result that is not quite the same.",
        "--dtype bfloat16",
        gain,
    )
