"""Distributions against torch.distributions, scipy, and sums over every level."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Bernoulli as TorchBernoulli

from latlas.core import distributions
from latlas.core.distributions import (
    Bernoulli,
    DiscretisedLogistic,
    Distribution,
    Normal,
    PointMass,
)
from latlas.core.noise import Noise, dequantise, derive
from latlas.core.space import Images, Table, parse_space


def test_normal_log_prob_is_scipys():
    mean, log_var, x = torch.randn(3, 4, 5), torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    ours = Normal(mean, log_var, event_dims=2).log_prob(x)
    truth = scipy.stats.norm.logpdf(x.double(), mean.double(), (0.5 * log_var.double()).exp())
    np.testing.assert_allclose(ours, truth.sum((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("distribution", [
    lambda p: Normal(p, torch.zeros(1), 3), lambda p: Bernoulli(p, 3),
    lambda p: DiscretisedLogistic(p, torch.zeros(1), 2 / 16, 3)])
def test_draws_of_one_item_are_scored_without_repeating_it(distribution):
    parameters, x = torch.randn(7, 4, 1, 2, 3), torch.randn(4, 1, 2, 3).sign()
    both = distribution(parameters).log_prob(x)
    assert both.shape == (7, 4)
    for k in range(7):
        torch.testing.assert_close(both[k], distribution(parameters[k]).log_prob(x))


@pytest.mark.parametrize("distribution", [
    lambda p: Normal(p, torch.zeros(1), 3), lambda p: Bernoulli(p, 3),
    lambda p: DiscretisedLogistic(p, torch.zeros(1), 2 / 16, 3)])
def test_autocast_rounds_networks_and_no_likelihood(distribution):
    parameters, x = 3 * torch.randn(50, 1, 28, 28), torch.randn(50, 1, 28, 28).sign()
    plain = distribution(parameters).log_prob(x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = distribution(parameters).log_prob(x)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, rtol=1e-6, atol=1e-3)


def test_normal_draws_have_its_moments():
    draws = Normal(torch.full((200_000, 1), 3.0), torch.tensor([[-1.0]])).sample(Noise(0))
    assert abs(draws.mean() - 3.0) < 4 * np.exp(-0.5) / np.sqrt(200_000)
    assert abs(draws.var() - np.exp(-1.0)) < 0.01


def test_bernoulli_is_torchs_and_stable():
    logits = torch.cat([torch.randn(50), torch.tensor([-200.0, 200.0])])[:, None]
    x = torch.cat([torch.randn(50).sign(), torch.tensor([-1.0, 1.0])])[:, None]
    truth = TorchBernoulli(logits=logits).log_prob((x + 1) / 2).sum(-1)
    torch.testing.assert_close(Bernoulli(logits).log_prob(x), truth)
    torch.testing.assert_close(Bernoulli(logits).mean, 2 * torch.sigmoid(logits) - 1)
    wrong = Bernoulli(torch.tensor([[200.0]])).log_prob(torch.tensor([[-1.0]]))
    assert wrong.item() == pytest.approx(-200.0)


@pytest.mark.parametrize("dims", [1, 7, 127, 784])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bernoulli_and_its_gradient_are_torchs_for_any_number_of_pixels(dims, dtype):
    """Of several draws against one x, gray values too, logits so large that products would be 0."""
    torch.manual_seed(0)
    logits = (20 * torch.randn(3, 5, dims)).to(dtype).requires_grad_()
    x = (2 * torch.rand(5, dims) - 1).requires_grad_()
    weights = torch.randn(3, 5)
    wide, gray = logits.detach().double().requires_grad_(), x.detach().double().requires_grad_()
    truth = ((gray + 1) / 2 * wide - torch.nn.functional.softplus(wide)).sum(-1)
    ours = Bernoulli(logits).log_prob(x)
    torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-3)
    (weights * ours).sum().backward()
    (weights.double() * truth).sum().backward()
    coarse = {"rtol": 2**-7, "atol": 1e-6} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(logits.grad, wide.grad.to(dtype), **coarse)
    torch.testing.assert_close(x.grad, gray.grad.float(), rtol=1e-4, atol=1e-3)


def test_bernoulli_has_second_derivatives():
    logits = torch.randn(2, 3, dtype=torch.float64).float().requires_grad_()
    first, = torch.autograd.grad(Bernoulli(logits).log_prob(torch.ones(2, 3)).sum(), logits,
                                 create_graph=True)
    second, = torch.autograd.grad(first.sum(), logits)
    s = torch.sigmoid(logits.detach())
    torch.testing.assert_close(second, -s * (1 - s))


def test_draws_of_many_processes_are_those_of_one():
    normal = Normal(torch.randn(6, 2), torch.randn(6, 2))
    whole = normal.draws(4, Noise(0))
    assert whole.shape == (4, 6, 2) and not torch.equal(whole[0], whole[1])
    for rank in (0, 1):
        rows = slice(3 * rank, 3 * rank + 3)
        mine = Normal(normal.mean[rows], normal.log_var[rows]).draws(4, Noise(0, "cpu", rank, 2))
        assert torch.equal(mine, whole[:, rows])


def test_bernoulli_draws_are_ink_or_not():
    draws = Bernoulli(torch.full((100_000, 1), 1.0)).sample(Noise(1))
    assert set(draws.unique().tolist()) == {-1.0, 1.0}
    assert abs((draws == 1).float().mean() - torch.sigmoid(torch.tensor(1.0))) < 0.006


def levels_of(levels: int) -> torch.Tensor:
    return torch.linspace(-1, 1, levels)[:, None]


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("location", [-30.0, -1.0, -0.9931, 0.0, 0.37, 1.0, 4.0])
@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 3.0])
def test_probabilities_of_all_levels_sum_to_one(levels, location, log_scale):
    p = DiscretisedLogistic(torch.full((levels, 1), location), torch.full((levels, 1), log_scale),
                            2 / (levels - 1), 1)
    total = p.log_prob(levels_of(levels)).double().exp().sum()
    assert total.item() == pytest.approx(1.0, abs=5e-5)  # fp32


@pytest.mark.parametrize("location, log_scale", [(0.1, -2.0), (-0.95, -1.0), (-6.0, -1.0)])
def test_discretised_logistic_is_the_difference_of_scipys_cdf(location, log_scale):
    x, step = levels_of(17), 2 / 16
    logistic = scipy.stats.logistic(location, np.exp(log_scale))
    edges = np.concatenate([[-np.inf], (x[:-1, 0] + step / 2).double(), [np.inf]])
    # differences of whichever tail is the smaller keep their digits
    truth = np.maximum(np.diff(logistic.cdf(edges)), -np.diff(logistic.sf(edges)))
    p = DiscretisedLogistic(torch.tensor([location]), torch.tensor([log_scale]), step, 1)
    np.testing.assert_allclose(p.log_prob(x), np.log(truth), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("location", [-50.0, -1.0, 0.3, 50.0])
@pytest.mark.parametrize("log_scale", [-7.0, 0.0, 5.0])
def test_discretised_logistic_has_finite_gradients(location, log_scale):
    a = torch.full((256, 1), location, requires_grad=True)
    b = torch.full((256, 1), log_scale, requires_grad=True)
    log_p = DiscretisedLogistic(a, b, 2 / 255, 1).log_prob(levels_of(256))
    log_p.sum().backward()
    assert log_p.isfinite().all() and a.grad.isfinite().all() and b.grad.isfinite().all()
    assert a.grad.abs().sum() > 0


@pytest.mark.parametrize("draws", [(), (3,)])
@pytest.mark.parametrize("part", [1, 50, 1 << 15])
def test_discretised_logistic_has_the_derivatives_of_its_formula(draws, part, monkeypatch):
    """In parts of any size, for every draw, in any memory layout, of first and last bins too."""
    monkeypatch.setattr(distributions, "PART", part)
    x = torch.randint(0, 4, (5, 2, 4, 3)) / 1.5 - 1
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    a, b = (torch.randn(*draws, *x.shape).requires_grad_() for _ in range(2))
    log_p = DiscretisedLogistic(a, b, 2 / 3).log_prob(x)
    wide = [t.double() for t in (x, a, b)]
    upper, lower = ((wide[0] + s / 3 - wide[1]) * torch.exp(-wide[2]) for s in (1, -1))
    truth = (torch.where(x > 0.9, 1.0, upper.sigmoid())
             - torch.where(x < -0.9, 0.0, lower.sigmoid())).log().sum((-3, -2, -1))
    torch.testing.assert_close(log_p.double(), truth, rtol=1e-5, atol=1e-4)
    weight = torch.randn(log_p.shape)
    for mine, theirs in zip(*(torch.autograd.grad((weight * value).sum(), (x, a, b))
                              for value in (log_p, truth)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_discretised_logistic_draws_follow_its_probabilities():
    n = 100_000
    p = DiscretisedLogistic(torch.full((n, 1), 0.6), torch.full((n, 1), -1.5), 0.5, 1)
    draws = p.sample(Noise(2))
    x = torch.linspace(-1, 1, 5)[:, None]
    truth = DiscretisedLogistic(torch.tensor([0.6]), torch.tensor([-1.5]), 0.5, 1).log_prob(x)
    share = (draws == x.T).float().mean(0)
    torch.testing.assert_close(share, truth.exp(), atol=0.006, rtol=0)
    assert share.sum() == 1


def test_a_point_mass_has_a_mean_and_no_density():
    p = PointMass(torch.ones(2, 3))
    assert torch.equal(p.sample(Noise(0)), p.mean)
    assert isinstance(p, Distribution)
    with pytest.raises(TypeError, match="no density"):
        p.log_prob(p.mean)


def test_dequantised_integers_fill_their_bin_evenly():
    x = torch.zeros(100_000, 1)
    u = dequantise(x, 0.5, Noise(0))
    assert u.min() >= -0.25 and u.max() < 0.25
    assert scipy.stats.kstest(u[:, 0], "uniform", (-0.25, 0.5)).pvalue > 1e-3
    assert dequantise(x, 0.0, Noise(0)) is x


def test_derived_seeds_depend_on_every_part():
    seeds = {derive(0, "step", k) for k in range(1000)} | {derive(1, "step", 0), derive(0, "s", 0)}
    assert len(seeds) == 1002
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_uniform_density_over_all_levels_is_log2_levels_bits(levels):
    """Density 1/L over [−½, L−½] in data units, from its value in model units."""
    space = Images((3, 2, 2), levels)
    width = levels * space.step
    nats = -space.dims * np.log(width) - space.log_volume
    assert -nats / space.dims / np.log(2) == pytest.approx(np.log2(levels))


def test_units_of_a_table_go_there_and_back():
    space = Table.of_numbers(2, (1.0, 5.0), (2.0, 10.0))
    x = np.array([[3.0, -5.0]], np.float32)
    np.testing.assert_allclose(space.to_model(x), [[1.0, -1.0]])
    np.testing.assert_allclose(space.to_data(space.to_model(x)), x)
    assert space.log_volume == pytest.approx(np.log(20.0))
    assert parse_space(space.to_json()) == space
