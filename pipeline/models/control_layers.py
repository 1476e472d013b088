"""The layers of ControlNets and T2I-Adapters, under the key names of diffusers' modules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from .spatial_unet import UNetEncoder, UNetSizes


class ControlNet(UNetEncoder):
    """A ControlNet (arXiv 2302.05543); `controlnet.ControlNetwork` runs it."""

    def __init__(
        self,
        *,
        conditioning_channels: int = 3,
        conditioning_embedding_out_channels: Sequence[int] = (16, 32, 96, 256),
        **sizes: Any,
    ) -> None:
        """Build the layers.

        Args:
            conditioning_channels: Channels of the control frames.
            conditioning_embedding_out_channels: Channels of the layers that embed them.
            sizes: As in UNetSizes.
        """
        super().__init__(UNetSizes(**sizes))
        widths = self.config.block_out_channels
        self.controlnet_cond_embedding = ControlFramesEmbedding(
            conditioning_channels, conditioning_embedding_out_channels, widths[0]
        )
        self.controlnet_down_blocks = nn.ModuleList(
            [nn.Conv2d(channels, channels, 1) for channels in self.skip_channels()]
        )
        self.controlnet_mid_block = nn.Conv2d(widths[-1], widths[-1], 1)


class ControlFramesEmbedding(nn.Module):
    """Convolutions from control frames to features of the latents' size."""

    def __init__(self, in_channels: int, widths: Sequence[int], out_channels: int) -> None:
        """Size the layers; each of `widths` but the last halves height and width."""
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for width, following in pairwise(widths):
            self.blocks.append(nn.Conv2d(width, width, 3, padding=1))
            self.blocks.append(nn.Conv2d(width, following, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        """Map [rows, 3, height, width], 0..1, to [rows, channels, height / 8, width / 8]."""
        features = functional.silu(self.conv_in(frames))
        for block in self.blocks:
            features = functional.silu(block(features))
        embedding: Tensor = self.conv_out(features)
        return embedding


class T2IAdapter(nn.Module):
    """A full T2I-Adapter (arXiv 2302.08453); the level `adapter` is in diffusers' keys."""

    def __init__(
        self,
        *,
        in_channels: int,
        channels: Sequence[int],
        num_res_blocks: int,
        downscale_factor: int,
        adapter_type: str = "full_adapter",
    ) -> None:
        """Build the layers; the arguments are diffusers'."""
        super().__init__()
        assert adapter_type == "full_adapter"
        self.adapter = _FullAdapter(in_channels, channels, num_res_blocks, downscale_factor)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Return the features for each level of the UNet, outermost first.

        Args:
            frames: [rows, in_channels, height, width], 0..1.
        """
        features: list[Tensor] = self.adapter(frames)
        return features


class _FullAdapter(nn.Module):
    def __init__(
        self, in_channels: int, widths: Sequence[int], resnets: int, downscale_factor: int
    ) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor
        unshuffled = in_channels * downscale_factor**2
        self.conv_in = nn.Conv2d(unshuffled, widths[0], 3, padding=1)
        entering = (widths[0], *widths[:-1])
        self.body = nn.ModuleList(
            [
                _AdapterLevel(previous, width, resnets, halves=index > 0)
                for index, (previous, width) in enumerate(zip(entering, widths, strict=True))
            ]
        )

    def forward(self, frames: Tensor) -> list[Tensor]:
        features = self.conv_in(functional.pixel_unshuffle(frames, self.downscale_factor))
        each_level = []
        for level in self.body:
            features = level(features)
            each_level.append(features)
        return each_level


class _AdapterLevel(nn.Module):
    def __init__(self, in_channels: int, channels: int, resnets: int, *, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.in_conv = nn.Conv2d(in_channels, channels, 1) if in_channels != channels else None
        self.resnets = nn.Sequential(*[_AdapterResnet(channels) for _ in range(resnets)])

    def forward(self, features: Tensor) -> Tensor:
        if self.halves:
            features = functional.avg_pool2d(features, 2, ceil_mode=True)
        if self.in_conv is not None:
            features = self.in_conv(features)
        result: Tensor = self.resnets(features)
        return result


class _AdapterResnet(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.block2 = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        change: Tensor = self.block2(functional.relu(self.block1(features)))
        return change + features
