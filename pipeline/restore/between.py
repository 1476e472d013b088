"""One frame between two restyled ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .flow import dense_flow
from .warp import resized, warp

FindFlow = Callable[[Tensor, Tensor], Tensor]

FLOW_SIDE = 256
"""Pixels of the longer side at which motion is measured."""
# Differences at which motion is trusted by a third: of colour (0..1), and in pixels between the way
# there and the way back.
COLOUR_TOLERANCE = 0.06
WAY_TOLERANCE = 2.0
# The share of the motion's length that counts as rounding: Sundaram et al., "Dense point
# trajectories by GPU-accelerated large displacement optical flow" (2010).
WAY_SHARE = 0.1
# What a neighbour weighs where neither is trusted: its share of the distance to this power, so that
# the nearer one prevails.
LEAST_TRUST = 1e-3
NEARNESS = 4
# A neighbour of which less agrees than this share of the other's is beyond a cut.
CUT_SHARE = 0.5
# Motion that explains less of a frame than this is not used at all.
LEAST_AGREEMENT = 0.2
# The light is compared in squares of this share of the shorter side.
LIGHT_SHARE = 8
DARKEST = 0.02
LIGHT_LIMIT = 2.0


class Neighbour(NamedTuple):
    """A kept frame: what the source shows and what was made of it, float [1, 3, h, w], 0..1."""

    source: Tensor
    restyled: Tensor


class _Moved(NamedTuple):
    """A neighbour on the way to another time: its picture, and how far to trust each pixel."""

    picture: Tensor
    trust: Tensor
    agreement: float
    """The mean trust."""


def restored(
    source: Tensor,
    before: Neighbour | None,
    after: Neighbour | None,
    *,
    position: float,
    find_flow: FindFlow = dense_flow,
) -> tuple[Tensor, Tensor]:
    """Return the restyled picture of a source frame between two kept ones.

    The neighbours are moved along the source's motion, lit as the source is, and blended by
    distance and by trust: a pixel is trusted where the way there and back ends where it began, and
    where the source looks as the motion says. Beyond a cut nothing is, and where no motion
    explains the frame, the nearer neighbour is taken as it is.

    Args:
        source: Float [1, 3, height, width], 0..1.
        before: The kept frame before it; None before the first one.
        after: The kept frame after it; None after the last one.
        position: From 0, the time of `before`, to 1, the time of `after`.
        find_flow: Measures motion, as `dense_flow`.

    Returns:
        The picture [1, 3, height, width], 0..1, and [1, 1, height, width]: 1 where the motion was
        not trusted.
    """
    known = [each for each in (before, after) if each is not None]
    moved = _moved(source, known, find_flow)
    shares = [1.0] if len(known) == 1 else [1 - position, position]
    best = max(each.agreement for each in moved)
    if best < LEAST_AGREEMENT:
        nearer = known[shares.index(max(shares))]
        return nearer.restyled, torch.ones_like(moved[0].trust)
    near = [
        (each, share * each.trust + LEAST_TRUST * share**NEARNESS)
        for share, each in zip(shares, moved, strict=True)
        if each.agreement >= CUT_SHARE * best
    ]
    picture = torch.stack([weight * each.picture for each, weight in near]).sum(0)
    whole = torch.stack([weight for _, weight in near]).sum(0)
    trust = torch.stack([each.trust for each, _ in near]).amax(0)
    return (picture / whole).clamp(0, 1), 1 - trust


def _moved(source: Tensor, neighbours: list[Neighbour], find_flow: FindFlow) -> list[_Moved]:
    count = len(neighbours)
    small = _small(torch.cat([source, *(each.source for each in neighbours)]))
    here, there = small[:1].expand(count, -1, -1, -1), small[1:]
    # One call measures both ways to both neighbours.
    ways, ways_back = find_flow(torch.cat((here, there)), torch.cat((there, here))).chunk(2)
    way_errors = _way_error(ways, ways_back)
    return [
        _along(source, neighbour, way, error)
        for neighbour, way, error in zip(
            neighbours, ways.chunk(count), way_errors.chunk(count), strict=True
        )
    ]


def _small(pictures: Tensor) -> Tensor:
    height, width = pictures.shape[-2:]
    scale = min(1.0, FLOW_SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(pictures, size, mode="area")


def _way_error(way: Tensor, way_back: Tensor) -> Tensor:
    """Return [n, 1, h, w]: the squared distance between begin and end of a way there and back.

    1 is what WAY_TOLERANCE and WAY_SHARE allow.
    """
    back = warp(way_back, way)
    lengths = (way.square() + back.square()).sum(1, keepdim=True)
    distance = (way + back).square().sum(1, keepdim=True)
    return distance / (WAY_TOLERANCE**2 + WAY_SHARE**2 * lengths)


def _along(source: Tensor, neighbour: Neighbour, way: Tensor, way_error: Tensor) -> _Moved:
    height, width = source.shape[-2:]
    flow = resized(way, (height, width))
    way_error = F.interpolate(way_error, (height, width), mode="bilinear", align_corners=False)
    way_trust = (-way_error).exp()
    moved = warp(torch.cat((neighbour.source, neighbour.restyled), dim=1), flow)
    looks, picture = moved.chunk(2, dim=1)
    light = _light(source, looks, way_trust)
    difference = (source - looks * light).square().mean(1, keepdim=True) / COLOUR_TOLERANCE**2
    difference = F.avg_pool2d(difference, 3, stride=1, padding=1, count_include_pad=False)
    trust = way_trust * (-difference).exp()
    return _Moved(picture * light, trust, float(trust.mean()))


def _light(source: Tensor, looks: Tensor, weight: Tensor) -> Tensor:
    """Return [1, 1, h, w]: how many times brighter the source is than the moved neighbour.

    Only slow changes over the picture count, of pixels with weight: others show another thing.
    """
    height, width = source.shape[-2:]
    side = max(1, min(height, width) // LIGHT_SHARE)
    both = torch.cat((source.mean(1, keepdim=True), looks.mean(1, keepdim=True)), dim=1)
    means = F.avg_pool2d((both + DARKEST) * weight + 1e-4, side, ceil_mode=True)
    for _ in range(2):
        means = F.avg_pool2d(means, 3, stride=1, padding=1, count_include_pad=False)
    bright, dark = means.chunk(2, dim=1)
    gain = (bright / dark).clamp(1 / LIGHT_LIMIT, LIGHT_LIMIT)
    return F.interpolate(gain, (height, width), mode="bilinear", align_corners=False)
