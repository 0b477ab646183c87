"""Divergences against torch.distributions and Monte Carlo; bounds against what they must do."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Normal as TorchNormal
from torch.distributions import kl_divergence

from latlas.core.distributions import Normal
from latlas.core.noise import Noise
from latlas.objectives.elbo import (
    ImportanceBound,
    free_bits,
    importance_bound,
    kl_standard_normal,
    permute_dims,
    total_correlation,
    trimmed_mean,
)


def normal():
    """Means and log variances."""
    torch.manual_seed(3)
    return torch.randn(6, 4), torch.randn(6, 4)


def test_kl_is_torchs():
    m, v = normal()
    q, unit = TorchNormal(m, (v / 2).exp()), TorchNormal(torch.zeros(()), torch.ones(()))
    torch.testing.assert_close(kl_standard_normal(m, v), kl_divergence(q, unit))


def test_kl_is_its_monte_carlo_average():
    m, v = normal()
    q, p = Normal(m, v), Normal(torch.zeros(1), torch.zeros(1))
    many = Normal(m.expand(20_000, 6, 4), v)
    z = many.sample(Noise(0))
    ratios = (q.log_prob(z) - p.log_prob(z)).double()
    error = ratios.std(0) / math.sqrt(20_000)
    difference = ratios.mean(0) - kl_standard_normal(m, v).sum(-1)
    assert (difference.abs() < 4.5 * error).all()


def test_kl_is_zero_at_the_prior_and_positive_elsewhere():
    zero = torch.zeros(3, 2)
    assert torch.equal(kl_standard_normal(zero, zero), zero)
    m, v = normal()
    assert (kl_standard_normal(m, v) > 0).all()


def test_kl_of_half_precision_networks_is_taken_in_single():
    m, v = normal()
    half = kl_standard_normal(m.bfloat16(), v.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, kl_standard_normal(m.bfloat16().float(),
                                                        v.bfloat16().float()))


def test_free_bits_charge_the_floor_and_push_nothing_below_it():
    kl = torch.tensor([[0.1, 2.0], [0.2, 4.0]], requires_grad=True)
    cost = free_bits(kl, 0.5)
    assert cost.tolist() == [3.5, 3.5]  # max(0.5, 0.15) + max(0.5, 3)
    cost.mean().backward()
    assert kl.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]
    assert torch.equal(free_bits(kl, 0.0), kl.sum(-1))


def test_importance_bound_by_hand():
    log_w = torch.tensor([[0.0, -800.0], [math.log(3.0), -800.0]])
    bound, ess = importance_bound(log_w)
    assert bound.tolist() == pytest.approx([math.log(2.0), -800.0])
    assert ess.tolist() == pytest.approx([16 / 10, 2.0])


def test_importance_bound_in_chunks_is_the_same():
    log_w = 30 * torch.randn(50, 7)
    bound = ImportanceBound()
    for part in log_w.split(8):
        bound.add(part)
    for mine, whole in zip(bound.result(), importance_bound(log_w), strict=True):
        torch.testing.assert_close(mine, whole)
    assert bound.draws == 50


def test_importance_bound_needs_draws():
    with pytest.raises(ValueError, match="no draws"):
        ImportanceBound().result()


def test_importance_bound_rises_with_draws_to_the_truth():
    """Weights w = exp(N(−½, 1)) have mean 1, so log p = 0; E log of one is −½."""
    rng = np.random.default_rng(0)
    log_w = torch.from_numpy(rng.normal(-0.5, 1.0, (64, 20_000)))
    means = [importance_bound(log_w[:k])[0].mean().item() for k in (1, 2, 4, 16, 64)]
    assert means[0] == pytest.approx(-0.5, abs=0.03)
    assert all(a < b for a, b in pairwise(means))
    assert -0.03 < means[-1] < 0


def test_a_trimmed_mean_gives_outliers_no_gradient():
    losses = torch.tensor([3.0, 900.0, 1.0, 2.0], requires_grad=True)
    trimmed = trimmed_mean(losses, 0.25)
    trimmed.backward()
    assert trimmed.item() == 2.0
    assert torch.equal(losses.grad, torch.tensor([1 / 3, 0.0, 1 / 3, 1 / 3]))
    assert trimmed_mean(losses, 0.0) == losses.mean()


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_total_correlation_is_that_of_a_gaussian(rho):
    """Codes N(0, [[1, ρ], [ρ, 1]]) have −½ log(1 − ρ²) nats; independent ones none."""
    spread, n = 0.3, 2000
    covariance = np.array([[1, rho], [rho, 1]]) - spread**2 * np.eye(2)
    rng = np.random.default_rng(0)
    mean = torch.from_numpy(rng.multivariate_normal([0, 0], covariance, n)).float()
    q = Normal(mean, torch.full((n, 2), 2 * math.log(spread)))
    result = total_correlation(q.sample(Noise(0)), q).mean().item()
    assert result == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.05)


def test_total_correlation_of_codes_that_never_overlap():
    """Every dimension tells all n examples apart: (d − 1) log n nats, each example the same."""
    n, dims = 16, 3
    q = Normal(100 * torch.arange(n)[:, None].expand(n, dims).float(), torch.zeros(n, dims))
    result = total_correlation(q.sample(Noise(1)), q)
    torch.testing.assert_close(result, torch.full((n,), (dims - 1) * math.log(n)))


def test_total_correlation_by_the_definition():
    """Against the densities of SciPy's normals, example by example."""
    m, v = normal()
    q = Normal(m, v)
    z = q.sample(Noise(5))
    density = stats.norm.pdf(z[:, None].numpy(), m.numpy(), np.exp(v.numpy() / 2))  # (n, n, d)
    by_hand = np.log(density.prod(-1).mean(1)) - np.log(density.mean(1)).sum(-1)
    np.testing.assert_allclose(total_correlation(z, q).numpy(), by_hand, rtol=1e-4)


def test_permuting_keeps_every_column_and_breaks_what_ties_them():
    z = torch.randn(4000, 1, generator=torch.Generator().manual_seed(1)).expand(-1, 3)
    mixed = permute_dims(z, Noise(2))
    torch.testing.assert_close(mixed.sort(0).values, z.sort(0).values)
    assert torch.corrcoef(mixed.T).fill_diagonal_(0).abs().max() < 0.06
    assert torch.equal(mixed, permute_dims(z, Noise(2)))
