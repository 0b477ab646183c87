"""Likelihood summaries, latents and reconstruction errors against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from latlas.core.errors import DataError
from latlas.metrics import latent_space, likelihood, paired


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def test_summary():
    s = likelihood.summary(np.array([1.0, 2.0, 3.0, 4.0]))
    assert (s.mean, s.n) == (2.5, 4)
    assert s.standard_error == pytest.approx(math.sqrt(5 / 3) / 2)
    assert math.isnan(likelihood.summary(np.array([1.0])).standard_error)
    with pytest.raises(DataError, match="no values"):
        likelihood.summary(np.array([]))


def test_bits_per_dim_of_a_uniform_byte_is_eight():
    nats = np.full(3, -784 * math.log(256))
    np.testing.assert_allclose(likelihood.bits_per_dim(nats, 784), 8)


def test_log_mean_exp():
    x = normal(0, 5, 3)
    np.testing.assert_allclose(likelihood.log_mean_exp(x), np.log(np.exp(x).mean(0)))
    np.testing.assert_allclose(likelihood.log_mean_exp(x, 1), np.log(np.exp(x).mean(1)))
    assert likelihood.log_mean_exp(np.array([-5000.0, -5000.0])) == pytest.approx(-5000)


@pytest.mark.parametrize(("weights", "size"), [
    ([1, 1, 1, 1], 4), ([1, 0, 0, 0], 1), ([1, 1, 0, 0], 2), ([3, 1], 16 / 10)])
def test_effective_sample_size(weights, size):
    with np.errstate(divide="ignore"):
        log_w = np.log(np.array(weights, float))
    assert likelihood.effective_sample_size(log_w) == pytest.approx(size)
    assert likelihood.effective_sample_size(log_w - 9000) == pytest.approx(size)


def test_effective_sample_size_along_an_axis():
    log_w = normal(1, 6, 2)
    w = np.exp(log_w)
    np.testing.assert_allclose(likelihood.effective_sample_size(log_w),
                               w.sum(0) ** 2 / (w**2).sum(0))


def test_diagonal_gaussian_is_scipy():
    train, test = normal(2, 200, 2, 2) * 3 + 1, normal(3, 20, 2, 2)
    flat = train.reshape(200, 4)
    expected = multivariate_normal(flat.mean(0), np.diag(flat.var(0))).logpdf(test.reshape(20, 4))
    np.testing.assert_allclose(likelihood.diagonal_gaussian(train, test), expected)


def test_binned_gaussian_is_a_probability():
    """Over all integers it sums to one, and every bin is a difference of two cdf values."""
    train = np.random.default_rng(4).integers(0, 16, (300, 1))
    values = np.arange(-200, 217)[:, None]
    log_p = likelihood.diagonal_gaussian(train, values, step=1)
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-12)
    law = norm(train.mean(), math.sqrt(train.var() + 1 / 12))
    expected = law.cdf(7.5) - law.cdf(6.5)
    assert log_p[values[:, 0].tolist().index(7)] == pytest.approx(math.log(expected))
    assert np.isfinite(log_p).all()


def test_binned_gaussian_bounds_the_dequantised_density():
    rng = np.random.default_rng(5)
    x = rng.binomial(16, 0.4, (2000, 3))
    dequantised = x + rng.random(x.shape) - 0.5
    loose = likelihood.diagonal_gaussian(dequantised, dequantised).mean()
    binned = likelihood.diagonal_gaussian(x, x, step=1).mean()
    assert loose < binned < loose + 0.1


def test_constant_column_is_named_unless_binned():
    train = normal(6, 10, 3)
    train[:, 1] = 4
    with pytest.raises(DataError, match="column 1"):
        likelihood.diagonal_gaussian(train, train)
    assert np.isfinite(likelihood.diagonal_gaussian(train, train, step=1)).all()


def test_active_units():
    means = normal(7, 1000, 4) * np.array([1, 0.2, 0.05, 0])
    assert latent_space.active_units(means) == 2
    assert latent_space.active_units(means, np.var(means[:, 1], ddof=1) - 1e-9) == 2
    assert latent_space.active_units(means, np.var(means[:, 1], ddof=1) + 1e-9) == 1


def test_the_channel_is_exact_for_normals_and_knows_no_prior():
    rng = np.random.default_rng(0)
    means = rng.normal(7, [3.0, 0.0], (50_000, 2))  # far from N(0, 1); the second says nothing
    found = latent_space.channel(means, np.log([[1.0, 4.0]]) + np.zeros_like(means))
    np.testing.assert_allclose(found, [0.5 * np.log(1 + 9 / 1), 0], atol=0.01)


def test_kl_per_dim_against_an_integral():
    grid = np.linspace(-15, 15, 200_001)
    q, p = norm(0.7, math.exp(-0.6)), norm()
    integral = np.trapezoid(q.pdf(grid) * (q.logpdf(grid) - p.logpdf(grid)), grid)
    kl = latent_space.kl_per_dim(np.full((3, 2), [0.7, 0.0]), np.full((3, 2), [-1.2, 0.0]))
    np.testing.assert_allclose(kl, [integral, 0], atol=1e-8)


def test_mutual_information_of_a_gaussian_channel():
    """x ~ N(0, 1), z = x + σε: I = ½ log(1 + 1/σ²) for each of two independent dimensions."""
    means, variance = normal(8, 2000, 2), 0.25
    parts = latent_space.elbo_surgery(means, np.full_like(means, math.log(variance)))
    assert parts["information"].mean() == pytest.approx(math.log(1 + 1 / variance), abs=0.06)


def test_mutual_information_at_its_ends():
    means = np.arange(64.0)[:, None]
    sharp = latent_space.elbo_surgery(means, np.full((64, 1), -12.0))
    assert sharp["information"].mean() == pytest.approx(math.log(64), abs=1e-6)
    collapsed = latent_space.elbo_surgery(np.zeros((64, 1)), np.zeros((64, 1)))
    assert collapsed["information"].mean() == pytest.approx(0, abs=1e-12)


def test_reconstruction_errors():
    x = np.zeros((2, 1, 2, 2), np.uint8)
    y = x.copy()
    y[0, 0, 0] = [2, 4]  # squares 4, 16 over 4 scalars; unsigned bytes must not wrap around
    np.testing.assert_allclose(paired.mse(x, y), [5, 0])
    np.testing.assert_allclose(paired.l1(x, y), [1.5, 0])
    psnr = paired.psnr(x, y, 255)
    assert psnr[0] == pytest.approx(10 * math.log10(255**2 / 5))
    assert psnr[1] == math.inf


def test_reconstruction_shapes_must_agree():
    with pytest.raises(DataError, match=r"\(2, 3\), the data \(2, 4\)"):
        paired.mse(np.zeros((2, 4)), np.zeros((2, 3)))
    with pytest.raises(DataError, match="peak"):
        paired.psnr(np.zeros((2, 4)), np.zeros((2, 4)), 0)
