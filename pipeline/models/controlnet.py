"""ControlNets and T2I-Adapters: networks that guide the UNet by a picture for each frame.

The forward pass of a ControlNet is here, with diffusers' arithmetic; on devices that have fused
layers it uses those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import AnimateDiffV2VError
from ..files import ControlWeights, load_control
from .batching import default_chunk_tokens
from .control_layers import ControlNet, T2IAdapter
from .motion_module import MotionBlock
from .ops.eager import cross_attention_kv, transform_tokens
from .ops.frame_norm import group_norm
from .ops.select import EAGER_OPS, default_ops, lay_out_weights
from .residuals import Residuals
from .unet import MotionUNet

_RGB = 3


class ControlNetwork(nn.Module):
    """A network that turns control frames into residuals for the UNet."""

    def __init__(self, weights: ControlWeights, *, name: str) -> None:
        """Build the network on the meta device; `load_control_network` adds the weights.

        Args:
            weights: The file, with the network's configuration.
            name: The file's name, for error sentences.
        """
        super().__init__()
        self.name = name
        self.config = weights.config
        self._global_pooling = weights.global_pooling
        module: type[nn.Module] = ControlNet
        if weights.kind == "T2I-Adapter":
            module = T2IAdapter
        self.network = module(**weights.config)

    def check_fits(self, unet: MotionUNet) -> None:
        """Raise AnimateDiffV2VError unless the UNet has the sizes that the network was made for."""
        if isinstance(self.network, ControlNet):
            check_sizes(self.name, self.config, unet)
        else:
            theirs = unet.unet.config.block_out_channels
            _check_size(self.name, "block_out_channels", self.config["channels"], theirs)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        context: Tensor,
        frames: Tensor,
        depth: int | None = None,
    ) -> Residuals:
        """Return the residuals for one pass of the UNet.

        Args:
            sample: As for MotionUNet.forward.
            timestep: As for MotionUNet.forward.
            context: As for MotionUNet.forward.
            frames: [rows, 3, height, width], the control frames at 8 times the sample's size, 0..1.
            depth: Number of skip connections to return residuals for, outermost first, at most
                those of the first level; deeper layers of a ControlNet do not run. None returns all
                residuals.
        """
        if isinstance(self.network, ControlNet):
            residuals = self._residuals(sample, timestep, context, frames, depth)
            return residuals.pooled() if self._global_pooling else residuals
        if self.config["in_channels"] != _RGB:
            frames = frames.mean(dim=1, keepdim=True)
        return Residuals(levels=self.network(frames))

    def _residuals(
        self,
        sample: Tensor,
        timestep: Tensor,
        context: Tensor,
        frames: Tensor,
        depth: int | None,
    ) -> Residuals:
        """Return a ControlNet's residuals, as in diffusers' forward; see `forward`."""
        network: Any = self.network
        features = network.conv_in(sample) + network.controlnet_cond_embedding(frames)
        return encoder_residuals(network, features, timestep, context, depth=depth)


def encoder_residuals(
    network: Any,
    features: Tensor,
    timestep: Tensor,
    context: Tensor,
    *,
    depth: int | None,
    motion: Sequence[MotionBlock] = (),
    num_frames: int = 1,
) -> Residuals:
    """Return the residuals of a ControlNet's encoder.

    Args:
        network: The ControlNet, a ControlNet of `control_layers`.
        features: [rows, channels, height, width], of its first layer.
        timestep: As for MotionUNet.forward.
        context: As for MotionUNet.forward.
        depth: As for ControlNetwork.forward.
        motion: Motion modules for the layers of each level, as in SparseCtrl, and perhaps one for
            the middle block.
        num_frames: Frames of each video, for `motion`.
    """
    # As in diffusers' forward for all layers, each row has its own time step there.
    timesteps = timestep.expand(len(features)) if depth is None else timestep
    embedding = network.time_embedding(network.time_proj(timesteps).to(features.dtype))
    layers = _Layers(embedding, context, num_frames)
    skips = [features]
    for level, block in enumerate(network.down_blocks):
        for layer in range(len(block.resnets)):
            features = layers.run(block, layer, features)
            if motion:
                features = layers.motion(motion[level].motion_modules[layer], features)
            skips.append(features)
            if len(skips) == depth:
                return Residuals(_sent(network.controlnet_down_blocks, skips))
        for downsampler in block.downsamplers or ():
            features = downsampler(features)
            skips.append(features)
    middle = network.mid_block
    features = layers.run(middle, 0, features)
    if len(motion) > len(network.down_blocks):
        features = layers.motion(motion[-1].motion_modules[0], features)
    features = layers.resnet(middle.resnets[-1], features)
    return Residuals(
        _sent(network.controlnet_down_blocks, skips), network.controlnet_mid_block(features)
    )


@dataclass(frozen=True)
class _Layers:
    """The layers of a ControlNet, fused on a device that has fused ones."""

    embedding: Tensor
    """[rows or 1, channels], of the time step, before its activation."""
    context: Tensor
    num_frames: int
    """Frames of each video, for motion modules."""

    def run(self, block: Any, layer: int, features: Tensor) -> Tensor:
        """Run a resnet of a block, and its transformer if it has one."""
        features = self.resnet(block.resnets[layer], features)
        if getattr(block, "attentions", None):
            features = self._transformer(block.attentions[layer], features)
        return features

    def motion(self, module: Any, features: Tensor) -> Tensor:
        """Run a motion module."""
        ops = default_ops(features.device, features.dtype)
        return ops.motion(module, features, self.num_frames, default_chunk_tokens(features.device))

    def resnet(self, block: Any, features: Tensor) -> Tensor:
        """Run a residual block."""
        ops = default_ops(features.device, features.dtype)
        embedding = self.embedding[:1]
        if ops is EAGER_OPS:
            embedding = self.embedding.expand(len(features), -1)
        return ops.resnet(block, features, functional.silu(embedding), 1)

    def _transformer(self, block: Any, features: Tensor) -> Tensor:
        ops = default_ops(features.device, features.dtype)
        prompts = cross_attention_kv(block, self.context, (), rows=len(features))
        if ops is not EAGER_OPS:
            tokens_at_once = default_chunk_tokens(features.device)
            return ops.transformer(block, features, prompts, 1, tokens_at_once)
        # As in diffusers, which rounds differently: convolutions around all rows at once.
        projected = block.proj_in(group_norm(block.norm, features, 1)).permute(0, 2, 3, 1)
        tokens = transform_tokens(block, projected.flatten(1, 2), prompts).view(projected.shape)
        result: Tensor = block.proj_out(tokens.permute(0, 3, 1, 2).contiguous()) + features
        return result


def _sent(outputs: Any, skips: list[Tensor]) -> list[Tensor]:
    """Return the residuals of skip connections, through the convolution of each."""
    return [output(skip) for output, skip in zip(outputs, skips, strict=False)]


def load_control_network(path: Path, *, device: torch.device, dtype: torch.dtype) -> ControlNetwork:
    """Load a ControlNet or T2I-Adapter for Stable Diffusion 1.5.

    On a CPU, tensors of `dtype` stay memory-mapped views of the file.

    Raises:
        AnimateDiffV2VError: the file is missing, is of another kind, or is damaged.
    """
    weights = load_control(path)
    with torch.device("meta"):
        control = ControlNetwork(weights, name=path.name)
    moved = {name: tensor.to(device, dtype) for name, tensor in weights.tensors.items()}
    control.network.load_state_dict(moved, strict=True, assign=True)
    del moved
    lay_out_weights(control.network, device)
    return control.eval().requires_grad_(False)


def check_sizes(name: str, config: Mapping[str, Any], unet: MotionUNet) -> None:
    """Raise AnimateDiffV2VError unless a ControlNet was made for a UNet of this size.

    Args:
        name: The file's name.
        config: Keyword arguments of a ControlNet.
        unet: The network to guide.
    """
    for key in ("block_out_channels", "layers_per_block", "cross_attention_dim"):
        _check_size(name, key, config[key], getattr(unet.unet.config, key))


def _check_size(name: str, key: str, ours: Any, theirs: Any) -> None:
    if _listed(ours) != _listed(theirs):
        raise AnimateDiffV2VError(
            f"{name} was made for a UNet with {key} {_worded(ours)}, and this checkpoint's has "
            f"{_worded(theirs)}: use one for the same base model."
        )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _worded(value: Any) -> str:
    return ", ".join(map(str, _listed(value)))
