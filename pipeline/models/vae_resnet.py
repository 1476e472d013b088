"""The VAE's norms and residual blocks, as the UNet has them.

Diffusers' divide by one and give each activation and each sum memory of its own, which for large
frames a CPU's system hands out page by page.
"""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from .layers import usual_layers


class VaeResnet(nn.Module):
    """A residual block that knows no time step, with the plain layers to the bits of diffusers'."""

    def __init__(self, block: Any) -> None:
        """Take the place of a ResnetBlock2D, with its very layers."""
        super().__init__()
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.norm2, self.conv2 = block.norm2, block.conv2
        self.conv_shortcut = block.conv_shortcut

    def forward(self, features: Tensor, temb: None = None) -> Tensor:
        """Map [frames, channels, height, width] to as many frames of the block's own channels."""
        return usual_layers(features.device, features.dtype).resnet(self, features, None, 1)


class ActivatedNorm(nn.Module):
    """A group norm and SiLU."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        """Take the place of a norm that an activation follows, with its very weights."""
        super().__init__()
        self.num_groups, self.eps = norm.num_groups, norm.eps
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, features: Tensor) -> Tensor:
        """Map [frames, channels, height, width] to the same shape."""
        return usual_layers(features.device, features.dtype).activated_norm(self, features, 1)


def take_fewer_tensors(vae: AutoencoderKL) -> None:
    """Let a VAE work so; its weights keep their names."""
    for coder in (vae.encoder, vae.decoder):
        coder.conv_norm_out = ActivatedNorm(coder.conv_norm_out)
        coder.conv_act = nn.Identity()
    for parent in list(vae.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ResnetBlock2D):
                setattr(parent, name, VaeResnet(child))
