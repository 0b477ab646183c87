"""Kernel distance: the maximum mean discrepancy of two sets of features."""

from __future__ import annotations

import numpy as np

from latlas.core.errors import DataError
from latlas.metrics.arrays import ROWS, Array, pair


def kernel_distance(a: Array, b: Array, degree: int = 3) -> float:
    """Unbiased squared MMD with the kernel k(x, y) = (x·y / d + 1)^degree.

    Gretton et al. 2012, eq. 3; kernel and use as a score of samples: Bińkowski et al. 2018,
    section 4. Its expectation is 0 for two sets from one distribution, at any n, so the metric may
    come out slightly negative. It has the units of the kernel: scale the features to order 1.

    Args:
        a, b: features (n, d) and (m, d), at least two rows each.
    """
    a, b = pair(a, b, ("first features", "second features"))
    n, m = len(a), len(b)
    within_a = (_sum(a, a, degree) - _diagonal(a, degree)) / (n * (n - 1))
    within_b = (_sum(b, b, degree) - _diagonal(b, degree)) / (m * (m - 1))
    return within_a + within_b - 2 * _sum(a, b, degree) / (n * m)


def kernel_distance_subsets(a: Array, b: Array, *, subsets: int = 100, size: int = 1000,
                            degree: int = 3, seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation of :func:`kernel_distance` over random subsets.

    The usual way to report it (Bińkowski et al. 2018, section 4): subsets of ``size`` examples
    drawn without replacement from either side.
    """
    a, b = pair(a, b, ("first features", "second features"))
    if size > min(len(a), len(b)):
        raise DataError(f"subsets of {size} examples need as many a side, "
                        f"got {len(a)} and {len(b)}: lower the subset size")
    rng = np.random.default_rng(seed)
    values = [kernel_distance(rng.choice(a, size, False), rng.choice(b, size, False), degree)
              for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def _sum(a: Array, b: Array, degree: int) -> float:
    """Σ k(x, y) over all pairs, a block of rows at a time."""
    b = b.astype(np.float64)
    starts = range(0, len(a), ROWS)
    return float(sum(_kernel(a[s:s + ROWS] @ b.T, b.shape[1], degree).sum() for s in starts))


def _diagonal(a: Array, degree: int) -> float:
    return float(_kernel(np.square(a.astype(np.float64)).sum(1), a.shape[1], degree).sum())


def _kernel(products: Array, dims: int, degree: int) -> Array:
    kernel: Array = (products / dims + 1) ** degree
    return kernel
