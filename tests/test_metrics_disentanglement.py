"""Disentanglement: the factors themselves, a rotation of them, shuffled labels, small cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from latlas.core.errors import DataError
from latlas.metrics import disentanglement as metrics

SIZES = (3, 6, 12, 20)
FIGURES = {"mig", "dci_disentanglement", "dci_completeness", "dci_informativeness", "sap",
           "factor_vae_score", "beta_vae_score", "modularity"}


@pytest.fixture(scope="module")
def factors():
    return np.random.default_rng(0).integers(0, SIZES, (4000, 4))


@pytest.fixture(scope="module")
def ceiling(factors):
    return metrics.disentanglement(metrics.oracle(factors, 6), factors)


def test_the_factors_themselves_score_one(ceiling):
    # SAP cannot reach 1: of a factor of v values the second best dimension still guesses 1/v
    best = dict.fromkeys(FIGURES, 1.0) | {"sap": 1 - np.mean([1 / v for v in SIZES])}
    assert ceiling == pytest.approx(best, abs=0.02)


def test_a_rotation_scores_lower_everywhere_but_keeps_what_is_known(factors, ceiling):
    low = metrics.disentanglement(metrics.rotated(metrics.oracle(factors, 6)), factors)
    for name in FIGURES - {"beta_vae_score", "dci_informativeness", "factor_vae_score"}:
        assert low[name] < 0.8 * ceiling[name], name
    assert low["factor_vae_score"] < ceiling["factor_vae_score"]
    assert low["mig"] < 0.2 and low["sap"] < 0.2
    assert low["dci_informativeness"] > 0.4


def test_shuffled_labels_score_nothing(factors):
    rng = np.random.default_rng(1)
    result = metrics.disentanglement(metrics.oracle(factors, 6), rng.permutation(factors))
    for name in ("mig", "dci_disentanglement", "sap", "modularity"):
        assert result[name] == pytest.approx(0, abs=0.04), name
    for name in ("factor_vae_score", "beta_vae_score"):
        assert result[name] == pytest.approx(1 / 4, abs=0.06), name
    assert result["dci_informativeness"] == pytest.approx(np.mean([1 / v for v in SIZES]), abs=0.03)


def test_the_scale_and_the_order_of_the_code_do_not_matter(factors):
    rng = np.random.default_rng(2)
    latents = metrics.oracle(factors, 6) + 0.2 * rng.standard_normal((len(factors), 6))
    shared = [metrics.mutual_information(metrics.prepared(z), factors) for z in (
        latents, latents[:, ::-1] * [1, 0.5, 0.5, 0.5, 2, 3] + 7)]
    np.testing.assert_allclose(shared[0], shared[1][::-1], atol=1e-9)


def test_mutual_information_of_a_channel_that_errs():
    """A bit told right with probability 0.9: log 2 − H(0.1) nats; of itself, log 2."""
    bit = np.repeat([0, 1, 0, 1], [450, 450, 50, 50])
    labels = np.repeat([0, 1, 1, 0], [450, 450, 50, 50])
    shared = metrics.mutual_information(np.c_[labels, bit].astype(float), bit[:, None])
    h = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    np.testing.assert_allclose(shared[:, 0], [math.log(2) - h, math.log(2)])
    assert metrics.mig(shared, bit[:, None]) == pytest.approx(h / math.log(2))
    assert metrics.mig(shared[1:], bit[:, None]) == pytest.approx(1)


def test_modularity_by_hand():
    """Ridgeway & Mozer's formula for two dimensions: 1 − (0.1/0.5)²/2 and 1 − (0.3² + 0.4²)/2·0.4².

    The third tells of nothing and is not counted.
    """
    v = np.stack(np.meshgrid(range(4), range(4), range(4), np.arange(25)), -1).reshape(-1, 4)[:, :3]
    shared = np.array([[0.5, 0.1, 0.0], [0.3, 0.4, 0.4], [0.001, 0.0, 0.0]])
    by_hand = [1 - 0.2**2 / 2, 1 - (0.3**2 + 0.4**2) / (2 * 0.4**2)]
    assert metrics.modularity(shared, v) == pytest.approx(np.mean(by_hand))


def test_entropies_of_importances_by_hand():
    rows = np.array([[1.0, 0, 0, 0], [1, 1, 0, 0], [2, 2, 2, 2], [0, 0, 0, 0]])
    np.testing.assert_allclose(metrics._sharpness(rows), [1, 0.5, 0, 0], atol=1e-12)
    assert metrics._sharpness(np.ones((3, 1))).tolist() == [1, 1, 1]


def test_balanced_accuracy_counts_classes_that_occur():
    truth, said = np.array([0, 0, 0, 0, 2, 2]), np.array([0, 0, 0, 1, 2, 0])
    assert metrics._balanced(truth, said) == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_few_items_leave_classes_out_without_a_word():
    """Warnings are errors: of 32 values some are learnt and never judged."""
    factors = np.random.default_rng(0).integers(0, (32, 32), (200, 2))
    assert metrics.disentanglement(metrics.oracle(factors, 3), factors)["mig"] > 0


def test_a_split_factor_is_disentangled_but_not_complete():
    """Two dimensions that hold one factor together: D and modularity 1, C and MIG less."""
    rng = np.random.default_rng(3)
    factors = rng.integers(0, (16, 4), (4000, 2))
    latents = np.c_[factors[:, 0] // 4, factors[:, 0] % 4, factors[:, 1]].astype(float)
    result = metrics.disentanglement(latents, factors)
    assert result["dci_disentanglement"] > 0.97 and result["modularity"] > 0.97
    assert result["dci_completeness"] < 0.75
    assert result["mig"] == pytest.approx(0.5, abs=0.02)  # 0 of the first, 1 of the second


def test_a_silent_dimension_carries_nothing():
    rng = np.random.default_rng(4)
    factors = rng.integers(0, (8, 8), (1000, 2))
    latents = np.c_[factors, 0.01 * factors[:, 0]].astype(float)
    assert (metrics.prepared(latents)[:, 2] == 0).all()
    assert metrics.disentanglement(latents, factors)["mig"] == pytest.approx(1, abs=0.05)
    nothing = metrics.disentanglement(np.zeros((1000, 3)), factors)
    assert nothing["mig"] == nothing["modularity"] == nothing["sap"] == 0
    assert nothing["dci_disentanglement"] == 0


def test_classes_of_factors():
    rng = np.random.default_rng(5)
    many, few = rng.normal(size=2000), rng.choice([0.1, 5.0, -2.0], 2000)
    classes = metrics.factor_classes(np.c_[many, few])
    assert np.bincount(classes[:, 0]).tolist() == [100] * 20
    assert (np.diff(classes[np.argsort(many), 0]) >= 0).all()
    np.testing.assert_array_equal(np.array([-2.0, 0.1, 5.0])[classes[:, 1]], few)


def test_a_rotation_keeps_lengths():
    latents = np.random.default_rng(6).normal(size=(500, 5)) * [1, 2, 3, 4, 1e-4]
    turned = metrics.rotated(latents, seed=1)
    np.testing.assert_allclose(np.square(turned).sum(1),
                               np.square(metrics.prepared(latents)).sum(1))
    assert not np.allclose(turned, metrics.rotated(latents, seed=2))


def test_what_cannot_be_judged_is_said():
    latents = np.random.default_rng(7).normal(size=(100, 3))
    varied = np.arange(100) % 5
    for factors, why in ((np.c_[varied, np.ones(100)], "factor 1 has the same value"),
                         (np.c_[varied, varied][:99], r"100 latents and factors \(99, 2\)"),
                         (varied[:, None], "two factors or more"),
                         (np.c_[varied, varied * np.nan], "NaN or infinity")):
        with pytest.raises(DataError, match=why):
            metrics.disentanglement(latents, factors)
    with pytest.raises(DataError, match="n ≥ 50"):
        metrics.disentanglement(latents[:20], np.c_[varied, varied][:20])


@pytest.mark.slow
def test_ten_thousand_codes_take_seconds():
    """All metrics, their ceiling and control, 10 dimensions and 5 factors, in under 30 s."""
    import time
    factors = np.random.default_rng(8).integers(0, (4, 6, 40, 32, 32), (10_000, 5))
    latents = metrics.oracle(factors, 10) + 0.3 * np.random.default_rng(9).normal(size=(10_000, 10))
    begun = time.process_time()
    metrics.disentanglement(latents, factors)
    assert time.process_time() - begun < 30
