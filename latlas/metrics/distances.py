"""How far two sets of features (n, d) and (m, d) are apart, and how far each lies in the other."""

import numpy as np

from latlas.core.errors import ConfigError, DataError
from latlas.metrics.arrays import ROWS, Array, Float, Index, blocks, nearest, pair

FEATURES = "first features", "second features"
#: directions of the sliced distance that are sorted at once
DIRECTIONS = 64
#: A ball's radius is computed in another block than the distances compared with it; the slack
#: keeps a point that lies exactly on its surface inside.
SLACK = 1 + 1e-10


def frechet_gaussian(mean1: Array, cov1: Array, mean2: Array, cov2: Array) -> float:
    """Squared 2-Wasserstein distance of two Gaussians by means (d,) and covariances (d, d), ≥ 0.

    |μ₁ − μ₂|² + Tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), Dowson & Landau 1982; as a score of samples
    Heusel et al. 2017, eq. 6. Σ₁Σ₂ has the eigenvalues of the symmetric Σ₁^½ Σ₂ Σ₁^½, so two
    symmetric eigen-decompositions suffice, and singular covariances do no harm.
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
    """:func:`frechet_gaussian` of two sets of features, covariances over n − 1.

    Biased upward, more so the smaller n is: compare metrics of equal n only, and beside that of
    held-out data. DataError for fewer than d + 1 examples a side, whose covariance is singular.
    """
    a, b = (x.astype(np.float64) for x in pair(a, b, FEATURES))
    few, dims = min(len(a), len(b)), a.shape[1]
    if few < dims + 1:
        raise DataError(f"Fréchet distance on {dims} features needs at least {dims + 1} examples a "
                        f"side, got {few}: draw more, or choose features with fewer columns")
    return frechet_gaussian(a.mean(0), np.atleast_2d(np.cov(a, rowvar=False)),
                            b.mean(0), np.atleast_2d(np.cov(b, rowvar=False)))


def kernel_distance(a: Array, b: Array, degree: int = 3) -> float:
    """Unbiased squared MMD with the kernel k(x, y) = (x·y / d + 1)^degree.

    Gretton et al. 2012, eq. 3; kernel and use as a score of samples: Bińkowski et al. 2018,
    section 4. Its expectation is 0 for two sets from one distribution, at any n, so it may come out
    slightly negative. It has the units of the kernel: scale the features to order 1.
    """
    a, b = pair(a, b, FEATURES)

    def kernel(products: Array) -> Array:
        return np.asarray((products / a.shape[1] + 1) ** degree)

    def total(x: Array, y: Array) -> float:
        y = y.astype(np.float64)
        return float(sum(kernel(x[s:s + ROWS] @ y.T).sum() for s in range(0, len(x), ROWS)))

    def within(x: Array) -> float:
        diagonal = float(kernel(np.square(x.astype(np.float64)).sum(1)).sum())
        return (total(x, x) - diagonal) / (len(x) * (len(x) - 1))

    return within(a) + within(b) - 2 * total(a, b) / (len(a) * len(b))


def sliced_wasserstein(a: Array, b: Array, *, projections: int = 256, order: float = 1,
                       seed: int = 0) -> float:
    """(E_θ W_p(θ·a, θ·b)^p)^(1/p), θ uniform on the unit sphere (Bonneel et al. 2015).

    As a score of samples: Karras et al. (2018, section 5), with p = 1. In one dimension
    W_p^p = ∫₀¹ |F_a⁻¹(u) − F_b⁻¹(u)|^p du, exact by sorting, for unequal numbers too. It is 0 only
    for equal sets, so two sets from one distribution stay above it, less so the larger they are.

    Args:
        projections: directions drawn by ``seed``; the relative error falls as 1/√projections.
        order: p, at least 1.
    """
    a, b = pair(a, b, FEATURES, 1)
    if projections < 1 or order < 1:
        raise ConfigError(f"sliced Wasserstein distance of order {order} over {projections} "
                          "directions: at least 1 of either")
    directions = np.random.default_rng(seed).standard_normal((projections, a.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    ends_a, ends_b = (np.arange(1, len(x) + 1) / len(x) for x in (a, b))
    ends = np.union1d(ends_a, ends_b)  # both quantile functions are steps
    costs = []
    for part in (directions[i:i + DIRECTIONS] for i in range(0, projections, DIRECTIONS)):
        apart = (np.sort(a @ part.T, 0)[np.searchsorted(ends_a, ends)]
                 - np.sort(b @ part.T, 0)[np.searchsorted(ends_b, ends)])
        costs.append(np.diff(ends, prepend=0.0) @ np.abs(apart) ** order)
    return float(np.concatenate(costs).mean() ** (1 / order))


def precision_recall(real: Array, fake: Array, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eqs. 1 and 2).

    A set's support is the union of balls around its examples that reach their k-th nearest
    neighbour in that set. Precision is the share of fakes in the support of the real, recall the
    converse: does the fake look real, and is all of the real produced?
    """
    real, fake = _checked(real, fake, k)
    _, fakes = _inside(real, k, fake)
    _, reals = _inside(fake, k, real)
    return float((fakes > 0).mean()), float((reals > 0).mean())


def density_coverage(real: Array, fake: Array, k: int = 5) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, section 3), less moved by outliers.

    Density is the number of real balls a fake lies in, divided by k, on average, without an upper
    limit; coverage the share of real balls with at least one fake. For fakes as good as real data
    density is 1 and coverage 1 − 2^−k for large n (0.969 at k = 5).
    """
    real, fake = _checked(real, fake, k)
    balls, fakes = _inside(real, k, fake)
    return float(fakes.mean() / k), float((balls > 0).mean())


def support_distance(real: Array, points: Array, k: int = 5, *, keep: float = 1.0) -> Float:
    """How far each point (m, d) lies from the support of the real examples (n, d), (m,).

    min_i ‖x − x_i‖ / r_i with r_i the distance of real example i to its k-th nearest other: at most
    1 inside the support, 2 at twice the reach of a ball. With every ball kept the support is that
    of precision (Kynkäänniemi et al. 2019, eq. 1); with ``keep`` 0.5, the smaller half of them,
    this is one over their realism score (eq. 3), which lone examples with huge balls do not move.
    """
    real, points = _checked(real, points, k)
    least = np.full(len(points), np.inf)
    radii = nearest(real, real, k, skip_self=True)[0][:, -1]
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


def _inside(centres: Array, k: int, points: Array) -> tuple[Index, Index]:
    """(n,) points in the ball of each centre up to its k-th neighbour, (m,) balls around each."""
    in_ball, around = np.zeros(len(centres), np.int64), np.zeros(len(points), np.int64)
    limit = np.square(nearest(centres, centres, k, skip_self=True)[0][:, -1]) * SLACK
    for rows, columns, square in blocks(centres, points):
        inside = square <= limit[rows, None]
        in_ball[rows] += inside.sum(1)
        around[columns] += inside.sum(0)
    return in_ball, around


def nearest_neighbour_test(real: Array, fake: Array, *, permutations: int = 1000,
                           seed: int = 0) -> tuple[float, float]:
    """How well the nearest other example tells real from fake: leave-one-out accuracy, p-value.

    Lopez-Paz & Oquab 2017; Xu et al. 2018, section 3. Accuracy 0.5 is indistinguishable, 1
    separate; below 0.5 the fakes sit on the real examples. The p-value is two-sided.

    The null distribution comes from permuting the labels over the fixed neighbour graph (Friedman
    & Rafsky 1979; Schilling 1986), which accounts for the dependence of neighbours that a binomial
    error would miss. Ties (duplicates) are broken at random by ``seed``. Use equal numbers, so that
    0.5 is the fair value.
    """
    real, fake = pair(real, fake, ("real features", "fake features"))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(real) + len(fake))
    label = order < len(real)
    pool = np.concatenate([real, fake])[order]
    neighbour = nearest(pool, pool, skip_self=True)[1][:, 0]
    accuracy = float((label == label[neighbour]).mean())
    draws = (rng.permutation(label) for _ in range(permutations))
    null = np.array([(draw == draw[neighbour]).mean() for draw in draws])
    # the probability that two different examples carry the same label
    n, m = len(real), len(fake)
    expected = (n * (n - 1) + m * (m - 1)) / ((n + m) * (n + m - 1))
    # the small margin counts equal distances as equal in spite of rounding
    as_far = np.abs(null - expected) >= abs(accuracy - expected) - 1e-12
    return accuracy, float((1 + as_far.sum()) / (1 + permutations))
