"""Convolutions, run by the fastest exact implementation on the machine."""

from __future__ import annotations

from torch import Tensor, nn

from . import winograd


class Convolution(nn.Conv2d):
    """A convolution, by Winograd's scheme where that is faster; results differ by rounding only."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if winograd.pays(self, input):
            return winograd.convolve(input, weight, bias)
        result: Tensor = super()._conv_forward(input, weight, bias)
        return result
