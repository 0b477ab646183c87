"""Histograms by hand, weights by their formulas, and the guard of the effective sample size."""

from __future__ import annotations

import numpy as np
import pytest

from latlas.core.errors import ConfigError, DataError
from latlas.metrics import rarity


def spread() -> np.ndarray:
    """60 latents in two bins a dimension: 45 and 15 of the first, 30 and 30 of the second."""
    first = np.repeat([0.0, 4.0], [45, 15])
    return np.stack([first, np.tile([0.0, 1.0], 30)], 1)


def test_a_histogram_by_hand():
    """Ranges 4 and 1 in two bins: widths 2 and 1/2."""
    found = rarity.densities(spread(), bins=2) / spread().std(0)
    np.testing.assert_allclose(found[:45, 0], 45 / (60 * 2))
    np.testing.assert_allclose(found[45:, 0], 15 / (60 * 2))
    np.testing.assert_allclose(found[:, 1], 30 / (60 * 0.5))


def test_a_density_is_numpys():
    codes = np.random.default_rng(0).normal(size=(500, 3))
    found = rarity.densities(codes)
    for column, mine in zip(rarity.standardised(codes).T, found.T, strict=True):
        density, edges = np.histogram(column, 10, density=True)
        np.testing.assert_allclose(mine, density[np.digitize(column, edges[1:-1])])


def test_standardised_codes_have_unit_variance():
    z = rarity.standardised(spread())
    np.testing.assert_allclose(z.std(0), 1)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-12)


def test_weights_by_hand():
    """1/(0.1 + 0.1) · 1/(0.4 + 0.1) = 10, 1/0.2 · 1/0.2 = 25; the larger factor is 5 in both."""
    density = np.array([[0.1, 0.4], [0.1, 0.1]])
    product = rarity.tempered_weights(density, "product", 0.1)
    np.testing.assert_allclose(product, np.array([10, 25]) / 17.5)
    np.testing.assert_allclose(rarity.tempered_weights(density, "maximum", 0.1), [1, 1])
    density = np.array([[0.9, 0.4], [0.1, 0.9]])
    maximum = rarity.tempered_weights(density, "maximum", 0.1)
    np.testing.assert_allclose(maximum, np.array([2, 5]) / 3.5)


def test_the_product_of_many_dimensions_does_not_overflow():
    density = np.full((60, 400), 1e-3)
    density[0] = 1e-4
    assert np.isfinite(rarity.tempered_weights(density, "product", 1e-6)).all()


def test_densities_within_a_class_do_not_see_the_others():
    rng = np.random.default_rng(1)
    latents = np.concatenate([rng.normal(size=(80, 2)), rng.normal(5, 2, size=(70, 2))])
    groups = np.repeat([3, 7], [80, 70])
    both = rarity.densities(latents, groups)
    np.testing.assert_array_equal(both[:80], rarity.densities(latents[:80]))
    np.testing.assert_array_equal(both[80:], rarity.densities(latents[80:]))


def test_small_classes_are_taken_together():
    groups = np.repeat([0, 1, 2, 3], [60, 20, 30, 5])
    assert [len(rows) for rows in rarity.members(groups)] == [55, 60]


@pytest.mark.parametrize("form", ["product", "maximum", "loss"])
def test_alpha_is_the_least_that_keeps_the_share(form):
    rng = np.random.default_rng(2)
    values = rng.exponential(size=1000) ** 4 if form == "loss" else rarity.densities(
        rng.standard_t(2, size=(1000, 12)))
    alpha = rarity.guarded(values, form, 0.6, np.inf).alpha
    assert alpha > rarity.ALPHAS[0]
    assert rarity.effective_share(rarity.tempered_weights(values, form, alpha)) >= 0.6
    assert rarity.effective_share(rarity.tempered_weights(values, form, alpha / 1.01)) < 0.6


def test_without_the_guard_the_product_leaves_few_items():
    """What was measured of the published formula: under 1% at α = 0.001."""
    codes = np.random.default_rng(3).standard_normal((2000, 16))
    density = rarity.densities(codes)
    assert rarity.effective_share(rarity.tempered_weights(density, "product", 1e-3)) < 0.02
    found = rarity.guarded(density, "product", 0.2, 20)
    assert found.share >= 0.2 and found.weights.mean() == pytest.approx(1)
    assert "effective sample 20% of 2,000 examples" in found.words


def test_clipping_is_told():
    values = np.ones((100, 1))
    values[0] = 1e-4
    result = rarity.guarded(values, "product", 0.2, 5, alpha=1e-3)
    assert result.cut == 0.01
    assert result.weights.max() == pytest.approx(5 / ((5 + 99 * result.weights[1] / (
        result.weights[0] / 5)) / 100), rel=1e-6)


def test_a_minority_far_off_weighs_more():
    rng = np.random.default_rng(4)
    latents = rng.standard_normal((1000, 4))
    outlier = np.arange(1000) < 40
    latents[outlier] += (4, 0, 0, 4)
    for form in ("product", "maximum"):
        w = rarity.guarded(rarity.densities(latents), form).weights
        assert w[outlier].mean() > 2 * w[~outlier].mean()


def test_a_loss_is_smoothed_over_neighbours_of_the_same_class():
    latents = np.concatenate([np.arange(60.0), np.arange(60.0)])[:, None]
    groups = np.repeat([0, 1], 60)
    values = np.zeros(120)
    values[30] = 3.0
    result = rarity.smoothed(values, latents, groups, 3)
    np.testing.assert_allclose(np.flatnonzero(result), [29, 30, 31])
    np.testing.assert_allclose(result[30], 1.0)
    np.testing.assert_array_equal(rarity.smoothed(values, latents, groups, 1), values)


def test_of_a_large_group_some_are_asked(monkeypatch):
    monkeypatch.setattr(rarity, "REFERENCE", 30)
    latents = np.arange(60.0)[:, None]
    result = rarity.smoothed(np.arange(60.0), latents, np.zeros(60, int), 1)
    np.testing.assert_array_equal(result[::2], np.arange(0, 60, 2))
    np.testing.assert_allclose(np.abs(result - np.arange(60))[1::2], 1)


def test_what_cannot_be_weighed_is_said():
    with pytest.raises(DataError, match="no dimension of the latents varies"):
        rarity.standardised(np.ones((80, 3)))
    with pytest.raises(DataError, match="49 examples are too few for histograms"):
        rarity.densities(np.random.default_rng(0).normal(size=(49, 2)))
    with pytest.raises(ConfigError, match="form"):
        rarity.guarded(np.ones((60, 1)), "sum", 0.2)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        rarity.guarded(np.ones((60, 1)), "product", 1.5)


def test_a_dimension_that_does_not_vary_changes_nothing():
    codes = np.random.default_rng(5).normal(size=(100, 2))
    more = np.concatenate([codes, np.full((100, 1), 3.0)], 1)
    np.testing.assert_allclose(rarity.tempered_weights(rarity.densities(more), "product", 0.0),
                               rarity.tempered_weights(rarity.densities(codes), "product", 0.0))
