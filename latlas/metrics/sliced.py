"""Sliced Wasserstein distance: how far two sets lie apart along random directions, on average."""

from __future__ import annotations

import numpy as np

from latlas.core.errors import ConfigError
from latlas.metrics.arrays import Array, pair

#: directions that are sorted at once
BLOCK = 64


def sliced_wasserstein(a: Array, b: Array, *, projections: int = 256, order: float = 1,
                       seed: int = 0) -> float:
    """(E_θ W_p(θ·a, θ·b)^p)^(1/p), θ uniform on the unit sphere (Bonneel et al. 2015).

    As a score of samples: Karras et al. (2018, section 5), with p = 1. In one dimension
    W_p^p = ∫₀¹ |F_a⁻¹(u) − F_b⁻¹(u)|^p du, exact by sorting, for unequal numbers too. It is 0 only
    for equal sets, so two sets from one distribution stay above it, less so the larger they are.

    Args:
        a, b: features (n, d) and (m, d).
        projections: directions drawn by ``seed``; the relative error falls as 1/√projections.
        order: p, at least 1.
    Returns:
        The distance in units of the features.
    """
    a, b = pair(a, b, ("first features", "second features"), 1)
    if projections < 1 or order < 1:
        raise ConfigError(f"sliced Wasserstein distance of order {order} over {projections} "
                          "directions: at least 1 of either")
    directions = np.random.default_rng(seed).standard_normal((projections, a.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    ends_a, ends_b = (np.arange(1, len(x) + 1) / len(x) for x in (a, b))
    ends = np.union1d(ends_a, ends_b)  # both quantile functions are steps
    costs = []
    for part in (directions[i:i + BLOCK] for i in range(0, projections, BLOCK)):
        apart = (np.sort(a @ part.T, 0)[np.searchsorted(ends_a, ends)]
                 - np.sort(b @ part.T, 0)[np.searchsorted(ends_b, ends)])
        costs.append(np.diff(ends, prepend=0.0) @ np.abs(apart) ** order)
    return float(np.concatenate(costs).mean() ** (1 / order))
