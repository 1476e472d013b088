"""What the solvers share: pairs of noise levels, and the split of an ancestral step."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def steps(sigmas: Tensor) -> enumerate[tuple[Tensor, Tensor]]:
    """Return the steps as (index, (level, next level))."""
    return enumerate(itertools.pairwise(sigmas))


def distinct_steps(sigmas: Tensor) -> enumerate[tuple[Tensor, Tensor]]:
    """Return the steps between distinct levels, for methods that divide by their distance.

    The scheduler `simple` repeats levels if more steps are requested than there are levels.
    """
    return steps(torch.unique_consecutive(sigmas))


def ancestral(sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    """Return the level to go down to, and the noise to add, to arrive at `sigma_next`."""
    variance = sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2
    up = torch.minimum(sigma_next, variance.sqrt())
    return (sigma_next**2 - up**2).sqrt(), up


def log_step(sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """Return h, by which a step raises the logarithm of the signal-to-noise ratio."""
    return sigma.log() - sigma_next.log()
