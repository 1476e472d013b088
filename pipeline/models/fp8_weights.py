"""Weights in 8 bits: half the memory of float16.

A network computes in its own dtype as before: each layer widens its weights while it runs. The
price is a little time, and seven of float16's ten bits of precision.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import nn

from .ops.layer_changes import copy_changes
from .ops.stored_layers import StoredConv2d, StoredLinear
from .unet import MotionUNet

STORED = torch.float8_e4m3fn
_LARGEST = torch.finfo(STORED).max


def store_in_fp8(unet: MotionUNet) -> None:
    """Store the weights of a UNet and its motion modules in 8 bits, in place.

    Norms, biases, the first and last convolution and the time embedding stay as they are: they are
    small, and all features depend on them.
    """
    for parent, name, layer in list(_layers(unet)):
        setattr(parent, name, in_fp8(layer))


def in_fp8(layer: nn.Linear | nn.Conv2d) -> StoredLinear | StoredConv2d:
    """Return a layer with the same bias, and its weight in 8 bits."""
    casts = getattr(layer, "casts", None)
    stored = (
        StoredConv2d(layer, casts) if isinstance(layer, nn.Conv2d) else StoredLinear(layer, casts)
    )
    weight = layer.weight.detach().float()
    largest = float(weight.abs().max())
    copy_changes(layer, stored)
    # The largest power of two that keeps the weight in range: 14 octaves below the maximum then
    # have full precision, and multiplying by a power of two is exact.
    scale = 2.0 ** math.floor(math.log2(_LARGEST / largest)) if largest > 0 else 1.0
    stored.weight = nn.Parameter((weight * scale).to(STORED), requires_grad=False)
    stored.scale = torch.tensor(1 / scale, device=weight.device)
    return stored


def copy_in_fp8(unet: MotionUNet) -> MotionUNet:
    """Return a copy with weights in 8 bits that shares no memory with `unet`."""
    # Weights that store_in_fp8 replaces are not copied first.
    weights = {id(layer.weight): layer.weight for _, _, layer in _layers(unet)}
    copied = copy.deepcopy(unet, weights)
    store_in_fp8(copied)
    return copied


def has_fp8_weights(unet: MotionUNet) -> bool:
    """Return whether weights of a UNet are stored in 8 bits."""
    return any(weight.dtype == STORED for weight in unet.parameters())


def _layers(unet: MotionUNet) -> Iterator[tuple[nn.Module, str, nn.Linear | nn.Conv2d]]:
    """Yield the layers to store in 8 bits, each with its parent and its name there."""
    exact = {unet.unet.conv_in, unet.unet.conv_out, *unet.unet.time_embedding.modules()}
    for parent in unet.modules():
        for name, layer in parent.named_children():
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                continue
            if layer not in exact and layer.weight.dtype != STORED:
                yield parent, name, layer
