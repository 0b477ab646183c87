"""Sample-quality metrics against closed forms, brute force and hand-made sets."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from latlas.core.errors import DataError
from latlas.metrics import arrays
from latlas.metrics.arrays import nearest
from latlas.metrics.distances import (
    density_coverage,
    frechet_distance,
    frechet_gaussian,
    kernel_distance,
    nearest_neighbour_test,
    precision_recall,
)


def normal(seed, n, d, shift=0.0):
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def brute(a, b):
    return np.sqrt(np.square(a[:, None] - b[None]).sum(-1))


@pytest.mark.parametrize("k", [1, 4])
def test_nearest_is_brute_force_over_many_blocks(monkeypatch, k):
    monkeypatch.setattr(arrays, "ROWS", 7)
    monkeypatch.setattr(arrays, "COLUMNS", 5)
    x = normal(0, 33, 3, shift=1e4)  # far from the origin: the expanded square must not lose digits
    distance, index = nearest(x, x, k, skip_self=True)
    full = brute(x, x)
    np.fill_diagonal(full, np.inf)
    np.testing.assert_array_equal(index, np.argsort(full, 1)[:, :k])
    np.testing.assert_allclose(distance, np.sort(full, 1)[:, :k], rtol=1e-6)


def test_copies_are_at_distance_zero():
    x = normal(1, 50, 20).astype(np.float32)
    assert (nearest(x, x[::-1])[0] == 0).all()


def test_frechet_of_axis_aligned_gaussians_is_known():
    a, b = np.array([1.0, 4.0, 0.0]), np.array([9.0, 1.0, 2.0])
    expected = 3 + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    value = frechet_gaussian(np.zeros(3), np.diag(a), np.ones(3), np.diag(b))
    assert value == pytest.approx(expected, abs=1e-12)


def test_frechet_agrees_with_scipy_matrix_root():
    rng = np.random.default_rng(2)
    a, b = (m @ m.T for m in rng.normal(size=(2, 6, 6)))
    mean = rng.normal(size=6)
    expected = mean @ mean + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert frechet_gaussian(mean, a, np.zeros(6), b) == pytest.approx(expected, rel=1e-8)


def test_frechet_from_features():
    x, y = normal(3, 400, 4), normal(4, 300, 4, shift=0.5) * 2
    moments = [(v.mean(0), np.cov(v.T)) for v in (x, y)]
    assert frechet_distance(x, y) == pytest.approx(frechet_gaussian(*moments[0], *moments[1]))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x[:, :1], x[:, :1] + 3) == pytest.approx(9)


def test_frechet_refuses_too_few_items():
    with pytest.raises(DataError, match="at least 9 examples a side, got 8"):
        frechet_distance(normal(0, 8, 8), normal(1, 50, 8))


@pytest.mark.parametrize(("bad", "words"), [
    (np.full((9, 2), np.nan), "9 of 9 examples hold NaN"),
    (np.zeros((9, 3)), "2 columns and second features 3"),
    (np.zeros(9), "got shape"),
])
def test_bad_features_are_named(bad, words):
    with pytest.raises(DataError, match=words):
        frechet_distance(normal(0, 9, 2), bad)


def test_kernel_distance_is_the_u_statistic():
    x, y = normal(5, 12, 3), normal(6, 9, 3, shift=1)

    def k(u, v):
        return (u @ v / 3 + 1) ** 3

    within_x = np.mean([k(u, v) for i, u in enumerate(x) for j, v in enumerate(x) if i != j])
    within_y = np.mean([k(u, v) for i, u in enumerate(y) for j, v in enumerate(y) if i != j])
    across = np.mean([k(u, v) for u in x for v in y])
    assert kernel_distance(x, y) == pytest.approx(within_x + within_y - 2 * across)


def test_kernel_distance_is_unbiased():
    values = [kernel_distance(normal(2 * s, 20, 2), normal(2 * s + 1, 20, 2)) for s in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    assert min(values) < 0


def test_precision_and_recall_by_hand():
    real = np.array([[0.0], [1], [2], [3], [100], [101], [102], [103]])
    fake = np.array([[0.5], [1.5], [2.5], [1.2], [50], [60]])
    # k = 1: real balls cover [-1, 4] and [99, 104]: four of six fakes. Fake balls have radii
    # .7, .3, 1, .3, 10, 10 around .5, 1.5, 2.5, 1.2, 50, 60: they reach 0, 1, 2, 3 of the real.
    precision, recall = precision_recall(real, fake, k=1)
    assert precision == pytest.approx(4 / 6)
    assert recall == pytest.approx(4 / 8)


def test_density_and_coverage_by_hand():
    real = np.array([[0.0], [10], [20], [31]])
    fake = np.array([[5.0], [5.5], [100], [-9]])
    # k = 1: radii 10, 10, 10, 11. Balls: [-10, 10], [0, 20], [10, 30], [20, 42].
    # Fakes lie in 2, 2, 0, 1 balls; the first two balls hold fakes.
    assert density_coverage(real, fake, k=1) == (pytest.approx(5 / 4), pytest.approx(1 / 2))


def test_precision_recall_is_brute_force_over_many_blocks(monkeypatch):
    monkeypatch.setattr(arrays, "ROWS", 13)
    monkeypatch.setattr(arrays, "COLUMNS", 17)
    real, fake, k = normal(9, 60, 2), normal(10, 50, 2, shift=1), 3
    real_radius, fake_radius = (np.sort(brute(v, v), 1)[:, k] for v in (real, fake))
    across = brute(real, fake)
    in_real = across <= real_radius[:, None]
    precision, recall = precision_recall(real, fake, k)
    density, coverage = density_coverage(real, fake, k)
    assert precision == in_real.any(0).mean()
    assert recall == (across <= fake_radius).any(1).mean()
    assert density == pytest.approx(in_real.sum(0).mean() / k)
    assert coverage == in_real.any(1).mean()


def test_density_and_coverage_of_equal_distributions():
    real, fake = normal(11, 1000, 8), normal(12, 1000, 8)
    density, coverage = density_coverage(real, fake)
    assert density == pytest.approx(1, abs=0.1)
    assert coverage == pytest.approx(1 - 2**-5, abs=0.02)


def test_collapsed_samples_are_precise_and_have_no_recall():
    real = normal(13, 300, 2)
    fake = 0.01 * normal(14, 300, 2)
    precision, recall = precision_recall(real, fake)
    assert precision == 1 and recall < 0.05
    assert density_coverage(real, fake)[1] < 0.2
    assert nearest_neighbour_test(real, fake)[0] > 0.9


def test_two_sample_on_one_distribution_is_a_coin():
    results = [nearest_neighbour_test(normal(2 * s, 100, 3), normal(2 * s + 1, 100, 3), seed=s,
                                      permutations=200) for s in range(60)]
    accuracy, p_value = np.array(results).T
    assert accuracy.mean() == pytest.approx(0.5, abs=0.02)
    assert 0.35 < p_value.mean() < 0.65  # p-values are uniform
    assert 0.2 < p_value.std() < 0.38


def test_two_sample_separates():
    accuracy, p_value = nearest_neighbour_test(normal(0, 80, 2), normal(1, 80, 2, shift=100))
    assert accuracy == 1
    assert p_value == pytest.approx(1 / 1001)


def test_two_sample_shows_copies_of_the_reference():
    real = normal(0, 200, 5)
    accuracy, p_value = nearest_neighbour_test(real, real + 1e-3)
    assert accuracy < 0.05
    assert p_value < 0.01


def test_two_sample_breaks_ties_fairly():
    """All examples equal: every neighbour is a tie, so neither class may be favoured."""
    rows = np.zeros((100, 2))
    results = [nearest_neighbour_test(rows, rows, permutations=1, seed=s) for s in range(30)]
    assert np.mean([accuracy for accuracy, _ in results]) == pytest.approx(0.5, abs=0.12)
