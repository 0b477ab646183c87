"""Copying is flagged, fresh draws are not, and the table puts both beside the samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from latlas.core.errors import DataError
from latlas.metrics.quality import control_split, data_copying, memorisation, quality
from latlas.metrics.table import KINDS

#: of data without labels; completeness stands beside the latent space
SAMPLE_METRICS = {k for k, kind in KINDS.items() if kind.group == "samples"} - {
    "modes", "mode_kl", "high_quality", "diversity", "label_accuracy"} | {"completeness"}


def normal(seed, n, d=4):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_copies_are_flagged_beyond_doubt():
    train = normal(0, 500)
    found = memorisation(train[:200], train, normal(1, 200))
    assert found["data_copying"] < -10
    assert (found["nearest_ratio"], found["near_copies"], found["authenticity"]) == (0, 1, 0)


def test_noisy_copies_are_flagged():
    train = normal(0, 500)
    found = memorisation(train[:200] + 0.02 * normal(2, 200), train, normal(1, 200))
    assert found["data_copying"] < -3
    assert found["authenticity"] < 0.05


def test_a_tenth_of_copies_shows_as_a_tenth():
    train, fresh = normal(0, 500), normal(2, 1000)
    mixed = np.concatenate([train[:100], fresh[:900]])
    found = memorisation(mixed, train, normal(1, 1000))
    assert found["near_copies"] == pytest.approx(0.11, abs=0.015)


def test_fresh_draws_are_not_flagged():
    """Also calibrated: over many repetitions the statistic is no wider than a standard normal."""
    sets = [(normal(3 * s, 150), normal(3 * s + 1, 300), normal(3 * s + 2, 150)) for s in range(60)]
    found = [memorisation(samples, train, held_out) for samples, train, held_out in sets]
    z = np.array([f["data_copying"] for f in found])
    assert abs(z.mean()) < 0.5
    assert 0.6 < z.std() < 1.25
    assert (z > -3).all()
    assert np.mean([f["nearest_ratio"] for f in found]) == pytest.approx(1, abs=0.05)
    turned = [memorisation(held_out, train, samples) for samples, train, held_out in sets]
    gap = [a["authenticity"] - b["authenticity"] for a, b in zip(found, turned, strict=True)]
    assert abs(np.mean(gap)) < 0.02


def test_underfitting_is_the_other_side():
    found = memorisation(3 * normal(0, 200), normal(1, 500), normal(2, 200))
    assert found["data_copying"] > 3
    assert found["nearest_ratio"] > 1.5


def test_statistic_is_the_standardised_mann_whitney():
    """Its two-sided normal p-value must be SciPy's, ties included."""
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 12, 60).astype(float), rng.integers(2, 14, 45).astype(float)
    expected = mannwhitneyu(a, b, method="asymptotic", use_continuity=False)
    z = data_copying(a, b)
    assert z < 0
    assert 2 * norm.sf(abs(z)) == pytest.approx(expected.pvalue, rel=1e-9)


def test_cells_are_weighted_by_held_out_items():
    rng = np.random.default_rng(1)
    a, b = rng.random(90), rng.random(120)
    cell_a, cell_b = np.repeat([0, 1, 2], [40, 40, 10]), np.repeat([0, 1, 2], [80, 30, 10])
    first, second = data_copying(a[:40], b[:80]), data_copying(a[40:80], b[80:110])
    expected = (80 * first + 30 * second) / 110  # the third cell is too small
    assert data_copying(a, b, cell_a, cell_b) == pytest.approx(expected)


def test_cells_find_copying_that_is_hidden_by_underfitting_elsewhere():
    """Two clusters: copied in one, spread out in the other; as a whole they cancel."""
    train = np.concatenate([normal(0, 400), normal(1, 400) + 50])
    held_out = np.concatenate([normal(2, 200), normal(3, 200) + 50])
    fake = np.concatenate([train[:200], 2.5 * normal(4, 200) + 50])
    whole = memorisation(fake, train, held_out, cells=1)
    assert abs(whole["data_copying"]) < 3
    assert whole["near_copies"] > 0.45


def test_authenticity_by_hand():
    train = np.array([[0.0], [1], [10]])
    # nearest examples 0, 10, 10; their own nearest others at 1, 9, 9; distances 2, 8, 9.5
    samples = np.array([[-2.0], [18], [19.5]])
    assert memorisation(samples, train, samples)["authenticity"] == pytest.approx(2 / 3)


def flat(x):
    return x.reshape(len(x), -1)


@pytest.fixture(scope="module")
def table():
    train, test = normal(5, 600).reshape(-1, 2, 2), normal(6, 250).reshape(-1, 2, 2)
    return quality(0.7 * normal(7, 400).reshape(-1, 2, 2), train, test, flat)


def test_table_has_every_figure_for_every_row(table):
    assert list(table) == ["samples", "held-out", "training copies"]
    assert all(set(row) == SAMPLE_METRICS for row in table.values())
    assert all(np.isfinite(v) for row in table.values() for v in row.values())
    assert {row["examples"] for row in table.values()} == {250}


def test_held_out_row_is_fine_and_training_copies_bad_only_where_it_copies(table):
    held_out, copied, samples = table["held-out"], table["training copies"], table["samples"]
    assert abs(held_out["data_copying"]) < 3
    assert held_out["two_sample_p"] > 0.01
    assert held_out["nearest_ratio"] == pytest.approx(1, abs=0.2)
    assert copied["data_copying"] < -10
    assert copied["near_copies"] == 1
    assert copied["authenticity"] == 0
    assert copied["frechet"] == pytest.approx(held_out["frechet"], abs=0.1)
    assert samples["frechet"] > 3 * held_out["frechet"]
    assert samples["recall"] < held_out["recall"]


def test_frechet_is_nan_with_too_few_items():
    train, test = normal(0, 60, 30), normal(1, 20, 30)
    rows = quality(normal(2, 20, 30), train, test, flat)
    assert np.isnan(rows["samples"]["frechet"])
    assert np.isfinite(rows["samples"]["precision"])


def test_control_rows_are_respected():
    """With a control of far-away examples, the held-out row must come from them."""
    train = normal(0, 100)
    train[:50] += 100
    rows = quality(normal(1, 40), train, normal(2, 40), flat, control=np.arange(50))
    assert rows["held-out"]["two_sample"] == 1
    assert rows["samples"]["two_sample"] < 0.8


def test_control_split_is_a_partition():
    fit, control = control_split(11)
    assert len(control) == 5
    np.testing.assert_array_equal(np.sort(np.concatenate([fit, control])), np.arange(11))


def test_diverged_samples_are_named():
    broken = normal(0, 40)
    broken[3] = np.nan
    with pytest.raises(DataError, match="samples features: 1 of 40"):
        quality(broken, normal(1, 100), normal(2, 40), flat)
    with pytest.raises(DataError, match="got 3 samples"):
        quality(broken[:3], normal(1, 100), normal(2, 40), flat)
