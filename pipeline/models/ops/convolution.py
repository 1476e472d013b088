"""Convolutions, run by the fastest exact implementation on the machine."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import winograd
from .linear import linear

# Measured on an AMD EPYC: with fewer channels, oneDNN's convolutions are as fast.
_LEAST_CHANNELS = 256
# Below, a tile of Winograd's scheme is mostly padding, and a product of gathered pixels is faster.
_LEAST_SIDE = 8


class Convolution(nn.Conv2d):
    """A convolution that takes the fastest way on this machine; results differ by rounding only.

    The way does not depend on the number of rows, so that a row has the same bits alone.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not is_wide(self, input):
            result: Tensor = super()._conv_forward(input, weight, bias)
            return result
        if min(input.shape[2:]) < _LEAST_SIDE:
            return _gathered(input, weight, bias)
        return winograd.convolve(input, weight, bias)


def is_wide(layer: nn.Conv2d, features: Tensor) -> bool:
    """Return whether a layer has 3x3 kernels and so many channels that oneDNN is the slower way.

    Args:
        layer: A convolution.
        features: Its input, [rows, channels, height, width].
    """
    return (
        features.device.type == "cpu"
        and features.dtype == torch.float32
        and features.ndim == 4
        and layer.kernel_size == (3, 3)
        and layer.stride == layer.dilation == layer.padding == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and min(layer.in_channels, layer.out_channels) >= _LEAST_CHANNELS
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()  # the compiler makes its own choice
    )


def _gathered(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve by one product of each pixel's neighbourhood with the kernels."""
    rows, _, height, width = features.shape
    pixels = functional.unfold(features, 3, padding=1).transpose(1, 2)
    made = linear(pixels, weight.flatten(1), bias)
    return made.transpose(1, 2).reshape(rows, -1, height, width)
