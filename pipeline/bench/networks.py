"""Stable Diffusion 1.5's networks with a motion module, in full size and with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..models.autoencoder import Autoencoder, VaeSizes
from ..models.motion_module import MotionModules
from ..models.ops.select import lay_out_weights
from ..models.ops.stored_layers import store_weights
from ..models.spatial_unet import SpatialUNet, UNetSizes
from ..models.unet import MotionUNet
from ..models.vae import fuse_upsample_conv

Module = TypeVar("Module", bound=nn.Module)
# Weights of this size keep activations of random features finite.
_DEVIATION = 0.02
_DRAWN = 2**16


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of the networks; the defaults are Stable Diffusion 1.5's."""

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    vae_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    text_channels: int = 768
    heads: int = 8


SD15 = Sizes()


def meta_unet(sizes: Sizes = SD15) -> MotionUNet:
    """Return the UNet with a v2 motion module on the meta device, where it takes no memory."""
    with torch.device("meta"):
        unet = SpatialUNet(
            UNetSizes(
                block_out_channels=sizes.channels,
                layers_per_block=sizes.layers,
                cross_attention_dim=sizes.text_channels,
                attention_head_dim=sizes.heads,
            )
        )
        motion = MotionModules(
            block_channels=sizes.channels, layers_per_block=sizes.layers, max_frames=32, mid=True
        )
        return MotionUNet(unet, motion, family="v2").eval().requires_grad_(False)


def meta_vae(sizes: Sizes = SD15) -> Autoencoder:
    """Return the VAE on the meta device, as `load_models` prepares it for a CPU."""
    with torch.device("meta"):
        vae = Autoencoder(
            VaeSizes(block_out_channels=sizes.vae_channels, layers_per_block=sizes.layers)
        )
        fuse_upsample_conv(vae)
    return vae.eval().requires_grad_(False)


def with_random_weights(
    module: Module, device: torch.device, dtype: torch.dtype, *, like_a_file: bool = False
) -> Module:
    """Fill a module of the meta device with random weights and return it.

    Args:
        module: The module.
        device: The device to fill it on.
        dtype: The dtype to compute in.
        like_a_file: Keep large weights in 16 bits, as those of a UNet's file are on a CPU.
    """
    kept: set[str] = store_weights(_Parent(module)) if like_a_file else set()
    kept = {name.removeprefix("module.") for name in kept}
    # Repeated, because drawing as many numbers as the networks have takes seconds.
    drawn = torch.randn(_DRAWN, generator=torch.Generator().manual_seed(1)) * _DEVIATION
    state: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        repeated = drawn.repeat(-(-tensor.numel() // _DRAWN))[: tensor.numel()].view(tensor.shape)
        is_smaller = name in kept and dtype.itemsize > torch.float16.itemsize
        state[name] = repeated.to(device, torch.float16 if is_smaller else dtype)
    module.load_state_dict(state, strict=True, assign=True)
    lay_out_weights(module, device)
    return module


class _Parent(nn.Module):
    """A parent for a module whose own layers are to be replaced."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
