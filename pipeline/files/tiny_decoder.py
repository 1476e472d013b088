"""The decoder of TAESD, a tiny VAE: its table of tensors, and files of it.

The architecture and the original names are those of taesd.py in madebyollin/taesd (MIT licence);
diffusers' names are those of AutoencoderTiny.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..choices import checked_path
from .reading import read_weights
from .tensor_specs import Layout, Shapes, TensorSpec, affine, shapes_of, take_tensors

if TYPE_CHECKING:  # files are recognised without PyTorch
    import torch

LATENT_CHANNELS = 4
# Residual blocks at each size, from latents to pixels.
BLOCKS = (3, 3, 3, 1)
CONVOLUTIONS = (0, 2, 4)  # in a residual block, where activations take the other places
_COLOURS = 3
_KERNEL = (3, 3)


class TinyDecoderLayout(NamedTuple):
    """How a file names the tensors of a tiny decoder."""

    layout: Layout
    prefix: str

    @property
    def first(self) -> str:
        """Name of the first convolution's weight, [width, latent channels, 3, 3]."""
        return self.prefix + ("1.weight" if self.layout == "ldm" else "layers.0.weight")

    @property
    def second(self) -> str:
        """Name of a weight of the first residual block."""
        return self.prefix + (
            "3.conv.0.weight" if self.layout == "ldm" else "layers.2.conv.0.weight"
        )


_LAYOUTS = (
    TinyDecoderLayout("ldm", ""),
    TinyDecoderLayout("ldm", "taesd_decoder."),
    TinyDecoderLayout("diffusers", "decoder."),
)


def tiny_decoder_layout(shapes: Shapes) -> TinyDecoderLayout | None:
    """Return how the tensors are named; None if they are not those of a tiny decoder."""
    for each in _LAYOUTS:
        if len(shapes.get(each.first, ())) == len(shapes.get(each.second, ())) == 4:
            return each
    return None


def tiny_decoder_table(width: int) -> Iterator[TensorSpec]:
    """List every tensor of a decoder with this many channels, under both names.

    The original counts an activation of the latents first: its layer 1 is diffusers' layer 0.
    """
    yield from _convolution(0, width, LATENT_CHANNELS)
    index = 2  # after an activation
    for level, blocks in enumerate(BLOCKS):
        for _ in range(blocks):
            for part in CONVOLUTIONS:
                yield from affine(
                    f"layers.{index}.conv.{part}",
                    f"{index + 1}.conv.{part}",
                    width,
                    width,
                    *_KERNEL,
                )
            index += 1
        if level + 1 < len(BLOCKS):
            yield from _convolution(index + 1, width, width, bias=False)  # after doubling
            index += 2
    yield from _convolution(index, _COLOURS, width)


def load_tiny_decoder(path: str | Path) -> dict[str, torch.Tensor] | None:
    """Load a tiny decoder under the names of TinyDecoder; None if a file is something else.

    Raises:
        AnimateDiffV2VError: the file cannot be read, or a tensor is missing or has the wrong shape.
    """
    path = checked_path("path", path)
    weights = read_weights(path)
    shapes = shapes_of(weights)
    found = tiny_decoder_layout(shapes)
    if found is None or shapes[found.first][1] != LATENT_CHANNELS:
        return None
    table = tiny_decoder_table(shapes[found.first][0])
    return take_tensors(weights, table, layout=found.layout, prefix=found.prefix, path=path)


def _convolution(index: int, out: int, into: int, *, bias: bool = True) -> Iterator[TensorSpec]:
    yield from affine(f"layers.{index}", f"{index + 1}", out, into, *_KERNEL, bias=bias)
