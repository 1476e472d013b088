"""Dense optical flow: where the content of each pixel lies in another picture.

A variational method from coarse to fine, after:
- Horn and Schunck, "Determining optical flow" (1981): brightness stays, neighbours move alike;
- Brox et al., "High accuracy optical flow estimation based on a theory for warping" (2004): both
  hold only for most pixels, so that residuals and edges of the flow count with their length and
  not its square, solved by warping and reweighting;
- Kroeger et al., "Fast optical flow using dense inverse search" (2016): an image a few times
  smaller than the video does, and few iterations at each scale.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .warp import resized, warp

SMALLEST_SIDE = 8
"""Pixels of the shorter side at the coarsest scale, or more."""
WARPS = 3
ITERATIONS = 10
SMOOTHNESS = 0.03
"""Weight of a change of the flow by a pixel, relative to a difference of 1 in brightness."""
# Below these, differences of colour (0..1) and of the flow (pixels) count with their square.
RESIDUAL_SOFTNESS = 0.01
CHANGE_SOFTNESS = 0.1


def dense_flow(here: Tensor, there: Tensor) -> Tensor:
    """Return the flow from pictures to others: `warp(there, flow)` looks like `here`.

    Args:
        here: float [n, channels, height, width], 0..1.
        there: of the same shape.

    Returns:
        Float [n, 2, height, width], in pixels: to the right and down.
    """
    scales = list(zip(_pyramid(here), _pyramid(there), strict=True))
    flow = here.new_zeros(len(here), 2, *scales[-1][0].shape[-2:])
    for one, other in reversed(scales):
        height, width = one.shape[-2:]
        flow = resized(flow, (height, width))
        for _ in range(WARPS):
            flow = _improved(one, other, flow)
    return flow


def _pyramid(picture: Tensor) -> list[Tensor]:
    """Return a picture and its halves down to the smallest side."""
    scales = [picture]
    while min(scales[-1].shape[-2:]) >= 2 * SMALLEST_SIDE:
        scales.append(F.avg_pool2d(scales[-1], 2))
    return scales


def _improved(here: Tensor, there: Tensor, flow: Tensor) -> Tensor:
    """Return a flow after one warp: a linear problem, solved by Jacobi's method.

    For each pixel, with residual r, gradient g, and weights w of the data and w_k of the four
    neighbours: (w g g^T + sum w_k) f_new = w (g g^T f - g r) + sum w_k f_k.
    """
    moved = warp(there, flow)
    residual = moved - here
    across, down = _gradient((here + moved) / 2)
    data = _weight(residual, RESIDUAL_SOFTNESS)
    xx, xy, yy, xr, yr = (
        data * (one * other).mean(1, keepdim=True)
        for one, other in (
            (across, across), (across, down), (down, down), (across, residual), (down, residual)
        )
    )  # fmt: skip
    east = F.pad(SMOOTHNESS * _weight(flow.diff(dim=3), CHANGE_SOFTNESS), (1, 1))
    south = F.pad(SMOOTHNESS * _weight(flow.diff(dim=2), CHANGE_SOFTNESS), (0, 0, 1, 1))
    neighbours = (east[..., 1:], east[..., :-1], south[..., 1:, :], south[..., :-1, :])
    smooth = sum(neighbours)
    u, v = flow.chunk(2, dim=1)
    known = torch.cat((xx * u + xy * v - xr, xy * u + yy * v - yr), dim=1)
    xx, yy = xx + smooth + 1e-6, yy + smooth + 1e-6  # a single pixel has no neighbours
    determinant = xx * yy - xy * xy
    # The inverse of the symmetric 2x2 matrix, applied to a vector and to it turned round.
    straight = torch.cat((yy, xx), dim=1) / determinant
    crossed = -xy / determinant
    # The same memory for all iterations: `sides` and `flow` are views of `padded`.
    padded = F.pad(flow, (1, 1, 1, 1))
    sides, flow = _sides(padded), padded[..., 1:-1, 1:-1]
    right, turned = torch.empty_like(known), torch.empty_like(known)
    for _ in range(ITERATIONS):
        right.copy_(known)
        for weight, side in zip(neighbours, sides, strict=True):
            right.addcmul_(weight, side)
        turned[:, 0], turned[:, 1] = right[:, 1], right[:, 0]
        torch.mul(straight, right, out=flow).addcmul_(crossed, turned)
    return flow


def _weight(difference: Tensor, softness: float) -> Tensor:
    """Return the weight [n, 1, h, w] with which a squared length counts like the length itself."""
    return (difference.square().mean(1, keepdim=True) + softness**2).rsqrt()


def _gradient(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Return central differences, across and down."""
    right, left, below, above = _sides(F.pad(picture, (1, 1, 1, 1), mode="replicate"))
    return (right - left) / 2, (below - above) / 2


def _sides(padded: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the neighbours at the right, left, below and above of each pixel inside the border."""
    inner = slice(1, -1)
    return (
        padded[..., inner, 2:],
        padded[..., inner, :-2],
        padded[..., 2:, inner],
        padded[..., :-2, inner],
    )
