"""Layers whose weights stay as the file has them, and are cast when they are used.

A network that computes in float32 then takes the memory of its 16-bit file, which stays mapped, and
gives the same bits: casting up loses nothing. On a CPU a cast costs 1 to 3 % of the time of a pass.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class StoredLinear(nn.Linear):
    """A linear layer that computes in its input's dtype, whatever its weight's."""

    def __init__(self, linear: nn.Linear) -> None:
        """Take the place of `linear`, with its very weights."""
        super().__init__(
            linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta"
        )
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer("scale", None)

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        return linear(input, weight_in(self, input.dtype), self.bias)


class StoredConv2d(nn.Conv2d):
    """A convolution that computes in its input's dtype, whatever its weight's."""

    def __init__(self, conv: nn.Conv2d) -> None:
        """Take the place of `conv`, with its very weights."""
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
        self.register_buffer("scale", None)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        result: Tensor = super()._conv_forward(input, weight_in(self, input.dtype), bias)
        return result


def weight_in(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    """A layer's weight as it is used: in a dtype, times its scale where it is stored with one."""
    stored: Any = layer
    weight: Tensor = stored.weight.to(dtype)
    scale = getattr(layer, "scale", None)
    return weight if scale is None else weight.mul_(scale)


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`functional.linear`, through oneDNN where that computes in float32 on this CPU.

    PyTorch takes MKL there, which reached 61 to 93 GFLOP/s a core where oneDNN reached 91 to 104
    (AMD EPYC with AVX-512, this network's sizes).
    """
    if _by_onednn(tokens):
        result: Tensor = torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, "none", [], "")
        return result
    return functional.linear(tokens, weight, bias)


def _by_onednn(tokens: Tensor) -> bool:
    return (
        tokens.device.type == "cpu"
        and not torch.compiler.is_compiling()  # the compiler chooses by itself
        and tokens.dtype == torch.float32
        and not torch.is_grad_enabled()
        and _has_onednn_linear()
    )


@cache
def _has_onednn_linear() -> bool:
    """Whether this PyTorch has the operator, which its compiler uses and its API does not name."""
    return torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def store_weights(network: nn.Module) -> set[str]:
    """Put such layers in the place of `network`'s; return the names of the weights they store."""
    stored = set()
    for place, parent in list(network.named_modules()):
        for name, child in parent.named_children():
            replacement: nn.Module | None = None
            if type(child) is nn.Linear:
                replacement = StoredLinear(child)
            elif type(child) is nn.Conv2d:
                replacement = StoredConv2d(child)
            if replacement is not None:
                setattr(parent, name, replacement)
                stored.add(f"{place}.{name}.weight".lstrip("."))
    return stored
