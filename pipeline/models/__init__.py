"""The networks: UNet with motion modules, text encoder, latent codec, and all of them together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..on_demand import on_demand

if TYPE_CHECKING:
    from .bundle import Models, load_models
    from .controlnet import ControlNetwork, load_control_network
    from .frame_masks import NO_MASKS, FrameMask, MotionMasks
    from .ip_adapter import IpAdapter, load_ip_adapter_network
    from .loading import (
        Placement,
        ReadyNetworks,
        build_motion_unet,
        load_motion,
        load_networks,
    )
    from .ops.compiled import check_can_compile
    from .sparsectrl import SparseControlNetwork, load_sparsectrl_network
    from .text_encoder import TextEncoder
    from .vae import LatentCodec

__all__ = [
    "NO_MASKS",
    "ControlNetwork",
    "FrameMask",
    "IpAdapter",
    "LatentCodec",
    "Models",
    "MotionMasks",
    "Placement",
    "ReadyNetworks",
    "SparseControlNetwork",
    "TextEncoder",
    "build_motion_unet",
    "check_can_compile",
    "load_control_network",
    "load_ip_adapter_network",
    "load_models",
    "load_motion",
    "load_networks",
    "load_sparsectrl_network",
]

on_demand(
    __name__,
    {
        "bundle": ("Models", "load_models"),
        "controlnet": ("ControlNetwork", "load_control_network"),
        "frame_masks": ("NO_MASKS", "FrameMask", "MotionMasks"),
        "ip_adapter": ("IpAdapter", "load_ip_adapter_network"),
        "loading": (
            "Placement",
            "ReadyNetworks",
            "build_motion_unet",
            "load_motion",
            "load_networks",
        ),
        "ops.compiled": ("check_can_compile",),
        "sparsectrl": ("SparseControlNetwork", "load_sparsectrl_network"),
        "text_encoder": ("TextEncoder",),
        "vae": ("LatentCodec",),
    },
)
