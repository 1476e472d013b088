"""Stable Diffusion's VAE, under the key names of diffusers' AutoencoderKL and with its arithmetic.

Unlike there, norms, activations and sums are fused or done in place: diffusers' residual blocks
divide by one, and allocate a tensor for each activation and each sum, which the operating system
maps page by page when frames are large.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Attention, Downsampler, Level, ResnetBlock, Upsampler
from .ops.select import default_ops

_EPSILON = 1e-6


@dataclass(frozen=True, kw_only=True)
class VaeSizes:
    """The sizes of a VAE under diffusers' names; the defaults are Stable Diffusion's."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    """Channels of each level, outermost first."""
    layers_per_block: int = 2
    norm_num_groups: int = 32

    def resnets(self, in_channels: int, channels: int, count: int) -> list[ResnetBlock]:
        """Return residual blocks that follow each other."""
        return [
            ResnetBlock(
                in_channels if index == 0 else channels,
                channels,
                groups=self.norm_num_groups,
                epsilon=_EPSILON,
            )
            for index in range(count)
        ]


def vae_sizes(config: Mapping[str, Any]) -> VaeSizes:
    """Return the sizes in the arguments of diffusers' AutoencoderKL, which has more of them."""
    return VaeSizes(**{field.name: config[field.name] for field in fields(VaeSizes)})


class PixelAttention(Attention):
    """Attention among the pixels of a frame, with one head, on a residual path."""

    def __init__(self, channels: int, groups: int) -> None:
        """Size it for features of these channels."""
        super().__init__(channels, channels, heads=1, has_biases=True)
        self.group_norm = nn.GroupNorm(groups, channels, eps=_EPSILON)

    def forward(self, features: Tensor) -> Tensor:
        """Map [frames, channels, height, width] to the same shape."""
        tokens = self.group_norm(features.flatten(2)).transpose(1, 2)
        query, key, value = (
            layer(tokens).unsqueeze(1) for layer in (self.to_q, self.to_k, self.to_v)
        )
        attended = functional.scaled_dot_product_attention(query, key, value).squeeze(1)
        change: Tensor = self.to_out[0](attended)
        return change.transpose(1, 2).reshape(features.shape) + features


class _Middle(nn.Module):
    def __init__(self, config: VaeSizes) -> None:
        super().__init__()
        channels = config.block_out_channels[-1]
        self.attentions = nn.ModuleList([PixelAttention(channels, config.norm_num_groups)])
        self.resnets = nn.ModuleList(config.resnets(channels, channels, 2))

    def forward(self, features: Tensor) -> Tensor:
        first, second = self.resnets
        attended = self.attentions[0](_resnet(first, features))
        return _resnet(second, attended)


class Encoder(nn.Module):
    """The half that turns frames into the moments of latents."""

    def __init__(self, config: VaeSizes) -> None:
        """Build the layers in these sizes."""
        super().__init__()
        widths = config.block_out_channels
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(_levels_down(config))
        self.mid_block = _Middle(config)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[-1], eps=_EPSILON)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map [frames, 3, height, width], -1..1, to [frames, 8, height / 8, width / 8]."""
        features = self.conv_in(pixels)
        level: Any
        for level in self.down_blocks:
            for resnet in level.resnets:
                features = _resnet(resnet, features)
            for downsampler in level.downsamplers or ():
                features = downsampler(features)
        return _end(self, self.mid_block(features))


class Decoder(nn.Module):
    """The half that turns latents into frames."""

    def __init__(self, config: VaeSizes) -> None:
        """Build the layers in these sizes."""
        super().__init__()
        widths = config.block_out_channels
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.mid_block = _Middle(config)
        self.up_blocks = nn.ModuleList(_levels_up(config))
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[0], eps=_EPSILON)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Map [frames, 4, height / 8, width / 8] to [frames, 3, height, width], -1..1."""
        features = self.mid_block(self.conv_in(latents))
        level: Any
        for level in self.up_blocks:
            for resnet in level.resnets:
                features = _resnet(resnet, features)
            for upsampler in level.upsamplers or ():
                features = upsampler(features)
        return _end(self, features)


class Autoencoder(nn.Module):
    """The VAE."""

    def __init__(self, config: VaeSizes) -> None:
        """Build the layers in these sizes."""
        super().__init__()
        self.config = config
        latent = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder: nn.Module = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * latent, 2 * latent, 1)
        self.post_quant_conv: nn.Module = nn.Conv2d(latent, latent, 1)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.quant_conv.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype to compute in."""
        return self.quant_conv.weight.dtype

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the mean of the latents, [frames, 4, height / 8, width / 8], unscaled.

        Args:
            pixels: [frames, 3, height, width], -1..1, on the device and in the dtype of the VAE.
        """
        mean: Tensor = self.quant_conv(self.encoder(pixels)).chunk(2, dim=1)[0]
        return mean

    def decode(self, latents: Tensor) -> Tensor:
        """Return frames [frames, 3, height, width], about -1..1.

        Args:
            latents: [frames, 4, height / 8, width / 8], unscaled, on the device and in the dtype of
                the VAE.
        """
        pixels: Tensor = self.decoder(self.post_quant_conv(latents))
        return pixels


def _levels_down(config: VaeSizes) -> Iterator[Level]:
    widths = config.block_out_channels
    previous = widths[0]
    for index, width in enumerate(widths):
        is_last = index + 1 == len(widths)
        yield Level(
            config.resnets(previous, width, config.layers_per_block),
            downsampler=None if is_last else Downsampler(width, pads_all_sides=False),
        )
        previous = width


def _levels_up(config: VaeSizes) -> Iterator[Level]:
    widths = config.block_out_channels[::-1]
    previous = widths[0]
    for index, width in enumerate(widths):
        yield Level(
            config.resnets(previous, width, config.layers_per_block + 1),
            upsampler=None if index + 1 == len(widths) else Upsampler(width),
        )
        previous = width


def _resnet(block: nn.Module, features: Tensor) -> Tensor:
    return default_ops(features.device, features.dtype).resnet(block, features, None, 1)


def _end(half: Encoder | Decoder, features: Tensor) -> Tensor:
    ops = default_ops(features.device, features.dtype)
    result: Tensor = half.conv_out(ops.activated_norm(half.conv_norm_out, features, 1))
    return result
