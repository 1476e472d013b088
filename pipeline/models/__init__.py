"""The networks: UNet with motion modules, text encoder, latent codec, and all of them together."""

from __future__ import annotations

from .bundle import Models, load_models
from .loading import Placement, ReadyNetworks, build_motion_unet, load_networks
from .text_encoder import TextEncoder
from .vae import LatentCodec

__all__ = [
    "LatentCodec",
    "Models",
    "Placement",
    "ReadyNetworks",
    "TextEncoder",
    "build_motion_unet",
    "load_models",
    "load_networks",
]
