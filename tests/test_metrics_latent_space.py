"""Completeness, continuity and the parts of the ELBO's KL, where the answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from latlas.core.errors import DataError
from latlas.metrics import latent_space as space
from latlas.metrics.distances import density_coverage, precision_recall, support_distance


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def averages(result):
    return {name: values.sum(-1).mean() if values.ndim == 2 else values.mean()
            for name, values in result.items()}


# ------------------------------------------------------------------------------ completeness

def test_support_distance_by_hand():
    real = np.array([[0.0], [1.0], [3.0]])  # reach of one neighbour: 1, 1, 2
    result = support_distance(real, np.array([[0.5], [-2.0], [5.0], [6.0]]), k=1)
    np.testing.assert_allclose(result, [0.5, 2, 1, 1.5])


def test_copies_in_the_data_have_no_reach_and_no_nan():
    real = np.array([[0.0], [0.0], [0.0], [5.0]])
    np.testing.assert_allclose(support_distance(real, np.array([[0.0], [11.0]]), 1), [0, 1.2])


def test_with_every_ball_the_support_is_that_of_precision():
    real, fake = normal(0, 300, 3), 1.4 * normal(1, 200, 3)
    for k in (1, 3, 5):
        inside = (support_distance(real, fake, k) <= 1).mean()
        assert inside == precision_recall(real, fake, k)[0]
        assert space.completeness(real, fake, k) < inside


def test_the_support_is_one_over_the_realism_score():
    """Kynkäänniemi et al. 2019, eq. 3, by brute force."""
    real, fake = normal(30, 80, 2), 2 * normal(31, 50, 2)
    apart = np.linalg.norm(real[:, None] - real, axis=-1)
    radii = np.sort(apart, 1)[:, 3]
    half = radii <= np.median(radii)
    realism = (radii[half] / np.linalg.norm(fake[:, None] - real[half], axis=-1)).max(1)
    np.testing.assert_allclose(space.reach(real, fake, 3), 1 / realism)


def test_a_lone_item_between_the_kinds_does_not_fill_the_gap():
    kinds = np.concatenate([normal(32, 200, 2), normal(33, 200, 2) + 30, [[15.0, 15.0]]])
    blur = 15 + normal(34, 200, 2)
    assert precision_recall(kinds, blur)[0] == 1
    assert space.completeness(kinds, blur) == 0


def test_a_collapsed_decoder_is_complete_and_covers_nothing():
    real = normal(2, 400, 2)
    one = np.median(real, 0) + 1e-3 * normal(3, 400, 2)
    assert space.completeness(real, one) == 1
    assert density_coverage(real, one)[1] < 0.1


def test_a_hole_in_the_latent_space_is_seen():
    """Two clusters; a line of draws from one to the other is covered only at its ends."""
    real = np.concatenate([normal(4, 200, 2), normal(5, 200, 2) + 40])
    line = np.linspace(0, 40, 400)[:, None] * np.ones(2)
    assert space.completeness(real, line) < 0.2
    assert space.completeness(real, normal(6, 400, 2)) > 0.5


# ------------------------------------------------------------------------------ continuity

def test_every_point_of_an_arc_is_a_draw_of_the_prior():
    factor = np.array([[2.0, 0], [1.5, 0.5]])
    centre = np.array([3.0, -1])
    a, b = (centre + normal(s, 40_000, 2) @ factor.T for s in (7, 8))
    path = space.arcs(a, b, centre, 5)
    np.testing.assert_allclose(path[:, 0], a)
    np.testing.assert_allclose(path[:, -1], b, atol=1e-12)
    for t in range(5):
        np.testing.assert_allclose(path[:, t].mean(0), centre, atol=0.04)
        np.testing.assert_allclose(np.cov(path[:, t].T), factor @ factor.T, rtol=0.05)


def test_an_isometry_moves_evenly():
    turn = np.linalg.qr(normal(9, 6, 2))[0]
    path = space.arcs(normal(10, 20, 2), normal(11, 20, 2), np.zeros(2), 33)
    result = space.continuity(space.lengths(3 * path @ turn.T), space.lengths(path), 0.5)
    assert result.median == pytest.approx(6) and result.high == pytest.approx(6)
    assert result.unevenness == pytest.approx(1)


def test_the_spectrum_of_a_linear_decoder_lies_between_its_singular_values():
    weights = np.diag([1.0, 4.0])
    path = space.arcs(normal(12, 200, 2), normal(13, 200, 2), np.zeros(2), 65)
    result = space.continuity(space.lengths(path @ weights), space.lengths(path), 1.0)
    assert 1 < result.median < result.high <= 4 + 1e-9
    assert result.high == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize(("decoder", "jump"), [(lambda z: 5.0 * (z > 0), 5.0), (lambda z: z, None)])
def test_a_jump_stays_when_the_steps_are_halved(decoder, jump):
    ends = np.array([[-1.0, 0.3]]), np.array([[1.0, 0.2]])
    result = []
    for points in (65, 129):
        path = space.arcs(*ends, np.zeros(2), points)
        examples = decoder(path[..., :1])
        continuity = space.continuity(space.lengths(examples), space.lengths(path), 1.0)
        result.append(continuity.largest_jump)
    expected = [jump, jump] if jump else [result[0], result[0] / 2]
    np.testing.assert_allclose(result, expected, rtol=0.02)


def test_a_decoder_that_does_not_move_has_no_unevenness():
    still = space.continuity(np.zeros((3, 4)), np.ones((3, 4)), 1.0)
    assert still.median == 0 and math.isnan(still.unevenness)


def test_continuity_needs_steps_and_distances():
    with pytest.raises(DataError, match="without rest"):
        space.continuity(np.ones(3), np.array([1.0, 0, 1]), 1.0)
    with pytest.raises(DataError, match="data without copies"):
        space.continuity(np.ones(3), np.ones(3), space.neighbour_distance(np.ones((4, 2))))
    with pytest.raises(DataError, match="two points"):
        space.arcs(np.ones((1, 2)), np.ones((1, 2)), np.zeros(2), 1)


def test_neighbour_distance_of_a_lattice():
    x, y = np.meshgrid(np.arange(6.0), np.arange(5.0))
    assert space.neighbour_distance(np.c_[x.ravel(), y.ravel()]) == 1


# ------------------------------------------------------------------------------ information

def gaussian(covariance, within, n, seed=0):
    """Posteriors N(m_i, within · I) whose aggregate is N(0, covariance)."""
    difference = np.asarray(covariance) - within * np.eye(len(covariance))
    rng = np.random.default_rng(90 + seed)
    means = rng.multivariate_normal(np.zeros(len(difference)), difference, n)
    return means, np.full_like(means, math.log(within))


def test_the_two_decompositions_are_exact():
    means, log_var = normal(14, 700, 3), 0.4 * normal(15, 700, 3) - 1
    found = averages(space.elbo_surgery(means, log_var))
    assert found["kl"] == pytest.approx(found["information"] + found["marginal_kl"])
    assert found["marginal_kl"] == pytest.approx(
        found["total_correlation"] + found["dimension_kl"])
    kl = space.kl_per_dim(means, log_var).sum()
    assert found["kl"] == pytest.approx(kl, rel=0.05)


def test_information_is_that_of_the_mixture_of_posteriors():
    means, log_var = normal(16, 600, 4), normal(17, 600, 4) - 2
    found = space.elbo_surgery(means, log_var, seed=5)["information"].mean()
    z = means + np.exp(log_var / 2) * np.random.default_rng(5).standard_normal(means.shape)
    density = norm.pdf(z[:, None], means, np.exp(log_var / 2)).prod(2)  # of draw i by posterior j
    assert found == pytest.approx((np.log(np.diag(density)) - np.log(density.mean(1))).mean())


def test_a_collapsed_posterior_gives_zero():
    result = averages(space.elbo_surgery(np.zeros((300, 4)), np.zeros((300, 4))))
    assert all(abs(value) < 1e-9 for value in result.values())


def test_a_standard_normal_aggregate_is_the_prior():
    """I of Gaussian channel: ½ log(1/within) a dimension; nothing else is left."""
    result = averages(space.elbo_surgery(*gaussian(np.eye(2), 0.5, 4000)))
    assert result["information"] == pytest.approx(math.log(2), abs=0.04)
    for name in ("marginal_kl", "total_correlation", "dimension_kl"):
        assert result[name] == pytest.approx(0, abs=0.01)


def test_a_correlated_aggregate_has_the_closed_forms():
    covariance = np.array([[1.0, 0.7], [0.7, 1.5]])
    means, log_var = gaussian(covariance, 0.3, 4000, seed=1)
    result = averages(space.elbo_surgery(means, log_var))
    tc = -0.5 * math.log(1 - 0.49 / 1.5)
    marginal = 0.5 * (np.trace(covariance) - 2 - math.log(np.linalg.det(covariance)))
    dims = 0.5 * (0.5 - math.log(1.5))
    information = 0.5 * math.log(np.linalg.det(covariance) / 0.3**2)
    assert result["total_correlation"] == pytest.approx(tc, abs=0.03)
    assert result["marginal_kl"] == pytest.approx(marginal, abs=0.04)
    assert result["dimension_kl"] == pytest.approx(dims, abs=0.04)
    assert result["information"] == pytest.approx(information, abs=0.06)
    assert result["information_upper"] == pytest.approx(information, abs=0.06)
    assert space.linear_total_correlation(means, log_var) == pytest.approx(tc, abs=0.03)


def test_what_log_n_cannot_hold_moves_to_the_other_terms():
    """Six nats of information and four examples in the mixture: the bounds still enclose it."""
    within, d = 0.05, 4
    information = -0.5 * d * math.log(within)
    for n, seed in ((16, 2), (60, 3)):
        result = averages(space.elbo_surgery(*gaussian(np.eye(d), within, n, seed)))
        assert result["information"] <= math.log(n) + 1e-9 < information
        assert result["information_upper"] > information
        assert result["marginal_kl"] > information - math.log(n) - 1


def test_a_prior_of_its_own():
    """Held against the aggregate itself, nothing of the KL is marginal."""
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    means, log_var = gaussian(covariance, 0.4, 3000, seed=4)
    law = multivariate_normal(np.zeros(2), covariance)
    result = averages(space.elbo_surgery(means, log_var, log_prior=law.logpdf))
    assert result["marginal_kl"] == pytest.approx(0, abs=0.01)
    assert result["kl"] == pytest.approx(result["information"] + result["marginal_kl"])


def test_linear_total_correlation():
    z = normal(18, 5000, 3)
    z[:, 1] = 0.8 * z[:, 0] + 0.6 * z[:, 1]
    assert space.linear_total_correlation(z) == pytest.approx(-0.5 * math.log(1 - 0.64), abs=0.04)
    still = np.c_[z, np.full(len(z), 2.0)]
    assert space.linear_total_correlation(still) == pytest.approx(space.linear_total_correlation(z))
    assert space.linear_total_correlation(np.c_[z, z[:, 0]]) > 10
    assert space.linear_total_correlation(z[:, :1]) == pytest.approx(0)
