"""The 1-nearest-neighbour two-sample test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from latlas.metrics.arrays import Array, nearest, pair


@dataclass(frozen=True)
class TwoSample:
    """Leave-one-out accuracy of telling real from fake by the nearest neighbour.

    Attributes:
        accuracy: 0.5 = indistinguishable, 1 = separate; below 0.5 the fakes sit on the real
            examples.
        real: share of real examples whose nearest other example is real (low: no neighbours of
            their own kind, the fakes crowd around the real).
        fake: share of fakes whose nearest other example is fake (high: the fakes form clusters,
            as after mode collapse).
        expected: accuracy if both come from one distribution; 0.5 for equal numbers, nearly.
        standard_error: of the accuracy, if both come from one distribution.
        p_value: two-sided, by permutation of the labels.
    """

    accuracy: float
    real: float
    fake: float
    expected: float
    standard_error: float
    p_value: float


def nearest_neighbour_test(real: Array, fake: Array, *, permutations: int = 1000,
                           seed: int = 0) -> TwoSample:
    """1-nearest-neighbour leave-one-out test (Lopez-Paz & Oquab 2017; Xu et al. 2018, sec. 3).

    The null distribution comes from permuting the labels over the fixed neighbour graph (Friedman
    & Rafsky 1979; Schilling 1986), which accounts for the dependence of neighbours that a binomial
    error would miss. Ties (duplicates) are broken at random by ``seed``.

    Args:
        real, fake: features (n, d) and (m, d); use equal numbers, so that 0.5 is the fair value.
    """
    real, fake = pair(real, fake, ("real features", "fake features"))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(real) + len(fake))
    label = order < len(real)
    pool = np.concatenate([real, fake])[order]
    neighbour = nearest(pool, pool, skip_self=True)[1][:, 0]
    agree = label == label[neighbour]
    accuracy = float(agree.mean())
    draws = (rng.permutation(label) for _ in range(permutations))
    null = np.array([(drawn == drawn[neighbour]).mean() for drawn in draws])
    # the probability that two different examples carry the same label
    n, m = len(real), len(fake)
    expected = (n * (n - 1) + m * (m - 1)) / ((n + m) * (n + m - 1))
    # the small margin counts equal distances as equal in spite of rounding
    as_far = np.abs(null - expected) >= abs(accuracy - expected) - 1e-12
    return TwoSample(accuracy, float(agree[label].mean()), float(agree[~label].mean()), expected,
                     float(null.std()), float((1 + as_far.sum()) / (1 + len(null))))
