"""Weights that are numbers: one that is not finite makes every picture black."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AnimateDiffV2VError

if TYPE_CHECKING:  # most files are told without PyTorch
    import torch


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether all numbers of a tensor are finite.

    A finite sum has finite terms, and is taken as fast as memory is read. Where it is not finite
    it may have overflown; then the least and the greatest tell, as NaN passes through both.
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
    """Tell by the bits: 8 bits have no arithmetic, and widening takes seven times as long."""
    import torch  # noqa: PLC0415 - whoever has a tensor has loaded it

    greatest = {torch.float8_e4m3fn: 0x7E, torch.float8_e5m2: 0x7B}.get(tensor.dtype)
    if greatest is None:
        return is_finite(tensor.float())
    return bool(tensor.view(torch.uint8).bitwise_and(0x7F).amax() <= greatest)


def check_finite(tensor: torch.Tensor, *, name: str, path: Path) -> None:
    """Raise AnimateDiffV2VError naming tensor and file unless all numbers are finite."""
    if not is_finite(tensor):
        raise AnimateDiffV2VError(
            f"{path} is damaged: the tensor {name} holds numbers that are not finite (NaN or "
            "infinite), and every frame would come out black. Download it again, or use another."
        )
