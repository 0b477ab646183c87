"""Flow matching against closed forms, and a flow as the prior of latents."""

import math

import numpy as np
import pytest
import tiny
import torch
from scipy import stats

from latlas.core.model import Batch, Step
from latlas.core.noise import Noise
from latlas.core.space import Images, Points, Space, Table
from latlas.data import open_source, split
from latlas.data.dataset import Dataset
from latlas.metrics.distances import frechet_distance, nearest_neighbour_test
from latlas.models.flow_matching import (
    FittedPrior,
    FlowMatching,
    FlowMatchingConfig,
    runge_kutta,
)


def untrained(space: Space, steps: int = 16) -> FlowMatching:
    return FlowMatching(FlowMatchingConfig(width=8, depth=1, steps=steps), space).eval()


def bent(dims: int, steps: int) -> FlowMatching:
    """A flow that is no Gaussian: last weights that are not zero."""
    model = untrained(Table.of_numbers(dims), steps)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.4, generator=torch.Generator().manual_seed(p.numel()))
    return model


def test_the_method_is_of_fourth_order():
    errors = [abs(runge_kutta(lambda y, t: y * math.cos(t), torch.ones((), dtype=torch.float64),
                              0.0, 2.0, steps).item() - math.exp(math.sin(2))) for steps in (8, 16)]
    assert 12 < errors[0] / errors[1] < 20


@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_an_untrained_velocity_leaves_a_standard_normal_one(t):
    """x_t = (1 − t) ε + t x of two standard normals has variance s(t) = (1 − t)² + t², and
    E[x − ε | x_t] = x_t (2t − 1) / s(t)."""
    x = torch.randn(5, 3)
    velocity = untrained(Table.of_numbers(3)).velocity(x, torch.tensor([[t]]))
    torch.testing.assert_close(velocity, x * (2 * t - 1) / ((1 - t) ** 2 + t ** 2))


def test_the_loss_is_of_dequantised_pictures_and_a_point_on_the_way():
    """An untrained velocity, and the step's draws made here in their order."""
    space = Images((1, 2, 3), levels=5)
    x = space.to_model(torch.randint(5, (4, 1, 2, 3)).float())
    model, noise = untrained(space), Noise(3)
    smooth = (x + (noise.uniform(*x.shape) - 0.5) * 0.5).flatten(1)  # a level is 2 / 4 wide
    epsilon, t = noise.normal(4, 6), noise.uniform(4, 1)
    x_t = (1 - t) * epsilon + t * smooth
    velocity = x_t * (2 * t - 1) / ((1 - t) ** 2 + t ** 2)
    expected = (velocity - (smooth - epsilon)).square().sum(1).mean()
    total = model.loss(Batch(x), Step(0, 0, 0.0, Noise(3))).total
    torch.testing.assert_close(total, expected)


def test_an_untrained_flow_is_the_normal_that_the_data_were_standardised_by():
    space = Table.of_numbers(2, (3.0, -1.0), (2.0, 3.0))
    model, x = untrained(space), torch.tensor([[1.0, -1.5], [6.0, 0.0]])
    nats, ess = model.log_likelihood(space.to_model(x), noise=Noise(0))
    theirs = stats.norm([3.0, -1.0], [2.0, 3.0]).logpdf(x.numpy()).sum(1)
    np.testing.assert_allclose(nats, theirs, atol=1e-4)
    assert torch.isinf(ess).all()
    drawn = space.to_data(model.sample(20_000, noise=Noise(1))).float()
    torch.testing.assert_close(drawn.mean(0), torch.tensor([3.0, -1.0]), atol=0.09, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.tensor([2.0, 3.0]), atol=0.06, rtol=0)


def test_the_density_integrates_to_one():
    axis = torch.linspace(-7, 7, 113)
    grid = torch.cartesian_prod(axis, axis)
    total = bent(2, 12).log_density(grid).exp().sum() * (axis[1] - axis[0])**2
    assert total.item() == pytest.approx(1, abs=1e-3)


def test_the_density_of_draws_is_that_of_the_change_of_variables():
    """By the determinant of the whole map, which the trace along the way stands for."""
    model, start = bent(3, 32), torch.randn(1, 3, generator=torch.Generator().manual_seed(0))

    def flow(x: torch.Tensor) -> torch.Tensor:
        return runge_kutta(lambda x, t: model.velocity(x, torch.tensor([[t]])), x, 0.0, 1.0, 32)

    jacobian = torch.autograd.functional.jacobian(flow, start)[0, :, 0]
    normal = stats.norm.logpdf(start.numpy()).sum()
    expected = normal - torch.linalg.slogdet(jacobian).logabsdet.item()
    result = model.log_density(flow(start).detach())
    assert result.item() == pytest.approx(expected, abs=1e-3)


def test_the_estimated_trace_is_unbiased():
    model = bent(4, 4)
    x = torch.randn(1, 4, generator=torch.Generator().manual_seed(0)).expand(4000, 4)
    probe = 2 * Noise(1).integers(2, *x.shape).float() - 1
    drawn, exact = model.log_density(x, probe), model.log_density(x[:1])
    error = drawn.std() / len(x)**0.5
    assert 0 < error < 0.1
    assert abs(drawn.mean() - exact) < 4 * error


def test_a_fitted_prior_is_in_the_units_of_the_codes():
    space = Table.of_numbers(2, (3.0, -1.0), (2.0, 3.0))
    prior, z = FittedPrior(untrained(space)), torch.randn(2, 4, 2)
    theirs = stats.norm([3.0, -1.0], [2.0, 3.0]).logpdf(z.numpy()).sum(-1)
    np.testing.assert_allclose(prior.log_prob(z), theirs, atol=1e-3)
    drawn = prior.sample(20_000, Noise(0))
    torch.testing.assert_close(drawn.mean(0), torch.tensor([3.0, -1.0]), atol=0.09, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.tensor([2.0, 3.0]), atol=0.06, rtol=0)


def test_a_correlated_normal_is_learnt(tmp_path):
    rng, factor = np.random.default_rng(0), np.array([[1.0, 0.0], [0.8, 0.6]])
    x = (rng.standard_normal((4000, 2)) @ factor.T).astype(np.float32)
    data = Dataset(x, Points((2,)))
    model, _ = tiny.train(tmp_path / "run", "flow-matching", data,
                          tiny.small("flow-matching", width=64),
                          training=tiny.options(images=200_000, batch_size=256))
    truth = stats.multivariate_normal(cov=factor @ factor.T)
    fresh = torch.from_numpy(truth.rvs(1000, random_state=1)).float()
    nats, _ = model.log_likelihood(fresh, noise=Noise(0))
    # what the data's own Gaussian without the correlation loses is 0.51
    assert truth.logpdf(fresh.numpy()).mean() - nats.mean().item() < 0.03
    covariance = torch.cov(model.sample(20_000, noise=Noise(0)).T).numpy()
    np.testing.assert_allclose(covariance, factor @ factor.T, atol=0.08)


def test_moons_are_learnt_better_than_a_normal(tmp_path):
    source = open_source("moons", n=4000)
    train, test = split(source, "train"), split(source, "test")
    model, _ = tiny.train(tmp_path / "run", "flow-matching", train,
                          tiny.small("flow-matching", width=64, depth=2),
                          training=tiny.options(images=200_000, batch_size=64,
                                                learning_rate=3e-3))
    real = train.space.to_model(test.take("x"))
    drawn = model.sample(len(real), noise=Noise(0)).numpy()
    normal = np.random.default_rng(0).multivariate_normal(real.mean(0), np.cov(real.T), len(real))
    assert nearest_neighbour_test(real, drawn)[0] < 0.62
    assert nearest_neighbour_test(real, normal)[0] > 0.75
    assert frechet_distance(drawn, real) < 0.1
    nats, _ = model.log_likelihood(torch.from_numpy(real), noise=Noise(0))
    gaussian = stats.multivariate_normal(real.mean(0), np.cov(real.T)).logpdf(real).mean()
    assert nats.mean() + train.space.log_volume > gaussian + 0.5
