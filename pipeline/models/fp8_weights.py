"""Weights in 8 bits: half the memory of float16, for the same arithmetic.

A network computes as before, in its own dtype: each layer widens its weights for the moment in
which it works. What it costs is a little time, and seven of float16's ten bits of precision.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import nn

from .ops.stored_layers import StoredConv2d, StoredLinear
from .unet import MotionUNet

STORED = torch.float8_e4m3fn
_LARGEST = torch.finfo(STORED).max


def store_in_fp8(unet: MotionUNet) -> None:
    """Store the weights of a UNet and its motion modules in 8 bits, in place.

    Norms, biases, and the layers at both ends and of the time stay as they are: they are small,
    and everything goes through them.
    """
    for parent, name, layer in list(_layers(unet)):
        setattr(parent, name, in_fp8(layer))


def in_fp8(layer: nn.Linear | nn.Conv2d) -> StoredLinear | StoredConv2d:
    """A layer with the same bias, and its weight in 8 bits."""
    casts = getattr(layer, "casts", None)
    stored = (
        StoredConv2d(layer, casts) if isinstance(layer, nn.Conv2d) else StoredLinear(layer, casts)
    )
    weight = layer.weight.detach().float()
    largest = float(weight.abs().max())
    # The power of two that brings the weight to the top of the range: below it are 14 octaves of
    # full precision, and products with it are exact.
    scale = 2.0 ** math.floor(math.log2(_LARGEST / largest)) if largest > 0 else 1.0
    stored.weight = nn.Parameter((weight * scale).to(STORED), requires_grad=False)
    stored.scale = torch.tensor(1 / scale, device=weight.device)
    return stored


def copy_in_fp8(unet: MotionUNet) -> MotionUNet:
    """Give a copy with its weights in 8 bits that shares no memory with `unet`."""
    # What is to be stored anew is not copied before.
    weights = {id(layer.weight): layer.weight for _, _, layer in _layers(unet)}
    copied = copy.deepcopy(unet, weights)
    store_in_fp8(copied)
    return copied


def has_fp8_weights(unet: MotionUNet) -> bool:
    """Whether a UNet's weights are stored in 8 bits."""
    return any(weight.dtype == STORED for weight in unet.parameters())


def _layers(unet: MotionUNet) -> Iterator[tuple[nn.Module, str, nn.Linear | nn.Conv2d]]:
    """The layers to store in 8 bits, with the modules and names that they are found under."""
    exact = {unet.unet.conv_in, unet.unet.conv_out, *unet.unet.time_embedding.modules()}
    for parent in unet.modules():
        for name, layer in parent.named_children():
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                continue
            if layer not in exact and layer.weight.dtype != STORED:
                yield parent, name, layer
