"""ControlNets and T2I-Adapters: networks that guide the UNet by a picture for each frame.

Both are diffusers' modules, unchanged; their results are arranged for the UNet here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, T2IAdapter
from torch import Tensor, nn

from ..errors import AnimateDiffV2VError
from ..files import ControlWeights, load_control
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
        module: type[nn.Module] = ControlNetModel
        if weights.kind == "T2I-Adapter":
            module = T2IAdapter
        self.network = module(**weights.config)

    def check_fits(self, unet: MotionUNet) -> None:
        """Raise AnimateDiffV2VError unless the UNet has the sizes that the network was made for."""
        theirs: Mapping[str, Any] = unet.unet.config
        keys: dict[str, str] = {"channels": "block_out_channels"}
        if isinstance(self.network, ControlNetModel):
            same = ("block_out_channels", "layers_per_block", "cross_attention_dim")
            keys = {key: key for key in same}
        for ours, their in keys.items():
            if _listed(self.config[ours]) != _listed(theirs[their]):
                raise AnimateDiffV2VError(
                    f"{self.name} was made for a UNet with {their} "
                    f"{_worded(self.config[ours])}, and this checkpoint's has "
                    f"{_worded(theirs[their])}: use one for the same base model."
                )

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
        if isinstance(self.network, ControlNetModel):
            if depth is not None:
                residuals = Residuals(self._first(depth, sample, timestep, context, frames))
            else:
                skips, middle = self.network(
                    sample, timestep, context, controlnet_cond=frames, return_dict=False
                )
                residuals = Residuals(skips, middle)
            return residuals.pooled() if self._global_pooling else residuals
        if self.config["in_channels"] != _RGB:
            frames = frames.mean(dim=1, keepdim=True)
        return Residuals(levels=self.network(frames))

    def _first(
        self, depth: int, sample: Tensor, timestep: Tensor, context: Tensor, frames: Tensor
    ) -> list[Tensor]:
        """Return a ControlNet's residuals for the first `depth` skips, as in diffusers' forward."""
        network: Any = self.network
        embedding = network.time_embedding(network.time_proj(timestep).to(sample.dtype))
        embedding = embedding.expand(len(sample), -1)
        features = network.conv_in(sample) + network.controlnet_cond_embedding(frames)
        skips, block = [features], network.down_blocks[0]
        for layer in range(depth - 1):
            features = block.resnets[layer](features, embedding)
            if getattr(block, "attentions", None):
                features = block.attentions[layer](features, context, return_dict=False)[0]
            skips.append(features)
        outputs = network.controlnet_down_blocks[:depth]
        return [output(skip) for output, skip in zip(outputs, skips, strict=True)]


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
    return control.eval().requires_grad_(False)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _worded(value: Any) -> str:
    return ", ".join(map(str, _listed(value)))
