"""The noise that sampling starts from: ComfyUI's for a seed, and its variants for videos."""

from __future__ import annotations

import torch
from torch import Tensor

from ..choices import checked
from ..ranges import SEED
from .names import NoiseType
from .windows import ContextOptions


def initial_noise(
    like: Tensor, *, seed: int, noise_type: NoiseType = "default", context: ContextOptions
) -> Tensor:
    """Draw noise of unit variance in the shape of `like` [frames, 4, height, width], float32.

    The noise types: default: one tensor for all frames, from a CPU generator: ComfyUI's noise for
    the seed. constant: the same noise for every frame. repeated_context: the first window's noise,
    repeated. FreeNoise: the first window's noise, then the same in shuffled order, so that distant
    frames stay related (arXiv 2310.15169); shuffled as AnimateDiff-Evolved does for the seed.

    For "unsample" no noise is drawn; see unsampling.

    Raises:
        AnimateDiffV2VError: unknown noise type, or a seed outside 0 to 2^64 - 1.
    """
    checked("noise_type", noise_type, NoiseType)
    SEED.check("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    frames, *shape = like.shape
    if noise_type == "constant":
        return torch.randn(1, *shape, generator=generator).repeat(frames, 1, 1, 1)
    noise = torch.randn(frames, *shape, generator=generator)
    if noise_type == "repeated_context":
        return noise[torch.arange(frames) % context.length]
    if noise_type == "FreeNoise":
        return noise[_shuffled_frames(frames, seed, context)]
    return noise


def _shuffled_frames(frames: int, seed: int, context: ContextOptions) -> Tensor:
    """Return for each frame the frame of the first window whose noise it gets.

    With windows of 4 frames that overlap by 2: frames 0 to 3 keep their own, frames 4 and 5 get
    those of 0 and 1 in random order, frames 6 and 7 those of 2 and 3, and so on.
    """
    advance = context.length - context.overlap
    generator = torch.Generator().manual_seed(seed)
    order = torch.arange(frames)
    for target in range(context.length, frames, advance):
        count = min(advance, frames - target)
        source = order[target - context.length :][:count]
        order[target : target + count] = source[torch.randperm(count, generator=generator)]
    return order
