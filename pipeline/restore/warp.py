"""Pictures moved along a flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """Return what a picture shows at the places that a flow points to.

    Places between pixels are interpolated bilinearly, places outside get the pixel at the border.

    Args:
        picture: float [n, channels, height, width].
        flow: float [n, 2, height, width]: from each pixel of the result, how many pixels to the
            right and down its content lies in `picture`.
    """
    height, width = flow.shape[-2:]
    down = torch.arange(height, dtype=flow.dtype, device=flow.device)
    across = torch.arange(width, dtype=flow.dtype, device=flow.device)
    # grid_sample's own border mode does not exist on every device.
    x = (flow[:, 0] + across).clamp(0, width - 1)
    y = (flow[:, 1] + down[:, None]).clamp(0, height - 1)
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    return F.grid_sample(picture, grid, align_corners=False)


def resized(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a flow [n, 2, height, width] at another size, its vectors in pixels of that size."""
    height, width = flow.shape[-2:]
    if (height, width) == size:
        return flow
    scale = flow.new_tensor((size[1] / width, size[0] / height)).view(1, 2, 1, 1)
    return F.interpolate(flow, size, mode="bilinear", align_corners=False) * scale
