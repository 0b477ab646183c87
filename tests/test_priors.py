"""Priors against scipy and Monte Carlo."""

import numpy as np
import pytest
import torch
from scipy import stats

from latlas.core.distributions import Normal
from latlas.core.noise import Noise
from latlas.models.priors import FullNormal, Prior, StandardNormal


def full():
    return FullNormal(torch.tensor([1.0, -2.0]), torch.tensor([[2.0, 0.0], [0.5, 0.3]]))


def test_a_full_normal_is_scipys():
    prior, z = full(), torch.randn(5, 7, 2, generator=torch.Generator().manual_seed(0))
    ours = prior.log_prob(z)
    covariance = (prior.factor @ prior.factor.T).numpy()
    theirs = stats.multivariate_normal(prior.mean.numpy(), covariance).logpdf(z.numpy())
    assert ours.shape == (5, 7)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_draws_of_a_full_normal_have_its_moments():
    prior = full()
    z = prior.sample(100_000, Noise(0))
    assert torch.allclose(z.mean(0), prior.mean, atol=0.02)
    assert torch.allclose(torch.cov(z.T), prior.factor @ prior.factor.T, atol=0.05)


@pytest.mark.parametrize("dims", [1, 4])
def test_the_one_draw_kl_is_the_closed_form_on_average(dims):
    q = Normal(torch.full((200_000, dims), 0.7), torch.tensor(-1.0))
    prior = StandardNormal(dims)
    exact = prior.kl(q, q.mean).sum(-1).mean()
    drawn = Prior.kl(prior, q, q.sample(Noise(1))).sum(-1)
    assert abs(drawn.mean() - exact) < 4 * drawn.std() / len(drawn)**0.5
