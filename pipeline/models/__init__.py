"""The networks: UNet with motion modules, text encoder, latent codec, and all of them together."""

from __future__ import annotations

from .bundle import Models, ReadyNetworks, build_motion_unet, load_models
from .text_encoder import TextEncoder
from .vae import LatentCodec

__all__ = [
    "LatentCodec",
    "Models",
    "ReadyNetworks",
    "TextEncoder",
    "build_motion_unet",
    "load_models",
]
