"""Layers whose weights stay as the file has them, and are cast when they are used.

A network that computes in float32 then takes the memory of its 16-bit file, which stays mapped, and
gives the same bits: casting up loses nothing. On a CPU all weights are cast into the same memory,
one after the other: in memory that the system hands out anew for each, a cast takes up to four
times as long.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class CastMemory:
    """Memory of a network for the one weight that is used at a moment, in each thread its own.

    It is as large as the largest weight, 118 MB with Stable Diffusion 1.5 in float32.
    """

    def __init__(self) -> None:
        """Take no memory yet."""
        self._of_thread = threading.local()

    def __deepcopy__(self, _memo: dict[int, Any]) -> CastMemory:
        """A copied network casts into memory of its own."""
        return CastMemory()

    def cast(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Cast a weight on the CPU; what was cast before in this thread is gone."""
        memory: Tensor | None = getattr(self._of_thread, "memory", None)
        if memory is None or memory.dtype != dtype or memory.numel() < weight.numel():
            with torch.inference_mode(False):  # or it could not be written to outside of it
                memory = torch.empty(weight.numel(), dtype=dtype)
            self._of_thread.memory = memory
        return memory[: weight.numel()].view(weight.shape).copy_(weight)


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


def weight_in(layer: nn.Module, dtype: torch.dtype) -> Tensor:
    """A layer's weight as it is used: in a dtype, times its scale where it is stored with one.

    It is good until the next one is asked for: layers of a network share the memory on a CPU.
    """
    stored: Any = layer
    casts: CastMemory | None = getattr(layer, "casts", None)
    if casts is not None and _into_shared_memory(stored.weight, dtype):
        weight = casts.cast(stored.weight, dtype)
    else:
        weight = stored.weight.to(dtype)
    scale = getattr(layer, "scale", None)
    return weight if scale is None else weight.mul_(scale)


def _into_shared_memory(weight: Tensor, dtype: torch.dtype) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype != dtype
        and not torch.is_grad_enabled()  # what is to be derived must be there later
        and not torch.compiler.is_compiling()
    )


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`functional.linear`, through oneDNN where that computes in float32 on this CPU.

    PyTorch takes MKL there, which reached 61 to 93 GFLOP/s a core where oneDNN reached 91 to 104
    (AMD EPYC with AVX-512, this network's sizes).
    """
    if _by_onednn(tokens):
        result: Tensor = torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, "none", [], "")
        return result
    return functional.linear(tokens, weight, bias)


def project_together(tokens: Tensor, *layers: nn.Linear) -> list[Tensor]:
    """What linear layers without bias make of the same tokens, [..., channels] to [..., channels].

    On an accelerator, where their weights joined are smaller than the tokens are, this is one
    product: the tokens are read once. The weights are joined anew each time, so that each stays
    what a memory manager or a LoRA knows.
    """
    if not _pays(tokens, layers):
        return [layer(tokens) for layer in layers]
    return list(project_side_by_side(tokens, *layers).chunk(len(layers), dim=-1))


def project_side_by_side(tokens: Tensor, *layers: nn.Linear) -> Tensor:
    """The same in one tensor, [..., channels of all layers], by one product, on an accelerator."""
    weight = torch.cat([weight_in(layer, tokens.dtype) for layer in layers])
    return functional.linear(tokens, weight)


def _pays(tokens: Tensor, layers: Sequence[nn.Linear]) -> bool:
    return (
        tokens.device.type != "cpu"  # there tokens are few and in the caches
        and not torch.compiler.is_compiling()  # or code would be compiled for either size
        and tokens.numel() > sum(layer.weight.numel() for layer in layers)
    )


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
    stored, casts = set(), CastMemory()
    for place, parent in list(network.named_modules()):
        for name, child in parent.named_children():
            replacement: nn.Module | None = None
            if type(child) is nn.Linear:
                replacement = StoredLinear(child, casts)
            elif type(child) is nn.Conv2d:
                replacement = StoredConv2d(child, casts)
            if replacement is not None:
                setattr(parent, name, replacement)
                stored.add(f"{place}.{name}.weight".lstrip("."))
    return stored
