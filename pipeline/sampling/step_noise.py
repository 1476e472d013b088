"""The new noise that stochastic samplers add in their steps, as ComfyUI draws it for a seed.

It is always drawn on the CPU, so that a seed gives the same noise on every device.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from ..ranges import SEED

# Returns noise of unit variance, [frames, 4, height, width], for a step between two sigmas.
StepNoise = Callable[[Tensor, Tensor], Tensor]


def independent_noise(like: Tensor, seed: int) -> StepNoise:
    """Draw independent noise for each step, with the seed that follows the initial noise's."""
    generator = torch.Generator().manual_seed((seed + 1) % (SEED.high + 1))
    return lambda _from, _to: torch.randn(like.shape, generator=generator).to(like.device)


def brownian_noise(like: Tensor, seed: int, sigmas: Tensor) -> StepNoise:
    """Draw increments of one Brownian path over sigma, so that other step sizes share the path."""
    import torchsde  # noqa: PLC0415 - slow to load, and for a few samplers alone

    low, high = sigmas[sigmas > 0].min(), sigmas.max()
    # torchsde.BrownianTree, except for its cache, which would hold 45 tensors of this size.
    tree = torchsde.BrownianInterval(
        t0=low,
        t1=high,
        size=like.shape,
        dtype=like.dtype,
        device="cpu",
        entropy=seed,
        tol=1e-6,
        pool_size=24,
        halfway_tree=True,
        cache_size=1,
    )

    def draw(sigma_from: Tensor, sigma_to: Tensor) -> Tensor:
        # The path runs upwards, the sampler downwards: hence the sign, as in k-diffusion.
        with warnings.catch_warnings():
            # torchsde rounds the ends of its path, and then warns that the ends lie outside.
            warnings.filterwarnings("ignore", message="Should have t[ab]")
            increment: Tensor = tree(sigma_to, sigma_from)
        return (-increment / (sigma_from - sigma_to).sqrt()).to(like.device)

    return draw
