"""Networks that guide the UNet by a picture for each frame: ControlNets and T2I-Adapters.

Both are diffusers' modules, unchanged. What they return is laid out for the UNet here.
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
        """Build it without memory of its own; `load_control_network` puts the weights in.

        name: the file, for sentences about it.
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
        """Raise AnimateDiffV2VError when the UNet has other sizes than the network was made for."""
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
        """Give the residuals.

        sample, timestep, context: as the UNet gets them; see MotionUNet.forward.
        frames: [rows, 3, height, width], the control frames at 8 times the sample's size, 0 to 1.
        depth: of a ControlNet's residuals only those for so many skip connections, the first ones,
        at most those of the first level; the layers below do not run.
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
        """A ControlNet's residuals for the first skips, as diffusers' forward pass has them."""
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

    Tensors stay memory-mapped views of the file where their dtype is already `dtype` and `device`
    is the CPU.
    Raises AnimateDiffV2VError when the file is missing, is of another kind, or is damaged.
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
