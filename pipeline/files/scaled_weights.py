"""Widening of ComfyUI's 8-bit weights with scales to float32.

The arithmetic is that of comfy-kitchen 0.2, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from ..errors import AnimateDiffV2VError
from .weight_formats import FORMAT_ENDING, SCALE_ENDINGS, known_formats

# Scales for products in 8 bits, which are not used here: products are computed in full precision.
_UNUSED = (".input_scale", ".scale_input", "scaled_fp8")
_BLOCK = 32  # values of a row that share a scale, in MX formats
_TILE_ROWS, _TILE_COLUMNS = 128, 4  # memory layout of the block scales, for cuBLAS

Tensors = dict[str, torch.Tensor]


def widen_scaled(tensors: Tensors, *, path: Path, metadata: Mapping[str, str]) -> Tensors:
    """Return the tensors of a file with the scales applied and removed.

    Tensors without a scale stay the same objects. Widened ones are float32 and take memory.

    Raises:
        AnimateDiffV2VError: a layer has an unsupported format, or does not fit its scale; names
            the layer.
    """
    dtypes = {n: str(tensor.dtype).removeprefix("torch.") for n, tensor in tensors.items()}
    texts = {
        name: tensor.numpy().tobytes()
        for name, tensor in tensors.items()
        if name.endswith(FORMAT_ENDING) and tensor.dtype == torch.uint8
    }
    formats = known_formats(dtypes, texts, path=path, metadata=metadata)
    if not formats:
        return tensors
    kept = {name: tensor for name, tensor in tensors.items() if not _is_beside(name)}
    for layer, name in formats.items():
        scale = next(
            (tensors[layer + end] for end in SCALE_ENDINGS if layer + end in tensors), None
        )
        try:
            kept[f"{layer}.weight"] = _WIDEN[name](tensors[f"{layer}.weight"], scale)
        except (ValueError, RuntimeError) as error:
            raise AnimateDiffV2VError(
                f"{path} does not fit together: the scale of its layer {layer} {error}."
            ) from error
    return kept


def _is_beside(name: str) -> bool:
    return name.endswith((FORMAT_ENDING, *SCALE_ENDINGS, *_UNUSED))


def _by_scale(weight: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """Return ``weight * scale``, with one scale for the tensor or one per row."""
    if scale is None:
        raise ValueError("is missing")
    rows = (weight.shape[0], *[1] * (weight.ndim - 1))
    if scale.numel() != 1 and tuple(scale.shape) != rows:
        raise ValueError(f"has the shape {list(scale.shape)}, not [] or {list(rows)}")
    return weight.float() * (scale.float().reshape(()) if scale.numel() == 1 else scale.float())


def _by_blocks(weight: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """Return an MX weight: each 32 values of a row share a power of two (OCP Microscaling 1.0)."""
    if scale is None:
        raise ValueError("is missing")
    if weight.ndim != 2 or weight.shape[1] % _BLOCK or scale.element_size() != 1:
        raise ValueError(f"does not fit a weight of the shape {list(weight.shape)}")
    rows, columns = weight.shape[0], weight.shape[1] // _BLOCK
    tiles = -(-rows // _TILE_ROWS), -(-columns // _TILE_COLUMNS)
    if scale.numel() != tiles[0] * tiles[1] * _TILE_ROWS * _TILE_COLUMNS:
        raise ValueError(f"has {scale.numel()} numbers")
    row, column = torch.arange(rows)[:, None], torch.arange(columns)[None]
    # In a tile of 128 rows and 4 columns, row 33, column 2 is at (33 % 32) * 16 + 1 * 4 + 2.
    tile = (row // _TILE_ROWS) * tiles[1] + column // _TILE_COLUMNS
    inside = (row % 32) * 16 + (row % _TILE_ROWS) // 32 * 4 + column % _TILE_COLUMNS
    exponents = scale.contiguous().view(torch.uint8).flatten()[tile * 512 + inside]
    factors = torch.exp2(exponents.float() - 127).unsqueeze(-1)
    blocks = weight.float().reshape(rows, columns, _BLOCK)
    return (blocks * factors).reshape(weight.shape)


_WIDEN: dict[str, Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]] = {
    "float8_e4m3fn": _by_scale,
    "float8_e5m2": _by_scale,
    "int8_tensorwise": _by_scale,
    "mxfp8": _by_blocks,
}
