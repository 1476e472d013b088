"""The denoising network: Stable Diffusion's UNet with AnimateDiff's motion modules.

The forward pass of the spatial layers is here, because motion modules run between them and the rows
of a batch are frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..curve import Curve, Strength
from ..files import MotionFamily
from ..files.prediction import Prediction
from .batching import ChunkSizes, default_chunk_tokens
from .feature_cache import OUTERMOST_LAYERS, DeepFeatures
from .layers import SpatialTransformer
from .motion_module import MotionModules, blended
from .ops.eager import cross_attention_kv, prompt_of_each_video
from .ops.frame_norm import span_frames
from .ops.image_prompt import ImagePrompt, number_cross_attentions
from .ops.interface import Ops
from .ops.layer_changes import LayerFactors, Rows, RowStrengths, attach_all
from .ops.select import EAGER_OPS
from .ops.window_memory import RowMemory
from .pass_strengths import FULL_STRENGTH, PassStrengths, RowStrength
from .residuals import NO_RESIDUALS, Residuals, add_each
from .spatial_unet import SpatialUNet

BetaSchedule = Literal[
    "sqrt_linear",
    "linear",
    "lcm",
    "linear (AnimateDiff-SDXL)",
    "avg(sqrt_linear,linear)",
    "lcm avg(sqrt_linear,linear)",
    "lcm[100_ots]",
    "lcm >> sqrt_linear",
    "sqrt",
    "cosine",
    "squaredcos_cap_v2",
]


@dataclass(frozen=True)
class Parameterization:
    """The quantity that a network was trained to predict, in diffusers' terms."""

    prediction: Prediction = "epsilon"
    """epsilon: the noise; v_prediction: arXiv 2202.00512; sample: the latents themselves."""
    zero_terminal_snr: bool = False
    """True if its noisiest level is pure noise (arXiv 2305.08891)."""


PREDICTS_NOISE = Parameterization()


class MotionUNet(nn.Module):
    """A UNet that predicts the noise in frames, or whatever its parameterization says."""

    def __init__(
        self,
        unet: SpatialUNet,
        motion: MotionModules | None,
        *,
        family: MotionFamily | None = None,
        parameterization: Parameterization = PREDICTS_NOISE,
    ) -> None:
        """Combine a UNet with motion modules.

        Args:
            unet: The spatial layers.
            motion: The motion modules; None denoises each frame by itself.
            family: Kind of the motion modules, which decides the noise schedule. With "v1" every
                group norm of the network spans the frames of a window.
            parameterization: The quantity that the network predicts.
        """
        super().__init__()
        self.unet: Any = unet
        self.motion = motion
        self.family = family
        self.parameterization = parameterization
        if family == "v1":
            span_frames(self)
        number_cross_attentions(unet)
        self.lora_curves: tuple[Curve, ...] = ()
        """The strengths of the LoRAs that are not merged."""
        self._row_strengths: RowStrengths | None = None

    def attach_loras(
        self, curves: Sequence[Curve], layers: Sequence[Mapping[str, LayerFactors]]
    ) -> None:
        """Let LoRAs change the spatial layers with strengths of their own in each row of a pass.

        Args:
            curves: Their strengths; passes are given their values.
            layers: The factors of each, by the names of layers; see LayerChanges.append.
        """
        self.lora_curves = tuple(curves)
        self._row_strengths = attach_all(self.unet, layers, self._any_weight)
        for module in self.unet.modules():
            if isinstance(module, SpatialTransformer):
                module.row_strengths = self._row_strengths

    @property
    def strengths(self) -> list[tuple[str, Strength]]:
        """Those that can be curves, with their names in ModelFiles."""
        named: list[tuple[str, Strength]] = [("loras", each) for each in self.lora_curves]
        if self.motion is not None:
            named += [("motion_scale", self.motion.scale), ("motion_effect", self.motion.effect)]
        return named

    @property
    def is_uneven(self) -> bool:
        """True if a strength is a curve or has a mask."""
        motion = self.motion
        return bool(self.lora_curves) or (motion is not None and motion.is_uneven)

    @property
    def beta_schedule(self) -> BetaSchedule:
        """Noise schedule that the network was trained on."""
        if self.motion is None:
            return "linear"
        return "lcm" if self.family == "animatelcm" else "sqrt_linear"

    @property
    def max_frames(self) -> int | None:
        """Longest window that the motion modules support; None if frames are independent."""
        return self.motion.max_frames if self.motion is not None else None

    @property
    def dtype(self) -> torch.dtype:
        """Dtype to compute in; some weights may be stored in another one."""
        return self._any_weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
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
        strengths: PassStrengths = FULL_STRENGTH,
        ops: Ops = EAGER_OPS,
        chunks: ChunkSizes | None = None,
        memory: RowMemory | None = None,
    ) -> Tensor:
        """Predict the noise.

        Args:
            sample: [batch * num_frames, 4, height, width], the scaled latents over sqrt(sigma^2 +
                1).
            timestep: [1], the training step, 0 to 999.
            context: [batch or batch * num_frames, tokens, channels], the encoded prompt of each
                video or frame.
            num_frames: Frames of each video.
            residuals: Features that ControlNets and T2I-Adapters add.
            images: Image prompts of IP-Adapters.
            deep: Features of an earlier pass that replace all layers but the outermost, or a slot
                for those of this pass.
            strengths: Those of LoRAs and motion modules in each row.
            ops: The operations to run the layers with.
            chunks: Sizes of the chunks that go through a layer; None is the default of the device.
            memory: What the rows see of other windows; None without.

        Returns:
            The prediction, in the shape of `sample`.
        """
        tokens_at_once = chunks.tokens if chunks else default_chunk_tokens(sample.device)
        if len(context) == len(sample):
            context = prompt_of_each_video(context, num_frames)
        with self._in_effect(strengths, sample):
            embedding = self._embedding(timestep, sample.dtype)
            inputs = _Inputs(
                embedding, context, images, num_frames, ops, tokens_at_once, memory,
                strengths.motion_effect,
            )  # fmt: skip
            return self._run(sample, inputs, residuals, deep)

    @contextmanager
    def _in_effect(self, strengths: PassStrengths, sample: Tensor) -> Iterator[None]:
        """Let the layers find their strengths while the context is open."""
        with ExitStack() as opened:
            if self._row_strengths is not None:
                loras = strengths.loras
                if loras is None:
                    loras = torch.ones(len(self.lora_curves), len(sample))
                opened.enter_context(self._row_strengths.using(Rows.of(loras, sample)))
            if self.motion is not None:
                opened.enter_context(self.motion.scaled_by(strengths.motion_scale, sample))
            yield

    def _embedding(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        unet = self.unet
        embedding = unet.time_embedding(unet.time_proj(timestep).to(dtype))
        return functional.silu(embedding)

    def _run(
        self, sample: Tensor, inputs: _Inputs, residuals: Residuals, deep: DeepFeatures | None
    ) -> Tensor:
        unet = self.unet
        depth = OUTERMOST_LAYERS if deep is not None and deep.are_given else None
        features = unet.conv_in(sample)
        features, skips = self._down(features, inputs, residuals.levels, depth)
        if depth is None:
            features = self._middle(features, inputs)
            if residuals.middle is not None:
                features = features + residuals.middle
        skips = add_each(skips, residuals.skips[:depth])
        features = self._up(features, skips, inputs, deep)
        features = inputs.ops.activated_norm(unet.conv_norm_out, features, inputs.num_frames)
        noise: Tensor = unet.conv_out(features)
        return noise

    def _down(
        self,
        features: Tensor,
        inputs: _Inputs,
        level_residuals: Sequence[Tensor],
        depth: int | None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the features at the bottom and those of the skip connections.

        Args:
            features: [rows, channels, height, width].
            inputs: Everything else that the layers need.
            level_residuals: Added to the last layer of each level; empty adds nothing.
            depth: Stop after so many skip connections; None runs all layers.
        """
        skips = [features]
        for level, block in enumerate(self.unet.down_blocks):
            motion = self.motion.down_blocks[level] if self.motion is not None else None
            for layer in range(len(block.resnets)):
                for stage in inputs.stages(block, motion, layer):
                    features = stage(features)
                if level_residuals and layer == len(block.resnets) - 1:
                    features = features + level_residuals[level]
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
        return inputs.ops.resnet(block.resnets[-1], features, inputs.embedding, inputs.num_frames)

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
                    # Odd sizes were rounded when halved: return to the size of the skip.
                    height, width = skips[-1].shape[2:]
                    features = inputs.ops.upsampler(upsampler, features, (height, width))
        return features


@dataclass(frozen=True)
class _Inputs:
    """The inputs of every layer in a pass, besides the features."""

    embedding: Tensor
    """[1 or rows, channels], the time step's, after its activation."""
    context: Tensor
    """[batch or batch * num_frames, tokens, channels]."""
    images: Sequence[ImagePrompt]
    num_frames: int
    ops: Ops
    tokens_at_once: int | None
    memory: RowMemory | None
    motion_effect: RowStrength | None
    """None is 1."""

    def stages(self, block: Any, motion: Any, layer: int) -> Iterator[Callable[[Tensor], Tensor]]:
        """Yield a layer's resnet, transformer and motion module, each from features to features.

        They are separate so that a stage's input, which is large, is freed before the next one
        runs.
        """
        ops, num_frames, tokens_at_once = self.ops, self.num_frames, self.tokens_at_once
        yield lambda features: ops.resnet(
            block.resnets[layer], features, self.embedding, num_frames
        )
        attentions = getattr(block, "attentions", None)
        if attentions is not None:
            attention = attentions[layer]
            yield lambda features: ops.transformer(
                attention,
                features,
                cross_attention_kv(attention, self.context, self.images, rows=len(features)),
                num_frames,
                tokens_at_once,
                memory=self.memory,
            )
        if motion is not None:
            module = motion.motion_modules[layer]
            yield lambda features: blended(
                features,
                ops.motion(module, features, num_frames, tokens_at_once),
                self.motion_effect,
            )
