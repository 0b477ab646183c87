"""Precision and recall of samples, and density and coverage, from nearest-neighbour balls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latlas.core.errors import DataError
from latlas.metrics.arrays import Array, Float, Index, blocks, nearest, pair

# A ball's radius is computed in another block than the distances held against it; the slack keeps
# a point that lies exactly on its surface inside.
SLACK = 1 + 1e-10


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision: share of samples that look real. Recall: share of the real that is produced."""

    precision: float
    recall: float


@dataclass(frozen=True)
class DensityCoverage:
    """Density: how densely real examples surround samples (1 expected, no upper limit). Coverage:
    share of real examples with a sample nearby."""

    density: float
    coverage: float


def precision_recall(real: Array, fake: Array, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eqs. 1 and 2).

    A set's support is the union of balls around its examples that reach their k-th nearest
    neighbour in that set. Precision is the share of fakes in the support of the real, recall the
    converse.

    Args:
        real, fake: features (n, d) and (m, d), more than k rows each; blockwise in memory.
    """
    real, fake = _checked(real, fake, k)
    _, fakes = _inside(real, _radii(real, k), fake)
    _, reals = _inside(fake, _radii(fake, k), real)
    return PrecisionRecall(float((fakes > 0).mean()), float((reals > 0).mean()))


def density_coverage(real: Array, fake: Array, k: int = 5) -> DensityCoverage:
    """Density and coverage (Naeem et al. 2020, section 3), less moved by outliers.

    Density is the number of real balls a fake lies in, divided by k, on average; coverage the
    share of real balls with at least one fake. For fakes as good as real data density is 1 and
    coverage 1 − 2^−k for large n (0.969 at k = 5).

    Args:
        real, fake: features (n, d) and (m, d), more than k rows each; blockwise in memory.
    """
    real, fake = _checked(real, fake, k)
    balls, fakes = _inside(real, _radii(real, k), fake)
    return DensityCoverage(float(fakes.mean() / k), float((balls > 0).mean()))


def support_distance(real: Array, points: Array, k: int = 5, *, keep: float = 1.0) -> Float:
    """How far each point (m, d) lies from the support of the real examples (n, d), (m,).

    min_i ‖x − x_i‖ / r_i with r_i the distance of real example i to its k-th nearest other: at most
    1 inside the support, 2 at twice the reach of a ball. With every ball kept the support is that
    of precision (Kynkäänniemi et al. 2019, eq. 1); with the smaller half of them (``keep`` 0.5)
    this is one over their realism score (eq. 3), which lone examples with huge balls do not move.

    Args:
        keep: share of the balls, the smallest, that make up the support.
    """
    real, points = _checked(real, points, k)
    least = np.full(len(points), np.inf)
    radii = _radii(real, k)
    near = radii <= np.quantile(radii, keep)
    limit = np.square(radii[near]) * SLACK
    for rows, columns, square in blocks(real[near], points):
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.nan_to_num(square / limit[rows, None], nan=0.0, posinf=np.inf)
        least[columns] = np.minimum(least[columns], share.min(0))
    return np.sqrt(least)


def _checked(real: Array, fake: Array, k: int) -> tuple[Array, Array]:
    if k < 1:
        raise DataError(f"number of neighbours k must be at least 1, got {k}")
    return pair(real, fake, ("real features", "fake features"), k + 1)


def _radii(x: Array, k: int) -> Float:
    """(n,) distance of each example to its k-th nearest other example."""
    return nearest(x, x, k, skip_self=True)[0][:, -1]


def _inside(centres: Array, radii: Float, points: Array) -> tuple[Index, Index]:
    """(n,) points in each ball, and (m,) balls around each point."""
    in_ball = np.zeros(len(centres), np.int64)
    around = np.zeros(len(points), np.int64)
    limit = np.square(radii) * SLACK
    for rows, columns, square in blocks(centres, points):
        inside = square <= limit[rows, None]
        in_ball[rows] += inside.sum(1)
        around[columns] += inside.sum(0)
    return in_ball, around
