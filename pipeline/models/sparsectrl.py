"""SparseCtrl: a ControlNet with motion modules, which guides all frames by pictures of a few.

Arxiv 2311.16933. Its motion modules are AnimateDiff's own, because those of diffusers'
SparseControlNetModel normalise over all frames together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from ..files.sparsectrl import SparseCtrlWeights, load_sparsectrl
from .control_layers import ControlNet
from .controlnet import ControlNetwork, check_sizes, encoder_residuals
from .motion_module import MotionBlock, positional_tables
from .ops.select import lay_out_weights
from .residuals import Residuals
from .unet import MotionUNet


class SparseControlNetwork(nn.Module):
    """A network that turns keyframes into residuals for all frames of a window."""

    def __init__(self, weights: SparseCtrlWeights, *, name: str) -> None:
        """Build the network on the meta device; `load_sparsectrl_network` adds the weights.

        Args:
            weights: The file, with the network's configuration.
            name: The file's name, for error sentences.
        """
        super().__init__()
        self.name = name
        self.config = weights.config
        self.takes_latents = weights.takes_latents
        self.max_frames = weights.max_frames
        self.has_mid_block = weights.has_mid_block
        network: Any = ControlNet(**weights.config)
        channels = weights.config["block_out_channels"]
        if weights.takes_latents:
            pictures = weights.config["conditioning_channels"]
            network.controlnet_cond_embedding = nn.Conv2d(pictures, channels[0], 3, padding=1)
        self.network = network
        frames, attentions = weights.max_frames, weights.attentions
        # These names are those of the files' keys.
        self.down_blocks = nn.ModuleList(
            MotionBlock(each, frames, weights.config["layers_per_block"], attentions)
            for each in channels
        )
        if weights.has_mid_block:
            self.mid_block = MotionBlock(channels[-1], frames, 1, attentions)

    def check_fits(self, unet: MotionUNet) -> None:
        """Raise AnimateDiffV2VError unless the UNet has the sizes that the network was made for."""
        check_sizes(self.name, self.config, unet)

    def forward(
        self,
        pictures: Tensor,
        timestep: Tensor,
        context: Tensor,
        num_frames: int,
        depth: int | None = None,
    ) -> Residuals:
        """Return the residuals for one pass of the UNet. They do not depend on the noisy sample.

        Args:
            pictures: [batch * num_frames, channels + 1, height, width]: the keyframes, and a last
                channel that is 1 in their rows; all other rows are 0. Scaled latents with
                `takes_latents`, otherwise pictures of 0..1 at 8 times their size.
            timestep: As for MotionUNet.forward.
            context: As for MotionUNet.forward.
            num_frames: Frames of each video.
            depth: As for ControlNetwork.forward.
        """
        network: Any = self.network
        # Of a sample of zeros the first layer leaves its bias.
        bias = network.conv_in.bias.view(1, -1, 1, 1)
        features = bias + network.controlnet_cond_embedding(pictures)
        blocks = [*self.down_blocks, *([self.mid_block] if self.has_mid_block else ())]
        return encoder_residuals(
            network,
            features,
            timestep,
            context,
            depth=depth,
            motion=cast("list[MotionBlock]", blocks),
            num_frames=num_frames,
        )


AnyControlNetwork: TypeAlias = ControlNetwork | SparseControlNetwork
"""A network that adds residuals to the UNet's features."""


def load_sparsectrl_network(
    path: Path, *, device: torch.device, dtype: torch.dtype
) -> SparseControlNetwork:
    """Load a SparseCtrl model.

    On a CPU, tensors of `dtype` stay memory-mapped views of the file.

    Raises:
        AnimateDiffV2VError: the file is missing, is of another kind, or is damaged.
    """
    weights = load_sparsectrl(path)
    with torch.device("meta"):
        network = SparseControlNetwork(weights, name=path.name)
    tables = positional_tables(weights.motion, weights.max_frames)
    tensors = {f"network.{name}": tensor for name, tensor in weights.tensors.items()}
    tensors |= tables | weights.motion
    moved = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
    network.load_state_dict(moved, strict=True, assign=True)
    del moved
    lay_out_weights(network, device)
    return network.eval().requires_grad_(False)
