"""TAESD's decoder: frames of drafts in a fraction of the VAE's operations.

See files.tiny_decoder for its source.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..files.tiny_decoder import BLOCKS, LATENT_CHANNELS
from .autoencoder import Autoencoder
from .vae import LATENT_SCALE

# Latents are limited smoothly to plus and minus this.
_LIMIT = 3.0


class _Block(nn.Module):
    """Three convolutions on a residual path."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second, third = (nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu_(self.conv(features).add_(features))


class TinyDecoder(nn.Module):
    """A decoder of convolutions of one width."""

    def __init__(self, width: int) -> None:
        """Build the layers; TAESD's have 64 channels."""
        super().__init__()
        self.layers = nn.Sequential(*_layers(width))

    def forward(self, latents: Tensor) -> Tensor:
        """Map unscaled latents [frames, 4, height, width] to frames 8 times as large, -1..1."""
        limited = torch.tanh(latents * (LATENT_SCALE / _LIMIT)) * _LIMIT
        pixels: Tensor = self.layers(limited)
        return pixels.mul_(2).sub_(1)


def decode_with(vae: Autoencoder, decoder: TinyDecoder) -> None:
    """Replace the decoder of a VAE, in place. It encodes as before."""
    vae.decoder = decoder
    vae.post_quant_conv = nn.Identity()


def _layers(width: int) -> Iterator[nn.Module]:
    yield nn.Conv2d(LATENT_CHANNELS, width, 3, padding=1)
    yield nn.ReLU()
    for level, blocks in enumerate(BLOCKS):
        yield from (_Block(width) for _ in range(blocks))
        if level + 1 < len(BLOCKS):
            yield nn.Upsample(scale_factor=2)
            yield nn.Conv2d(width, width, 3, padding=1, bias=False)
    yield nn.Conv2d(width, 3, 3, padding=1)
