"""Layers whose weights stay as the file has them, and are cast when they are used.

A network that computes in float32 then takes no more memory than its memory-mapped 16-bit file,
and gives the same bits, because casting up is exact. On a CPU all weights are cast into one scratch
buffer, one after another: in newly allocated memory a cast takes up to four times as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from .casting import CastMemory, weight_in
from .convolution import Convolution
from .fp8_product import can_multiply_in_fp8, multiply_in_fp8
from .linear import linear


class StoredLinear(nn.Linear):
    """A linear layer that computes in its input's dtype, whatever its weight's."""

    scale: Tensor | None

    def __init__(self, linear: nn.Linear, casts: CastMemory | None = None) -> None:
        """Replace `linear`, using its weights.

        Args:
            linear: The layer to replace.
            casts: Buffer for casts on a CPU; None allocates memory for each.
        """
        super().__init__(
            linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta"
        )
        self.weight, self.bias = linear.weight, linear.bias
        self.casts = casts
        self.register_buffer("scale", None)
        self.multiplies_in_fp8 = False

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        if self.multiplies_in_fp8:
            assert self.scale is not None
            return multiply_in_fp8(input, self.weight, self.scale, self.bias)
        return linear(input, weight_in(self, input.dtype), self.bias)


class StoredConv2d(Convolution):
    """A convolution that computes in its input's dtype, whatever its weight's."""

    def __init__(self, conv: nn.Conv2d, casts: CastMemory | None = None) -> None:
        """Replace `conv`, using its weights; see StoredLinear."""
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            bias=conv.bias is not None,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.casts = casts
        self.register_buffer("scale", None)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight_in(self, input.dtype), bias)


def store_weights(network: nn.Module) -> set[str]:
    """Replace linear layers and convolutions of `network` by stored ones.

    Returns:
        The names of their weights.
    """
    stored, casts = set(), CastMemory()
    for parent_name, parent in list(network.named_modules()):
        for name, child in parent.named_children():
            replacement: nn.Module | None = None
            if type(child) is nn.Linear:
                replacement = StoredLinear(child, casts)
            elif type(child) in (nn.Conv2d, Convolution):
                replacement = StoredConv2d(child, casts)
            if replacement is not None:
                setattr(parent, name, replacement)
                stored.add(f"{parent_name}.{name}.weight".lstrip("."))
    return stored


@contextmanager
def fp8_products(networks: Iterable[nn.Module], *, on: bool) -> Iterator[int]:
    """Multiply in 8 bits where weights have 8 bits and their device can, in an open context.

    Args:
        networks: The networks whose linear layers do so.
        on: False changes nothing.

    Yields:
        The number of layers that multiply in 8 bits.
    """
    layers = [
        layer
        for network in (networks if on else ())
        for layer in network.modules()
        if isinstance(layer, StoredLinear) and can_multiply_in_fp8(layer.weight)
    ]
    for layer in layers:
        layer.multiplies_in_fp8 = True
    try:
        yield len(layers)
    finally:
        for layer in layers:
            layer.multiplies_in_fp8 = False
