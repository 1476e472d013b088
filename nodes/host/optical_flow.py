"""ComfyUI's optical flow models, which its Load Optical Flow Model loads."""

from __future__ import annotations

from typing import Any

import comfy.model_management as memory
import torch
import torch.nn.functional as F
from torch import Tensor

from ...pipeline.restore.warp import resized

# RAFT halves pictures three times and then compares them at four scales, which takes 128 pixels.
_SIDE_MULTIPLE = 8
_LEAST_SIDE = 128


class RaftFlow:
    """Measures motion with RAFT, in the place of `dense_flow`."""

    def __init__(self, optical_flow: Any) -> None:
        """Use a value of ComfyUI's OPTICAL_FLOW type: a patcher of torchvision's RAFT."""
        self._patcher = optical_flow

    def __call__(self, here: Tensor, there: Tensor) -> Tensor:
        """Return the flow from pictures to others; see dense_flow."""
        memory.load_models_gpu([self._patcher])
        height, width = here.shape[-2:]
        scale = max(1.0, _LEAST_SIDE / min(height, width))
        size = tuple(
            max(_LEAST_SIDE, round(side * scale / _SIDE_MULTIPLE) * _SIDE_MULTIPLE)
            for side in (height, width)
        )
        device = self._patcher.load_device
        # RAFT takes -1..1 and returns a flow for each of its iterations, the last one the best.
        one, other = (
            F.interpolate(each, size, mode="bilinear").to(device) * 2 - 1 for each in (here, there)
        )
        with torch.no_grad():
            flow: Tensor = self._patcher.model(one, other)[-1]
        return resized(flow.to(here), (height, width))
