"""Products of matrices in 8 bits, on devices that compute them in hardware."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(FP8).max
# Ada (GeForce RTX 40, L40) is the first of NVIDIA's architectures that does.
_FIRST_CAPABILITY = (8, 9)
# Sizes of matrices must be multiples of this.
_MULTIPLE = 16


def multiply_in_fp8(tokens: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Return tokens @ (weight * scale).T + bias, multiplied in 8 bits and summed in float32.

    Tokens are scaled so that their largest magnitude is in the highest octave of the format.

    Args:
        tokens: [..., in_features], 16 or 32 bits.
        weight: [out_features, in_features], float8_e4m3fn; both multiples of 16.
        scale: [], float32.
        bias: [out_features] or None.
    """
    rows = tokens.reshape(-1, tokens.shape[-1]).contiguous()
    largest = rows.abs().amax().float().clamp_min(torch.finfo(torch.float16).tiny)
    # A power of two, by which dividing is exact.
    token_scale = torch.exp2(torch.ceil(torch.log2(largest / _LARGEST)))
    scaled = (rows / token_scale.to(rows.dtype)).to(FP8)
    # On a graphics card, the operator takes no bias if the result is float32.
    added = None if tokens.dtype == torch.float32 else bias
    multiplied: Tensor = torch._scaled_mm(
        scaled, weight.t(), token_scale, scale, bias=added, out_dtype=tokens.dtype
    )
    if bias is not None and added is None:
        multiplied += bias
    return multiplied.view(*tokens.shape[:-1], len(weight))


def can_multiply_in_fp8(weight: Tensor) -> bool:
    """Return whether a weight has 8 bits, and its device multiplies by it in 8 bits."""
    is_fp8 = weight.dtype == FP8 and weight.dim() == 2
    is_aligned = all(size % _MULTIPLE == 0 for size in weight.shape)
    return is_fp8 and is_aligned and has_fp8_products(weight.device)


@cache
def has_fp8_products(device: torch.device) -> bool:
    """Return whether a device multiplies in 8 bits in hardware, and PyTorch can use that."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    if torch.cuda.get_device_capability(device) < _FIRST_CAPABILITY:
        return False
    tokens = torch.zeros(_MULTIPLE, _MULTIPLE, device=device, dtype=torch.float16)
    try:
        multiply_in_fp8(tokens, tokens.to(FP8), torch.ones((), device=device), None)
    except (AttributeError, RuntimeError):  # a PyTorch that is too old, or built without it
        return False
    return True
