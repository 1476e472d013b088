"""Linear layers, run by the fastest exact implementation on the machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from .casting import weight_in
from .layer_changes import add_change

# MKL sums up in another order where a thread has fewer than four rows. With so many rows it never
# does: of 1 to 1,000 rows, those with fewer than 6 for each thread differed.
_ROWS_PER_THREAD = 16


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `functional.linear`, with oneDNN or MKL, whichever is faster on this CPU.

    On a core with AVX-512, MKL reached 61 to 93 GFLOP/s where oneDNN reached 91 to 104; with AVX2
    it was 65 to 90 against 60 to 78 (AMD EPYC, float32, sizes of this network). A row's result does
    not depend on the other rows.
    """
    if not _is_plain_float32(tokens):
        return functional.linear(tokens, weight, bias)
    if _has_onednn_linear():
        result: Tensor = torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, "none", [], "")
        return result
    rows = tokens.reshape(-1, tokens.shape[-1])
    count, least = len(rows), _ROWS_PER_THREAD * torch.get_num_threads()
    if count < least:
        rows = functional.pad(rows, (0, 0, 0, least - count))
    made = functional.linear(rows, weight, bias)[:count]
    return made.view(*tokens.shape[:-1], len(weight))


def project_together(tokens: Tensor, *layers: nn.Linear) -> list[Tensor]:
    """Return the results of several linear layers without bias on the same tokens.

    On an accelerator, where their joined weights are smaller than the tokens, this is one product,
    which reads the tokens once. The weights are joined for each call, so that memory managers and
    LoRAs find them separate.

    Args:
        tokens: [..., channels].
        layers: Layers with equal numbers of output channels.
    """
    if not _pays(tokens, layers):
        return [layer(tokens) for layer in layers]
    return list(project_side_by_side(tokens, *layers).chunk(len(layers), dim=-1))


def project_side_by_side(tokens: Tensor, *layers: nn.Linear) -> Tensor:
    """Return the results in one tensor, [..., channels of all layers], by one product.

    Layers that multiply in 8 bits have scales of their own, and a product each.
    """
    if any(getattr(layer, "multiplies_in_fp8", False) for layer in layers):
        return torch.cat([layer(tokens) for layer in layers], dim=-1)
    weight = torch.cat([weight_in(layer, tokens.dtype) for layer in layers])
    joined = functional.linear(tokens, weight)
    for layer, result in zip(layers, joined.chunk(len(layers), dim=-1), strict=True):
        add_change(layer, tokens, result)
    return joined


def _pays(tokens: Tensor, layers: Sequence[nn.Linear]) -> bool:
    return (
        tokens.device.type != "cpu"  # there, few tokens at a time stay in the caches
        and not torch.compiler.is_compiling()  # or both branches would be compiled
        and tokens.numel() > sum(layer.weight.numel() for layer in layers)
    )


def _is_plain_float32(tokens: Tensor) -> bool:
    return (
        tokens.device.type == "cpu"
        and not torch.compiler.is_compiling()  # the compiler makes its own choice
        and tokens.dtype == torch.float32
        and not torch.is_grad_enabled()
    )


@cache
def _has_onednn_linear() -> bool:
    """Return whether oneDNN is the faster one here, and this PyTorch has its operator.

    The operator is not part of PyTorch's public API.
    """
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        return False
    return torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
