"""The denoising network: Stable Diffusion's UNet with AnimateDiff's motion modules between.

The spatial layers are diffusers' `UNet2DConditionModel`, under its key names. The forward pass is
written out here, because motion modules sit between its layers, and because the rows of the batch
are frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from ..files import MotionFamily
from ..files.prediction import Prediction
from .batching import ChunkSizes, default_chunk_tokens
from .feature_cache import OUTERMOST_LAYERS, DeepFeatures
from .motion_module import MotionModules
from .ops.eager import cross_attention_kv
from .ops.frame_norm import span_frames
from .ops.image_prompt import ImagePrompt, number_cross_attentions
from .ops.interface import Ops
from .ops.select import EAGER_OPS
from .residuals import NO_RESIDUALS, Residuals, add_each

BetaSchedule = Literal["sqrt_linear", "linear", "lcm"]


@dataclass(frozen=True)
class Parameterization:
    """What a network was trained to predict, in diffusers' words."""

    prediction: Prediction = "epsilon"
    """epsilon: the noise; v_prediction: arXiv 2202.00512; sample: the latents themselves."""
    zero_terminal_snr: bool = False
    """Whether its noisiest level is noise alone (arXiv 2305.08891)."""


PREDICTS_NOISE = Parameterization()


class MotionUNet(nn.Module):
    """Predicts the noise in a window of frames, or what its parameterization says."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        motion: MotionModules | None,
        *,
        family: MotionFamily | None = None,
        parameterization: Parameterization = PREDICTS_NOISE,
    ) -> None:
        """Put the two halves together; without `motion` each frame is denoised by itself.

        family: of the motion modules; it tells the noise schedule that they were trained on, and
        v1 wants every group norm of the network to span the frames of a window.
        """
        super().__init__()
        self.unet = unet
        self.motion = motion
        self.family = family
        self.parameterization = parameterization
        if family == "v1":
            span_frames(self)
        number_cross_attentions(unet)

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
        """The dtype that the network computes in; some weights may be stored in another."""
        return self._any_weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._any_weight.device

    @property
    def _any_weight(self) -> Tensor:
        weight: Tensor = self.unet.conv_norm_out.weight
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
        deep: DeepFeatures | None = None,
        layers: Ops = EAGER_OPS,
        chunks: ChunkSizes | None = None,
    ) -> Tensor:
        """Predict the noise.

        sample: [clips * num_frames, 4, height, width], the scaled latents over sqrt(sigma^2 + 1).
        timestep: [1], the training step, 0 to 999.
        context: [clips or clips * num_frames, tokens, channels], the encoded prompt of each clip or
        frame.
        residuals: what ControlNets and T2I-Adapters add.
        images: what the UNet attends to beside the text, by IP-Adapters.
        deep: features of an earlier pass, in place of all layers but the outermost; or it takes up
        those of this pass.
        layers: how features go through the layers, for instance by compiled code.
        chunks: how much goes through a layer at a time; None is what is usual on the device.
        Returns the noise in the shape of `sample`.
        """
        unet = self.unet
        embedding = unet.time_embedding(unet.time_proj(timestep).to(sample.dtype))
        embedding = functional.silu(embedding)
        if len(context) == len(sample):
            context = _of_each_clip(context, num_frames)
        tokens_at_once = chunks.tokens if chunks else default_chunk_tokens(sample.device)
        inputs = _Inputs(embedding, context, images, num_frames, layers, tokens_at_once)
        depth = OUTERMOST_LAYERS if deep is not None and deep.are_given else None
        features = unet.conv_in(sample)
        features, skips = self._down(features, inputs, residuals.levels, depth)
        if depth is None:
            features = self._middle(features, inputs)
            if residuals.middle is not None:
                features = features + residuals.middle
        skips = add_each(skips, residuals.skips[:depth])
        features = self._up(features, skips, inputs, deep)
        features = layers.activated_norm(unet.conv_norm_out, features, num_frames)
        noise: Tensor = unet.conv_out(features)
        return noise

    def _down(
        self, features: Tensor, inputs: _Inputs, additions: Sequence[Tensor], depth: int | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Give the features at the bottom and those for all skip connections, or for the first."""
        skips = [features]
        for level, block in enumerate(self.unet.down_blocks):
            motion = self.motion.down_blocks[level] if self.motion is not None else None
            for layer in range(len(block.resnets)):
                for stage in inputs.stages(block, motion, layer):
                    features = stage(features)
                if additions and layer == len(block.resnets) - 1:
                    features = features + additions[level]
                skips.append(features)
                if len(skips) == depth:
                    return features, skips
            for downsampler in block.downsamplers or ():
                features = downsampler(features)
                skips.append(features)
        return features, skips

    def _middle(self, features: Tensor, inputs: _Inputs) -> Tensor:
        block = self.unet.mid_block
        motion = self.motion.mid_block if self.motion is not None else None
        for layer in range(len(block.attentions)):
            for stage in inputs.stages(block, motion, layer):
                features = stage(features)
        return inputs.layers.resnet(
            block.resnets[-1], features, inputs.embedding, inputs.num_frames
        )

    def _up(
        self, features: Tensor, skips: list[Tensor], inputs: _Inputs, deep: DeepFeatures | None
    ) -> Tensor:
        layers = [
            (level, block, layer)
            for level, block in enumerate(self.unet.up_blocks)
            for layer in range(len(block.resnets))
        ]
        for level, block, layer in layers[-len(skips) :]:
            if deep is not None and len(skips) == OUTERMOST_LAYERS:
                features = deep.in_place_of(features)
            motion = self.motion.up_blocks[level] if self.motion is not None else None
            features = torch.cat([features, skips.pop()], dim=1)
            for stage in inputs.stages(block, motion, layer):
                features = stage(features)
            if layer == len(block.resnets) - 1:
                for upsampler in block.upsamplers or ():
                    # Sizes that do not halve evenly come back to the size of the skip.
                    height, width = skips[-1].shape[2:]
                    features = inputs.layers.upsampler(upsampler, features, (height, width))
        return features


@dataclass(frozen=True)
class _Inputs:
    """What every layer of a pass gets beside the features."""

    embedding: Tensor
    """[1, channels], of the time step, after its activation."""
    context: Tensor
    """[prompts, tokens, channels]: of each clip, or of each frame where they differ."""
    images: Sequence[ImagePrompt]
    num_frames: int
    layers: Ops
    tokens_at_once: int | None

    def stages(self, block: Any, motion: Any, layer: int) -> Iterator[Callable[[Tensor], Tensor]]:
        """A layer's resnet, transformer and motion module, each from features to features.

        Apart, so that a stage's input, which is large, is gone when the next one works.
        """
        layers, num_frames, tokens_at_once = self.layers, self.num_frames, self.tokens_at_once
        yield lambda features: layers.resnet(
            block.resnets[layer], features, self.embedding, num_frames
        )
        attentions = getattr(block, "attentions", None)
        if attentions is not None:
            attention = attentions[layer]
            yield lambda features: layers.transformer(
                attention,
                features,
                cross_attention_kv(attention, self.context, self.images, rows=len(features)),
                num_frames,
                tokens_at_once,
            )
        if motion is not None:
            module = motion.motion_modules[layer]
            yield lambda features: layers.motion(module, features, num_frames, tokens_at_once)


def _of_each_clip(context: Tensor, num_frames: int) -> Tensor:
    """The first prompt of each clip if its frames share it, so that keys are made once for all."""
    clips = context.view(-1, num_frames, *context.shape[1:])
    return (
        clips[:, 0].contiguous() if torch.equal(clips, clips[:, :1].expand_as(clips)) else context
    )
