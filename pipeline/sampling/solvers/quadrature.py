"""Integrals of Lagrange polynomials, which multistep methods weight earlier predictions by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

# Points of the Gauss-Legendre rule: exact for polynomials up to degree 31.
_POINTS = 16


def lagrange_weights(
    nodes: Sequence[float],
    start: float,
    end: float,
    density: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
) -> list[float]:
    """Integrate the Lagrange polynomials of `nodes` from `start` to `end`.

    Args:
        nodes: Distinct points; the n-th polynomial is 1 at the n-th and 0 at the others.
        start: Lower limit.
        end: Upper limit; below `start` the integral changes its sign.
        density: A smooth factor of the integrand, of an array of points; None is 1.

    Returns:
        The integral of each polynomial times the density.
    """
    places, weights = _rule()
    points = start + (places + 1) / 2 * (end - start)
    measure = weights * (end - start) / 2
    if density is not None:
        measure = measure * density(points)
    integrals = []
    for number, node in enumerate(nodes):
        others = [other for index, other in enumerate(nodes) if index != number]
        polynomial = np.prod([(points - other) / (node - other) for other in others], axis=0)
        integrals.append(float(np.sum(measure * polynomial)))
    return integrals


@cache
def _rule() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the points and weights of the rule from -1 to 1."""
    places, weights = np.polynomial.legendre.leggauss(_POINTS)
    return places, weights
