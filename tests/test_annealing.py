"""Annealed importance sampling against a Gaussian bridge whose normaliser is known.

    log p(z) = log N(z; 0, I),   log p(x|z) = −½ |z − a|² / s²
"""

from __future__ import annotations

import math

import pytest
import torch

from latlas.core.distributions import Normal
from latlas.core.noise import Noise
from latlas.objectives.annealing import (
    Bridge,
    annealed_weights,
    pilot_steps,
    sigmoid_schedule,
    transition,
)
from latlas.objectives.elbo import importance_bound, mean_error, weighted_error

CENTRES = torch.tensor([[1.5, -0.5], [0.0, 3.0]])  # of two examples
SD = 0.3


def log_prior(z):
    return Normal(torch.zeros_like(z), torch.zeros(())).log_prob(z)


def log_likelihood(z):
    return -0.5 * (z - CENTRES).square().sum(-1) / SD**2


BRIDGE = Bridge(log_prior, log_likelihood)


def normaliser(beta=1.0):
    """log ∫ p(z) exp(β log p(x|z)) dz, (2,): per dimension a product of two Gaussians."""
    variance = SD**2 / beta
    return (-0.5 * CENTRES.square() / (1 + variance)
            + 0.5 * math.log(variance / (1 + variance))).sum(-1).double()


def posterior(beta, chains, noise):
    """Exact draws from p(z) p(x|z)^β / Z, (chains, 2, 2), and its mean and variance."""
    variance = 1 / (1 + beta / SD**2)
    mean = variance * beta / SD**2 * CENTRES
    return mean + variance**0.5 * noise.normal(chains, 2, 2), mean, variance


@pytest.mark.parametrize("size", [0.05, 0.9])
def test_a_transition_leaves_its_target_as_it_is(size):
    """With small steps, and with steps that are refused half the time."""
    noise, beta = Noise(0), 0.25
    z, mean, variance = posterior(beta, 20_000, noise)
    point, step = BRIDGE.at(z), torch.tensor(size)
    for _ in range(3):
        point, chance = transition(BRIDGE, point, beta, step, 4, noise)
    assert (chance.mean() > 0.99) if size < 0.1 else (0.2 < chance.mean() < 0.8)
    assert (point.z != z).any()
    torch.testing.assert_close(point.z.mean(0), mean, atol=5 * (variance / 20_000) ** 0.5, rtol=0)
    torch.testing.assert_close(point.z.var(0), torch.full((2, 2), variance), rtol=0.06, atol=0)
    torch.testing.assert_close(point.log_likelihood, log_likelihood(point.z))


@pytest.mark.parametrize("size", [0.1, 0.5])
def test_weights_average_to_the_normaliser_with_few_temperatures(size):
    """Unbiased however few the temperatures and however poor the steps (Neal 2001, section 2)."""
    noise, betas = Noise(1), sigmoid_schedule(6)
    start, steps = noise.normal(40_000, 2, 2), torch.full((5,), size)
    log_w, _ = annealed_weights(BRIDGE, start, betas, steps, 3, noise)
    relative = (log_w - normaliser()).exp()
    error = relative.std(0) / len(relative) ** 0.5
    assert (error < 0.1).all()
    assert ((relative.mean(0) - 1).abs() < 4 * error).all()


def test_many_temperatures_come_close_with_few_chains():
    noise, betas = Noise(2), sigmoid_schedule(400)
    steps = pilot_steps(BRIDGE, noise.normal(4, 2, 2), betas, 5, noise)
    lines = []
    log_w, accepted = annealed_weights(BRIDGE, noise.normal(32, 2, 2), betas, steps, 5, noise,
                                       lines.append)
    nats, ess = importance_bound(log_w)
    assert log_w.dtype == torch.float64 and log_w.shape == (32, 2)
    assert ((nats - normaliser()).abs() < 0.1).all()
    assert (ess > 24).all()
    assert ((accepted - 0.65).abs() < 0.1).all()
    assert lines == list(range(1, 401))


def test_one_temperature_is_naive_sampling():
    noise = Noise(3)
    start, betas = noise.normal(10, 2, 2), sigmoid_schedule(1)
    steps = pilot_steps(BRIDGE, start, betas, 5, noise)
    log_w, accepted = annealed_weights(BRIDGE, start, betas, steps, 5, noise)
    torch.testing.assert_close(log_w, log_likelihood(start).double())
    assert accepted.isnan().all()


def test_steps_shorten_as_the_target_narrows_and_items_have_their_own():
    """The second example's likelihood is ten times narrower."""
    bridge = Bridge(log_prior, lambda z: log_likelihood(z) * torch.tensor([1.0, 100.0]))
    steps = pilot_steps(bridge, Noise(4).normal(4, 2, 2), sigmoid_schedule(200), 5, Noise(5))
    assert steps.shape == (199, 2, 1)
    assert (steps[-1] < steps[0]).all()
    assert steps[-1, 1] < 0.3 * steps[-1, 0]


def test_paths_that_run_off_are_refused():
    point = BRIDGE.at(Noise(6).normal(8, 2, 2))
    after, chance = transition(BRIDGE, point, 1.0, torch.tensor(1e20), 3, Noise(7))
    assert (chance == 0).all() and torch.equal(after.z, point.z)


def test_schedule_rises_from_0_to_1_and_is_dense_at_both_ends():
    betas = torch.tensor(sigmoid_schedule(100))
    gaps = betas.diff()
    assert len(betas) == 101 and betas[0] == 0 and betas[-1] == 1
    assert (gaps > 0).all() and gaps[0] < 0.2 * gaps[50] and gaps[-1] < 0.2 * gaps[50]


def test_standard_errors_are_what_repeated_estimates_scatter_by():
    log_w = torch.randn(50, 20_000, generator=torch.Generator().manual_seed(0)).double() * 0.5
    nats, ess = importance_bound(log_w)
    assert weighted_error(ess, 50).mean() == pytest.approx(nats.std().item(), rel=0.05)
    assert mean_error(log_w).mean() == pytest.approx(log_w.mean(0).std().item(), rel=0.05)
    assert weighted_error(torch.ones(3), 1).isnan().all() and mean_error(log_w[:1]).isnan().all()
    assert (weighted_error(torch.full((3,), 7.0), 7) == 0).all()
