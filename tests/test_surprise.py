"""Members of the ensemble against exact densities, with gaps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.neighbors import NearestNeighbors

from latlas.core.mixed import GAP, MixedRows, patterns
from latlas.metrics import surprise


def rows_of(n=300, gaps=0.0, seed=0):
    """Three dependent numbers, and a word that follows the first."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)) @ np.array([[1, 0.6, 0.2], [0, 0.8, 0], [0, 0, 0.5]])
    codes = (x[:, :1] + 0.5 * rng.normal(size=(n, 1)) > 0).astype(np.int64)
    rows = MixedRows(x, codes, (2,), ("a", "b", "c", "word"))
    return rows.only(rng.random((n, 4)) >= gaps)


def test_the_gaussian_of_the_numbers_that_are_there_is_exact():
    numbers = MixedRows.of_numbers(rows_of().numbers)
    model = surprise.MixedGaussian.of(numbers)
    there = np.random.default_rng(1).random((300, 3)) < 0.6
    nats = model(numbers.only(there))
    for i in range(60):
        expected = -stats.multivariate_normal.logpdf(
            numbers.numbers[i, there[i]], model.mean[there[i]],
            model.covariance[np.ix_(there[i], there[i])]) if there[i].any() else 0.0
        assert nats[i] == pytest.approx(expected, abs=1e-9)


def test_chances_of_words_sum_to_one_and_follow_the_numbers():
    rows = rows_of(2000)
    model = surprise.MixedGaussian.of(rows)
    bare = model(rows.only([True, True, True, False]))
    each = [np.exp(bare - model(MixedRows(rows.numbers, np.full((2000, 1), k), (2,), rows.names)))
            for k in range(3)]
    np.testing.assert_allclose(sum(each), 1, rtol=1e-9)
    high = rows.numbers[:, 0] > 1
    assert each[1][high].mean() > 0.85 > 0.15 > each[1][rows.numbers[:, 0] < -1].mean()


def test_moments_with_gaps_are_those_of_whole_rows():
    rows = rows_of(6000).numbers
    holes = rows.copy()
    holes[:, 1][rows[:, 0] > 0.5] = np.nan  # missing by what is there
    mean, covariance = surprise.moments_with_gaps(holes, 200)
    np.testing.assert_allclose(mean, rows.mean(0), atol=0.04)
    np.testing.assert_allclose(covariance, np.cov(rows.T), atol=0.06)
    np.testing.assert_allclose(surprise.moments_with_gaps(rows)[1], np.cov(rows.T))


def test_neighbours_are_scikit_learns_without_the_row_itself():
    x = np.random.default_rng(2).normal(size=(200, 4))
    memory = surprise.Nearest.of(MixedRows.of_numbers(x))
    own = NearestNeighbors(n_neighbors=6).fit(x).kneighbors(x)[0][:, 1:]
    np.testing.assert_allclose(memory.nearest(MixedRows.of_numbers(x), 5), own, atol=1e-6)
    new = x[:50] + 0.1
    theirs = NearestNeighbors(n_neighbors=5).fit(x).kneighbors(new)[0]
    np.testing.assert_allclose(memory.nearest(MixedRows.of_numbers(new), 5), theirs, atol=1e-6)


def test_squared_distances_over_gaps_are_those_expected():
    rng = np.random.default_rng(3)
    x, new = rng.normal(size=(4000, 3)), rng.normal(size=(20, 3))
    gap = rng.random((4000, 3)) < 0.3
    holes = surprise.Nearest.of(MixedRows.of_numbers(np.where(gap, np.nan, x)))
    whole = surprise.Nearest.of(MixedRows.of_numbers(x))
    a, b = (m.squares(MixedRows.of_numbers(new)).mean(1) for m in (holes, whole))
    np.testing.assert_allclose(a, b, rtol=0.05)


def test_diffusion_time_is_the_posterior_mean():
    """By quadrature over σ² of the mixture of Gaussians at the remembered rows."""
    rng = np.random.default_rng(4)
    x, new = rng.normal(size=(20, 6)), rng.normal(size=(5, 6))
    control = surprise.DiffusionTime(surprise.Nearest.of(MixedRows.of_numbers(x)))
    variance = np.geomspace(1e-3, 1e7, 400_001)
    expected = []
    for row in new:
        far = np.sort(np.square(row - x).sum(1))[:19]
        density = sum(variance**-3.0 * np.exp(-r / (2 * variance)) for r in far)
        step = np.gradient(variance)
        expected.append(np.log((variance * density * step).sum() / (density * step).sum()))
    result = control(MixedRows.of_numbers(new))
    np.testing.assert_allclose(result - result[0], np.array(expected) - expected[0], atol=1e-2)


@pytest.mark.parametrize("gaps", [0.05, 0.3])
def test_gaps_say_nothing_in_the_score(gaps):
    """Calibrated for the columns that are there; without that a row with gaps has fewer terms."""
    from sklearn.metrics import roc_auc_score

    train, rows = rows_of(2000, gaps), rows_of(2000, gaps, 1)
    members = {"columns": surprise.Frequencies.of(train),
               "gaussian": surprise.MixedGaussian.of(train), "nearest": surprise.Nearest.of(train)}
    ensemble = surprise.Ensemble(members, dict.fromkeys(members, 1.0), train)
    gap = ~rows.observed.all(1)
    assert abs(roc_auc_score(gap, ensemble(rows)) - 0.5) < 0.05
    assert abs(roc_auc_score(gap, members["columns"](rows)) - 0.5) > 0.1
    alone = np.concatenate([ensemble(rows.take([i])) for i in range(20)])
    np.testing.assert_allclose(alone, ensemble(rows)[:20], rtol=1e-9)


def test_contributions_add_up_where_columns_are_independent():
    rows = MixedRows.of_numbers(np.random.default_rng(5).normal(size=(50, 3)))
    model = surprise.MixedGaussian(np.zeros(3), np.diag([1.0, 4.0, 9.0]), (), 0.1)
    alone, after = surprise.contributions(model, rows, range(3))
    np.testing.assert_allclose(alone, after, atol=1e-9)
    np.testing.assert_allclose(alone.sum(1), model(rows))


def test_patterns_name_each_rows_gaps():
    observed = np.random.default_rng(6).random((100, 11)) < 0.7
    sets, which = patterns(observed)
    np.testing.assert_array_equal(sets[which], observed)
    assert patterns(np.ones((3, 2), bool))[0].tolist() == [[True, True]]
    rows = rows_of(5).only([True, False, False, False])
    assert np.isnan(rows.numbers[:, 1:]).all() and (rows.codes == GAP).all()
