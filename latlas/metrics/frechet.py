"""Fréchet distance between Gaussians fitted to two sets of features."""

from __future__ import annotations

import numpy as np

from latlas.core.errors import DataError
from latlas.metrics.arrays import Array, Float, pair


def frechet_gaussian(mean1: Array, cov1: Array, mean2: Array, cov2: Array) -> float:
    """Squared 2-Wasserstein distance of N(mean1, cov1) and N(mean2, cov2).

    |μ₁ − μ₂|² + Tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), Dowson & Landau 1982; as a score of samples
    Heusel et al. 2017, eq. 6. Σ₁Σ₂ has the eigenvalues of the symmetric Σ₁^½ Σ₂ Σ₁^½, so two
    symmetric eigen-decompositions suffice, and singular covariances do no harm.

    Args:
        mean1, mean2: (d,).
        cov1, cov2: (d, d) symmetric, positive semi-definite.
    Returns:
        The distance, ≥ 0, in squared feature units.
    """
    mean1, mean2, cov1, cov2 = (np.asarray(v, np.float64) for v in (mean1, mean2, cov1, cov2))
    variances, axes = np.linalg.eigh((cov1 + cov1.T) / 2)
    root = (axes * np.sqrt(variances.clip(0))) @ axes.T
    product = root @ cov2 @ root
    values = np.linalg.eigvalsh((product + product.T) / 2)
    cross = np.sqrt(values.clip(0)).sum()
    shift = np.square(mean1 - mean2).sum()
    return max(float(shift + np.trace(cov1) + np.trace(cov2) - 2 * cross), 0.0)


def frechet_distance(a: Array, b: Array) -> float:
    """:func:`frechet_gaussian` of two sets of features (n, d) and (m, d), covariances over n − 1.

    The estimate is biased upward, more so the smaller n is: compare metrics of equal n only, and
    beside that of held-out data.

    Raises:
        DataError: a side has fewer than d + 1 examples, so that its covariance is singular and the
            metric would tell the number of examples rather than their quality.
    """
    a, b = pair(a, b, ("first features", "second features"))
    few, dims = min(len(a), len(b)), a.shape[1]
    if few < dims + 1:
        raise DataError(f"Fréchet distance on {dims} features needs at least {dims + 1} examples a "
                        f"side, got {few}: draw more, or choose features with fewer columns")
    return frechet_gaussian(*_moments(a), *_moments(b))


def _moments(x: Array) -> tuple[Float, Float]:
    x = x.astype(np.float64)
    return x.mean(0), np.atleast_2d(np.cov(x, rowvar=False))
