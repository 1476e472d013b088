"""Checks for weights that are not finite; a single one makes every picture black."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AnimateDiffV2VError

if TYPE_CHECKING:  # most files are recognised without PyTorch
    import torch


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether all numbers of a tensor are finite.

    A finite sum has finite terms, and summing is as fast as reading memory. If the sum is not
    finite, it may have overflowed; then minimum and maximum decide, since NaN propagates to both.
    """
    if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
        return True
    if tensor.dtype.itemsize == 1:
        return _is_finite_in_8_bits(tensor)
    if tensor.sum().isfinite():
        return True
    low, high = tensor.aminmax()
    return bool(low.isfinite() & high.isfinite())


def _is_finite_in_8_bits(tensor: torch.Tensor) -> bool:
    """Check the bits, since 8-bit dtypes have no arithmetic; widening takes 7 times as long."""
    import torch  # noqa: PLC0415 - loaded already if there is a tensor

    greatest = {torch.float8_e4m3fn: 0x7E, torch.float8_e5m2: 0x7B}.get(tensor.dtype)
    if greatest is None:
        return is_finite(tensor.float())
    return bool(tensor.view(torch.uint8).bitwise_and(0x7F).amax() <= greatest)


def check_finite(tensor: torch.Tensor, *, name: str, path: Path) -> None:
    """Raise AnimateDiffV2VError, naming tensor and file, unless all numbers are finite."""
    if not is_finite(tensor):
        raise AnimateDiffV2VError(
            f"{path} is damaged: the tensor {name} holds numbers that are not finite (NaN or "
            "infinite), and every frame would come out black. Download it again, or use another."
        )
