"""Linear layers by the fastest exact way that the machine has."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from .casting import weight_in


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
