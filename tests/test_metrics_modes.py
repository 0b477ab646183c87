"""Sliced distance against closed forms and SciPy; modes and diversity against hand-made sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from latlas.core.errors import ConfigError, DataError
from latlas.data.standard import open_grid, open_ring
from latlas.metrics.distances import sliced_wasserstein
from latlas.metrics.quality import (
    Balls,
    Seen,
    class_diversity,
    class_shares,
    judge,
    mean_distance,
    mode_divergence,
    modes_covered,
)
from latlas.metrics.table import KINDS


def normal(seed, n, d):
    return np.random.default_rng(seed).normal(size=(n, d))


# ------------------------------------------------------------------------------ sliced distance

@pytest.mark.parametrize(("n", "m"), [(50, 50), (50, 33), (7, 3), (1, 4)])
def test_in_one_dimension_it_is_scipys(n, m):
    a, b = normal(0, n, 1), 2 * normal(1, m, 1) + 0.3
    assert sliced_wasserstein(a, b) == pytest.approx(wasserstein_distance(a[:, 0], b[:, 0]))


def test_a_shift_costs_its_component_along_every_direction():
    """W_p of a shifted copy is |θ·δ|: E|θ_1| and E θ_1² = 1/d of a point on the sphere."""
    d, shift = 5, np.array([3.0, 0, 0, 4.0, 0])
    a = normal(0, 40, d)
    first = math.gamma(d / 2) / (math.sqrt(math.pi) * math.gamma((d + 1) / 2))
    one, two = (sliced_wasserstein(a, a + shift, projections=20_000, order=p) for p in (1, 2))
    assert one == pytest.approx(5 * first, rel=0.01)
    assert two == pytest.approx(5 / math.sqrt(d), rel=0.01)


def test_shifted_and_stretched_gaussians():
    """Along θ both are normal: W_2² = (θ·δ)² + (s − 1)², its mean |δ|²/d + (s − 1)²."""
    a, b = normal(0, 20_000, 3), 1.5 * normal(1, 20_000, 3) + np.array([0.0, 2.0, 0.0])
    assert sliced_wasserstein(a, b, projections=2000, order=2) == pytest.approx(
        math.sqrt(4 / 3 + 0.25), rel=0.02)


def test_the_distance_follows_its_seed_and_is_zero_for_equal_sets():
    a, b = normal(0, 60, 4), normal(1, 80, 4)
    one, same, other = (sliced_wasserstein(a, b, seed=s) for s in (0, 0, 1))
    assert one == same != other
    assert sliced_wasserstein(a, a[::-1]) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ConfigError, match="at least 1"):
        sliced_wasserstein(a, b, projections=0)
    with pytest.raises(DataError, match="4 columns"):
        sliced_wasserstein(a, b[:, :3])


# ------------------------------------------------------------------------------ modes

@pytest.mark.parametrize(("source", "k", "sd"), [(open_ring, 8, 0.01), (open_grid, 25, 0.05)])
def test_balls_of_the_toy_densities(source, k, sd):
    """Centres and spread as defined, and 1 − exp(−9/2) of fresh examples within three of it."""
    train, fresh = (source(n=20_000, seed=s).base for s in (0, 1))
    balls = Balls.fit(train.x, train.label)
    assert len(balls.codes) == k
    np.testing.assert_allclose(balls.sd, sd, rtol=0.06)
    mode, inside = balls.tell(fresh.x)
    np.testing.assert_array_equal(mode, fresh.label)
    assert inside.mean() == pytest.approx(1 - math.exp(-4.5), abs=0.004)
    shares = class_shares(train.label)
    assert modes_covered(mode, shares) == k
    assert mode_divergence(mode, shares) == pytest.approx((k - 1) / 20_000, abs=0.001)


def test_modes_by_hand():
    shares = class_shares(np.array([0, 0, 2, 2, 2, 5, -1]))
    np.testing.assert_allclose(shares, [2 / 6, 0, 3 / 6, 0, 0, 1 / 6])
    mode = np.array([0, 0, 2, 2])
    assert modes_covered(mode, shares) == 2
    expected = 0.5 * math.log(0.5 / (2 / 6)) + 0.5 * math.log(0.5 / 0.5)
    assert mode_divergence(mode, shares) == pytest.approx(expected)
    assert modes_covered(np.array([1, 1, 5]), shares) == 1  # no real example is a 1
    assert mode_divergence(np.array([1, 5]), shares) == math.inf
    assert mode_divergence(np.array([7]), shares) == math.inf


def test_one_ball_by_hand():
    x, label = np.array([[0.0, 0], [2, 0], [10, 0], [10, 4]]), np.array([3, 3, 7, 7])
    balls = Balls.fit(np.r_[x, [[99.0, 99.0]]], np.r_[label, -1])
    np.testing.assert_allclose(balls.centres, [[1, 0], [10, 2]])
    np.testing.assert_allclose(balls.sd, [1, 2])  # over both coordinates, one degree of freedom
    mode, inside = balls.tell(np.array([[1.0, 2.9], [1, 3.1], [9.9, 2], [9.9, 8.1]]))
    assert mode.tolist() == [3, 3, 7, 7]
    assert inside.tolist() == [True, False, True, False]
    with pytest.raises(DataError, match="none has a label"):
        Balls.fit(x, np.full(4, -1))


def test_mean_distance_is_that_of_all_pairs():
    x = normal(0, 37, 3)
    full = np.sqrt(np.square(x[:, None] - x[None]).sum(-1))
    assert mean_distance(x) == pytest.approx(full.sum() / (37 * 36))


def test_diversity_is_the_mean_ratio_over_modes():
    real, code = normal(0, 300, 4), np.repeat([0, 1, 2], 100)
    fake = real.copy()
    fake[code == 1] *= 0.5
    fake[code == 2] = fake[code == 2][0]
    assert class_diversity(fake, code, real, code) == pytest.approx((1 + 0.5 + 0) / 3)
    assert math.isnan(class_diversity(fake[:1], code[:1], real, code))


# ------------------------------------------------------------------------------ the table

def points(n, seed, spread=1.0, conditional=False):
    """Two classes on a line."""
    rng = np.random.default_rng(seed)
    label = rng.integers(2, size=n)
    x = np.c_[20.0 * label, np.zeros(n)] + spread * rng.normal(size=(n, 2))
    balls = Balls(np.array([0, 1]), np.array([[0.0, 0.0], [20.0, 0.0]]), np.ones(2))
    return Seen(x, *balls.tell(x), label if conditional else None)


def test_the_table_has_the_metrics_of_modes():
    train, test = points(400, 0, conditional=True), points(200, 1, conditional=True)
    rows = judge(points(200, 2, spread=2.0), train, test)
    assert all(set(row) == {k for k, v in KINDS.items() if v.group == "samples"}
               - {"label_accuracy"} | {"completeness"}
               for row in rows.values())
    assert rows["samples"]["modes"] == rows["held-out"]["modes"] == 2
    assert rows["samples"]["high_quality"] == pytest.approx(1 - math.exp(-9 / 8), abs=0.08)
    assert rows["held-out"]["high_quality"] == pytest.approx(0.989, abs=0.02)
    assert rows["samples"]["diversity"] == pytest.approx(2, abs=0.3)
    assert rows["held-out"]["diversity"] == pytest.approx(1, abs=0.15)
    assert rows["samples"]["mode_kl"] < 0.03


def test_a_lost_mode_and_labels_that_are_not_heeded_show():
    train, test = points(400, 0, conditional=True), points(200, 1, conditional=True)
    some = points(600, 2, conditional=True)
    one = some.take(np.flatnonzero(some.mode == 0)[:200])
    label = np.random.default_rng(0).integers(2, size=200)
    rows = judge(Seen(one.features, one.mode, one.inside, label), train, test)
    assert rows["samples"]["modes"] == 1 and rows["held-out"]["modes"] == 2
    assert rows["samples"]["mode_kl"] == pytest.approx(-math.log((train.label == 0).mean()))
    assert rows["samples"]["label_accuracy"] == pytest.approx((label == 0).mean())
    assert rows["held-out"]["label_accuracy"] == 1.0


def test_a_mode_is_reached_only_from_within():
    """Samples half-way between: nearest to some class, and in none."""
    train, test = points(400, 0, conditional=True), points(200, 1, conditional=True)
    mode = np.r_[np.zeros(100, np.int64), np.ones(100, np.int64)]
    between = Seen(np.array([10.0, 0.0]) + normal(3, 200, 2), mode, np.zeros(200, bool))
    row = judge(between, train, test)["samples"]
    assert row["modes"] == 0 and row["high_quality"] == 0
