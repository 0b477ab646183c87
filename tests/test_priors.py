"""Priors against scipy, numerical Jacobians and Monte Carlo."""

import copy

import numpy as np
import pytest
import tiny
import torch
from scipy import stats

from latlas.core.distributions import Normal
from latlas.core.errors import ConfigError
from latlas.core.noise import Noise
from latlas.core.space import Points
from latlas.data.batches import Batches, Sweep
from latlas.engine.trainer import Trainer
from latlas.models import priors
from latlas.models.priors import (
    Flow,
    FullNormal,
    Mixture,
    Prior,
    StandardNormal,
    Vamp,
    log_mixture,
)


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


def shaken(prior: Prior, sd: float = 0.3) -> Prior:
    """Parameters away from where they start."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(sd * torch.randn(p.shape, generator=generator))
    return prior


def vae(prior: str, data=None, **settings):
    data = data or tiny.images()
    config = tiny.small("vae", prior=prior, **{"prior_components": 5, **settings})
    return tiny.build("vae", data, config).eval()


def test_a_mixture_is_scipys():
    torch.manual_seed(0)
    prior, z = shaken(Mixture(3, 4)), torch.randn(5, 7, 3)
    weights = prior.logits.softmax(0).tolist()
    parts = [w * stats.multivariate_normal(m.numpy(), np.diag(v.exp().numpy())).pdf(z.numpy())
             for w, m, v in zip(weights, prior.means.detach().view(4, 3),
                                prior.log_vars.detach().view(4, 3), strict=True)]
    np.testing.assert_allclose(prior.log_prob(z).detach(), np.log(sum(parts)), rtol=1e-5)


def test_sharp_normals_far_from_zero_lose_no_digits():
    mean, log_var = torch.full((1, 50), 30.0), torch.full((1, 50), -12.0)
    z = mean + 0.001
    expected = Normal(mean, log_var).log_prob(z)
    torch.testing.assert_close(log_mixture(z, mean, log_var, torch.zeros(1)), expected)


@pytest.mark.parametrize("dims", [2, 5])
def test_a_flow_has_the_density_of_its_jacobian_and_an_inverse(dims):
    torch.manual_seed(0)
    prior = shaken(Flow(dims, 4), 0.05).double()
    z = torch.randn(dims, dtype=torch.float64)

    def inverse(base):
        for layer in reversed(prior.layers):
            base = layer.inverse(base)
        return base

    base = z
    for layer in prior.layers:
        base = layer(base)[0]
    torch.testing.assert_close(inverse(base), z)
    jacobian = torch.autograd.functional.jacobian(inverse, base)
    expected = stats.norm.logpdf(base.detach().numpy()).sum() - torch.linalg.slogdet(
        jacobian).logabsdet.item()
    assert prior.log_prob(z).item() == pytest.approx(expected, abs=1e-5)


def test_a_flow_starts_as_a_normal_and_needs_two_numbers():
    z = torch.randn(6, 3)
    torch.testing.assert_close(Flow(3, 5).log_prob(z), StandardNormal(3).log_prob(z))
    with pytest.raises(ConfigError, match="latent_dim=2"):
        Flow(1, 5)


@pytest.mark.parametrize("name", ["mixture", "vamp", "flow"])
def test_the_density_integrates_to_one_and_draws_follow_it(name):
    torch.manual_seed(1)
    prior = shaken(vae(name, latent_dim=2).prior, 0.05 if name == "flow" else 0.5)
    axis = torch.linspace(-9, 9, 241)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density, z = prior.log_prob(grid).exp(), prior.sample(40_000, Noise(2))
    assert density.sum() * (axis[1] - axis[0])**2 == pytest.approx(1, abs=0.01)
    for f in (lambda v: v[:, 0] * v[:, 1], lambda v: torch.tanh(v[:, 0] - v[:, 1]), torch.cos):
        exact = (density @ f(grid)).mean() / density.sum()
        drawn = f(z).mean()
        assert abs(drawn - exact) < 5 * f(z).std() / len(z)**0.5 + 1e-3


def test_pseudo_inputs_of_pictures_stay_in_range_and_of_tables_do_not():
    images = shaken(vae("vamp").prior, 5.0).pseudo_inputs()
    assert images.shape == (5, 1, 8, 8)
    assert images.abs().max() <= 1
    assert shaken(vae("vamp", tiny.table()).prior, 5.0).pseudo_inputs().abs().max() > 1


def test_vamp_is_the_mean_posterior_of_its_pseudo_inputs():
    model = vae("vamp")
    q = model.encode(model.prior.pseudo_inputs())
    z = torch.randn(6, 3)
    each = Normal(q.mean, q.log_var).log_prob(z[:, None])
    torch.testing.assert_close(model.prior.log_prob(z), each.exp().mean(1).log())


def test_a_copy_of_a_vamp_asks_the_encoder_of_the_copy():
    model = vae("vamp")
    assert isinstance(model.prior, Vamp)
    assert not any("encoder" in name for name in model.prior.state_dict())
    twin, z = copy.deepcopy(model), torch.randn(4, 3)
    before = model.prior.log_prob(z)
    with torch.no_grad():
        for p in twin.encoder.parameters():
            p.mul_(1.5)
    assert torch.equal(model.prior.log_prob(z), before)
    assert not torch.allclose(twin.prior.log_prob(z), before)


@pytest.mark.parametrize("name", ["mixture", "vamp", "flow"])
def test_the_bound_is_under_the_importance_weighted_one(name):
    """Which both hold only if the KL and the weights speak of the same prior."""
    model = vae(name, tiny.table())
    shaken(model.prior)
    batch = next(iter(Sweep(tiny.table(), 50)))
    one, _ = model.log_likelihood(batch.x, noise=Noise(0), draws=1)
    elbo = model.elbo(batch.x, noise=Noise(0))["bound"]
    many, _ = model.log_likelihood(batch.x, noise=Noise(0), draws=200)
    torch.testing.assert_close(elbo.double(), one, atol=1e-3, rtol=1e-4)
    assert many.mean() > one.mean()


def test_free_bits_of_a_learnt_prior_are_those_of_all_dimensions():
    model = vae("mixture", free_bits=2.0)
    small = model.with_free_bits(torch.ones(4, 1))
    torch.testing.assert_close(small, torch.full((4,), 6.0))
    large = model.with_free_bits(torch.full((4, 1), 7.0))
    torch.testing.assert_close(large, torch.full((4,), 7.0))


def test_every_prior_of_the_config_has_a_number_of_components():
    for name, components in priors.COMPONENTS.items():
        assert vae(name, prior_components=0).config.prior_components == components
    assert priors.COMPONENTS["flow"] == 8


@pytest.mark.parametrize("name", ["mixture", "vamp", "flow"])
def test_weight_decay_pulls_at_matrices_and_spares_mixtures_and_pseudo_inputs(name):
    """One step with decay and one without, by the same gradient, differ by the decay alone."""
    after = []
    for decay in (0.0, 0.3):
        model = shaken(vae(name, dropout=0))
        options = tiny.options(weight_decay=decay, warmup=0.0, ema=0.0)
        Trainer(model, options, budget=320, precision="fp32").step(
            Batches(tiny.images(), 16).at(0))
        after.append(dict(model.named_parameters()))
    decayed = {k for k, v in after[0].items() if not torch.equal(v, after[1][k])}
    assert {k for k in decayed if not k.startswith("prior.")} == {
        k for k, v in after[0].items() if v.dim() > 1 and not k.startswith("prior.")}
    matrices = {k for k, v in model.prior.named_parameters() if v.dim() > 1}
    assert {k.removeprefix("prior.") for k in decayed if k.startswith("prior.")} == matrices
    assert bool(matrices) == (name == "flow")


def test_a_learnt_prior_learns_where_the_codes_are(tmp_path):
    """Two clusters: a mixture's bound beats that of the standard prior."""
    rng = np.random.default_rng(0)
    x = (rng.choice([-4.0, 4.0], (600, 1)) + 0.1 * rng.standard_normal((600, 2)))
    data = tiny.Dataset(x.astype(np.float32), Points((2,)))
    result = {}
    for name in ("standard", "mixture"):
        config = tiny.small("vae", prior=name, latent_dim=2, width=32)
        model, _ = tiny.train(tmp_path / name, "vae", data, config, training=tiny.options(
            images=30_000, batch_size=64, learning_rate=3e-3))
        batch = next(iter(Sweep(data, 600)))
        result[name] = model.elbo(batch.x, noise=Noise(0))["bound"].mean().item()
    assert result["mixture"] > result["standard"] + 0.2
