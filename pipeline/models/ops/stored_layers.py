"""Layers whose weights stay as the file has them, and are cast when they are used.

A network that computes in float32 then takes the memory of its 16-bit file, which stays mapped, and
gives the same bits: casting up loses nothing. On a CPU all weights are cast into the same memory,
one after the other: in memory that the system hands out anew for each, a cast takes up to four
times as long.
"""

from __future__ import annotations

from torch import Tensor, nn

from .casting import CastMemory, weight_in
from .linear import linear


class StoredLinear(nn.Linear):
    """A linear layer that computes in its input's dtype, whatever its weight's."""

    def __init__(self, linear: nn.Linear, casts: CastMemory | None = None) -> None:
        """Take the place of `linear`, with its very weights.

        casts: where they are cast on a CPU; None takes new memory each time.
        """
        super().__init__(
            linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta"
        )
        self.weight, self.bias = linear.weight, linear.bias
        self.casts = casts
        self.register_buffer("scale", None)

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        return linear(input, weight_in(self, input.dtype), self.bias)


class StoredConv2d(nn.Conv2d):
    """A convolution that computes in its input's dtype, whatever its weight's."""

    def __init__(self, conv: nn.Conv2d, casts: CastMemory | None = None) -> None:
        """Take the place of `conv`, with its very weights; see StoredLinear."""
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
        result: Tensor = super()._conv_forward(input, weight_in(self, input.dtype), bias)
        return result


def store_weights(network: nn.Module) -> set[str]:
    """Put such layers in the place of `network`'s; return the names of the weights they store."""
    stored, casts = set(), CastMemory()
    for parent_name, parent in list(network.named_modules()):
        for name, child in parent.named_children():
            replacement: nn.Module | None = None
            if type(child) is nn.Linear:
                replacement = StoredLinear(child, casts)
            elif type(child) is nn.Conv2d:
                replacement = StoredConv2d(child, casts)
            if replacement is not None:
                setattr(parent, name, replacement)
                stored.add(f"{parent_name}.{name}.weight".lstrip("."))
    return stored
