"""The VAE's residual blocks, in fewer tensors.

Diffusers' divide by one and give each activation and each sum memory of its own, which for large
frames a CPU's system hands out page by page.
"""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional


class VaeResnet(nn.Module):
    """A residual block that knows no time step, to the same bits as diffusers'."""

    def __init__(self, block: Any) -> None:
        """Take the place of a ResnetBlock2D, with its very layers."""
        super().__init__()
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.norm2, self.conv2 = block.norm2, block.conv2
        self.conv_shortcut = block.conv_shortcut

    def forward(self, features: Tensor, temb: None = None) -> Tensor:
        """Map [frames, channels, height, width] to as many frames of the block's own channels."""
        hidden = self.conv1(functional.silu(self.norm1(features), inplace=True))
        hidden = self.conv2(functional.silu(self.norm2(hidden), inplace=True))
        shortcut = features if self.conv_shortcut is None else self.conv_shortcut(features)
        result: Tensor = hidden.add_(shortcut)
        return result


def take_fewer_tensors(vae: AutoencoderKL) -> None:
    """Let a VAE work so; its weights keep their names."""
    for coder in (vae.encoder, vae.decoder):
        coder.conv_act = nn.SiLU(inplace=True)
    for parent in list(vae.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ResnetBlock2D):
                setattr(parent, name, VaeResnet(child))
