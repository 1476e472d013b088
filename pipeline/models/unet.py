"""The denoising network: Stable Diffusion's UNet with AnimateDiff's motion modules between.

The spatial layers are diffusers' `UNet2DConditionModel`, unchanged and under its key names. The
forward pass is written out here, because motion modules sit between its layers, and because the
rows of the batch are frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ..files import MotionFamily
from .additions import NO_RESIDUALS, Residuals, add_each
from .image_attention import ImagePrompt, attending_to
from .motion_module import MotionModules

BetaSchedule = Literal["sqrt_linear", "linear", "lcm"]


class ClipGroupNorm(nn.GroupNorm):
    """Group norm over all frames of a clip together, as v1 motion modules were trained with."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        """Take the place of `norm`, with its very weights."""
        super().__init__(norm.num_groups, norm.num_channels, eps=norm.eps, device="meta")
        self.weight, self.bias = norm.weight, norm.bias
        self.num_frames = 1

    def forward(self, features: Tensor) -> Tensor:
        """Normalise [clips * num_frames, channels, ...] over frames, group channels and pixels."""
        rows, channels = features.shape[:2]
        clips = features.reshape(rows // self.num_frames, self.num_frames, channels, -1)
        normed = super().forward(clips.transpose(1, 2))
        return normed.transpose(1, 2).reshape(features.shape)


class MotionUNet(nn.Module):
    """Predicts the noise in a window of frames."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        motion: MotionModules | None,
        *,
        family: MotionFamily | None = None,
    ) -> None:
        """Put the two halves together; without `motion` each frame is denoised by itself.

        family: of the motion modules; it tells the noise schedule that they were trained on, and
        v1 wants every group norm of the network to span the frames of a window.
        """
        super().__init__()
        self.unet = unet
        self.motion = motion
        self.family = family
        self._clip_norms = _norms_over_clip(self) if family == "v1" else []

    @property
    def beta_schedule(self) -> BetaSchedule:
        """The noise schedule that the network was trained on."""
        if self.motion is None:
            return "linear"
        return "lcm" if self.family == "animatelcm" else "sqrt_linear"

    @property
    def max_frames(self) -> int | None:
        """The longest window that the motion modules know; None if frames are independent."""
        return self.motion.max_frames if self.motion is not None else None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that the network computes in."""
        return self._any_weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._any_weight.device

    @property
    def _any_weight(self) -> Tensor:
        weight: Tensor = self.unet.conv_in.weight
        return weight

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        context: Tensor,
        num_frames: int,
        *,
        residuals: Residuals = NO_RESIDUALS,
        images: Sequence[ImagePrompt] = (),
    ) -> Tensor:
        """Predict the noise.

        sample: [clips * num_frames, 4, height, width], the scaled latents over sqrt(sigma^2 + 1).
        timestep: [1], the training step, 0 to 999.
        context: [clips * num_frames, tokens, channels], the encoded prompt of each frame.
        residuals: what ControlNets and T2I-Adapters add.
        images: what the UNet attends to beside the text, by IP-Adapters.
        Returns the noise in the shape of `sample`.
        """
        for norm in self._clip_norms:
            norm.num_frames = num_frames
        with attending_to(self.unet, images):
            return self._predict(sample, timestep, context, num_frames, residuals)

    def _predict(
        self,
        sample: Tensor,
        timestep: Tensor,
        context: Tensor,
        num_frames: int,
        residuals: Residuals,
    ) -> Tensor:
        unet = self.unet
        embedding = unet.time_embedding(unet.time_proj(timestep).to(sample.dtype))
        embedding = embedding.expand(sample.shape[0], -1)
        features = unet.conv_in(sample)
        features, skips = self._down(features, embedding, context, num_frames, residuals.levels)
        features = self._middle(features, embedding, context, num_frames)
        if residuals.middle is not None:
            features = features + residuals.middle
        skips = add_each(skips, residuals.skips)
        features = self._up(features, skips, embedding, context, num_frames)
        noise: Tensor = unet.conv_out(unet.conv_act(unet.conv_norm_out(features)))
        return noise

    def _down(
        self,
        features: Tensor,
        embedding: Tensor,
        context: Tensor,
        num_frames: int,
        additions: Sequence[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        skips = [features]
        for level, block in enumerate(self.unet.down_blocks):
            for layer, resnet in enumerate(block.resnets):
                features = resnet(features, embedding)
                features = self._attend(block, layer, features, context)
                if self.motion is not None:
                    features = self.motion.down_blocks[level](features, num_frames, layer)
                if additions and layer == len(block.resnets) - 1:
                    features = features + additions[level]
                skips.append(features)
            for downsampler in block.downsamplers or ():
                features = downsampler(features)
                skips.append(features)
        return features, skips

    def _middle(
        self, features: Tensor, embedding: Tensor, context: Tensor, num_frames: int
    ) -> Tensor:
        block = self.unet.mid_block
        features = block.resnets[0](features, embedding)
        for attention, resnet in zip(block.attentions, block.resnets[1:], strict=True):
            features = attention(features, encoder_hidden_states=context, return_dict=False)[0]
            if self.motion is not None and self.motion.mid_block is not None:
                features = self.motion.mid_block(features, num_frames, 0)
            features = resnet(features, embedding)
        return features

    def _up(
        self,
        features: Tensor,
        skips: list[Tensor],
        embedding: Tensor,
        context: Tensor,
        num_frames: int,
    ) -> Tensor:
        for level, block in enumerate(self.unet.up_blocks):
            for layer, resnet in enumerate(block.resnets):
                features = resnet(torch.cat([features, skips.pop()], dim=1), embedding)
                features = self._attend(block, layer, features, context)
                if self.motion is not None:
                    features = self.motion.up_blocks[level](features, num_frames, layer)
            for upsampler in block.upsamplers or ():
                # Sizes that do not halve evenly come back to the size of the skip.
                features = upsampler(features, skips[-1].shape[2:])
        return features

    @staticmethod
    def _attend(block: Any, layer: int, features: Tensor, context: Tensor) -> Tensor:
        attentions = getattr(block, "attentions", None)
        if attentions is None:
            return features
        attended: Tensor = attentions[layer](
            features, encoder_hidden_states=context, return_dict=False
        )[0]
        return attended


def _norms_over_clip(network: nn.Module) -> list[ClipGroupNorm]:
    """Replace every group norm in `network`; return the replacements."""
    replaced = []
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.GroupNorm:
                norm = ClipGroupNorm(child)
                setattr(parent, name, norm)
                replaced.append(norm)
    return replaced
