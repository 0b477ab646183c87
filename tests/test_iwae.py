"""IWAE and chains of layers where expectations, gradients and densities are known."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import scipy.stats
import tiny
import torch
from torch import nn

import latlas
from latlas.core.distributions import Normal
from latlas.core.errors import ConfigError
from latlas.core.model import Batch, Step
from latlas.core.noise import Noise
from latlas.core.space import Table
from latlas.models.hierarchical_vae import (
    HierarchicalVAE,
    HierarchicalVAEConfig,
    conditional,
)
from latlas.models.priors import Prior
from latlas.models.vae import IWAE, VAE, IWAEConfig, VAEConfig
from latlas.verbs.generate import sample
from latlas.verbs.passes import information

SPACE = Table.of_numbers(3)
MANY = 4000


class Shifted(Prior):
    """N(m, I) with a mean that is learnt."""

    def __init__(self) -> None:
        super().__init__(2)
        self.mean = nn.Parameter(torch.tensor([0.3, -0.2]))

    def log_prob(self, z):
        return Normal(self.mean, torch.zeros(())).log_prob(z)

    def sample(self, n, noise):
        return self.mean + noise.normal(n, 2)


def linear(model_class=IWAE, config=IWAEConfig, **settings):
    """A linear model of three columns with a posterior that is wrong."""
    torch.manual_seed(0)
    options = config(latent_dim=2, likelihood="gaussian", noise_sd=0.7, **settings)
    return model_class(options, SPACE, encoder=nn.Linear(3, 4), decoder=nn.Linear(2, 3))


def chain(**settings):
    """Two linear layers, of two numbers and of one."""
    torch.manual_seed(0)
    config = HierarchicalVAEConfig(latents=(2, 1), likelihood="gaussian", noise_sd=0.7, **settings)
    model = HierarchicalVAE(config, SPACE, encoder=nn.Linear(3, 4), decoder=nn.Linear(2, 3),
                            up=nn.ModuleList([nn.Linear(2, 2)]),
                            down=nn.ModuleList([nn.Linear(1, 4)]))
    with torch.no_grad():
        model.prior.links[0].weight[2:] = 0.0  # a variance that is the same for every z_2
    return model


X = torch.tensor([[0.5, -0.4, 0.2]])


def loss(model, x=X, seed=0, progress=1.0):
    return model.loss(Batch(x), Step(0, 0, progress, Noise(seed)))


def losses(model, many=MANY, x=X):
    """The loss of every one of many copies of an example: its distribution over the noise."""
    rows = x.repeat(many, 1)
    q, k = model.encode(rows), model.config.draws
    z = q.draws(k, Noise(1))
    log_w = (model.decode(z).log_prob(rows) + model.prior.log_prob(z) - q.log_prob(z)).double()
    return (math.log(k) - log_w.logsumexp(0) if model.config.bound == "importance"
            else -log_w.mean(0)).detach()


def test_the_loss_is_the_bound_of_its_draws():
    for settings in ({"draws": 4}, {"draws": 4, "bound": "average"},
                     {"draws": 3, "gradient": "reparameterised"}):
        model = linear(**settings)
        rows = X.repeat(MANY, 1)
        assert loss(model, rows, seed=1).total.item() == pytest.approx(losses(model).mean().item(),
                                                                       rel=1e-5)


def test_one_draw_is_a_vaes_bound():
    vae = linear(VAE, VAEConfig)
    ones = losses(linear(draws=1))
    exact = loss(vae, X.repeat(MANY, 1)).total.item()  # its KL is in closed form
    assert abs(ones.mean().item() - exact) < 4 * ones.std().item() * (2 / MANY) ** 0.5


def test_the_average_of_draws_has_the_same_mean_and_less_variance():
    one, ten = losses(linear(draws=1)), losses(linear(draws=10, bound="average"))
    assert abs((one.mean() - ten.mean()).item()) < 4 * one.std().item() * (1.1 / MANY) ** 0.5
    assert ten.var() * 10 == pytest.approx(one.var().item(), rel=0.15)


@pytest.mark.parametrize("make", [linear, chain])
def test_the_bound_rises_with_draws_to_the_likelihood(make):
    result = [losses(make(draws=k)) for k in (1, 8, 256)]
    means = [f.mean().item() for f in result]
    errors = [4 * f.std().item() / MANY**0.5 for f in result]
    assert means[0] - errors[0] > means[1] + errors[1]
    assert means[1] - errors[1] > means[2] + errors[2]
    truth = -evidence(make()).logpdf(X[0].double().numpy())
    assert truth - errors[2] < means[2] < truth + 0.1 * (means[0] - truth)


def evidence(model):
    """p(x) of a linear-Gaussian model in closed form."""
    w, b = model.decoder.weight.detach().double(), model.decoder.bias.detach().double()
    mean, covariance = torch.zeros(2).double(), torch.eye(2).double()
    if isinstance(model, HierarchicalVAE):
        link = model.prior.links[0]
        v, a = link.weight[:2].detach().double(), link.bias.detach().double()
        mean, covariance = a[:2], v @ v.T + torch.diag(a[2:].exp())
    noise = 0.49 * torch.eye(3).double()
    return scipy.stats.multivariate_normal((w @ mean + b).numpy(),
                                           (w @ covariance @ w.T + noise).numpy())


def gradients(make, many, **settings):
    """Name to (many, numbers): the gradients of independent losses, of eight copies each."""
    model = make(**settings)
    rows = []
    for seed in range(many):
        model.zero_grad()
        loss(model, X.repeat(8, 1), seed).total.backward()
        rows.append({n: p.grad.flatten().double().clone() for n, p in model.named_parameters()})
    return {n: torch.stack([row[n] for row in rows]) for n in rows[0]}


CASES = [{}, {"kl_warmup": 1.0}, {"bound": "average"}]


@pytest.mark.parametrize("make", [linear, chain])
@pytest.mark.parametrize("settings", CASES, ids=["bound", "warm-up", "average"])
def test_the_doubly_reparameterised_gradient_has_the_same_mean(make, settings, monkeypatch):
    if "kl_warmup" in settings:
        monkeypatch.setattr(VAE, "kl_weight", lambda self, step: 0.4)
    once = gradients(make, 250, draws=6, gradient="reparameterised", **settings)
    twice = gradients(make, 250, draws=6, gradient="dreg", **settings)
    for name, mine in once.items():
        difference = (mine - twice[name]).mean(0)
        error = ((mine - twice[name]).var(0) / 250).sqrt()
        assert (difference.abs() < 4.5 * error + 1e-6).all(), name


@pytest.mark.parametrize("make", [linear, chain])
def test_for_the_decoder_and_the_prior_it_is_the_gradient_itself(make):
    once, twice = (gradients(make, 3, draws=8, gradient=g) for g in ("reparameterised", "dreg"))
    for name, mine in once.items():
        same = torch.allclose(mine, twice[name], rtol=1e-4, atol=1e-6)
        assert same != name.startswith(("encoder", "up")), name


def good(**settings):
    """A linear model whose posterior is nearly exact: the columns of its decoder are orthogonal."""
    model = linear(**settings)
    w = torch.linalg.qr(torch.randn(3, 2))[0]
    with torch.no_grad():
        model.decoder.weight.copy_(w)
        model.encoder.weight.copy_(torch.cat([w.T / 1.49, torch.zeros(2, 3)]))
        model.encoder.bias.copy_(torch.cat([-w.T @ model.decoder.bias / 1.49 + 0.1,
                                            torch.full((2,), math.log(0.49 / 1.49))]))
    return model


def test_it_varies_less_for_the_encoder_where_the_posterior_is_good():
    spread = [sum(g.var(0).sum() for n, g in result.items() if n.startswith("encoder"))
              for result in (gradients(good, 50, draws=64, gradient="reparameterised"),
                            gradients(good, 50, draws=64, gradient="dreg"))]
    assert spread[1] < 0.1 * spread[0]


def test_a_learnt_prior_gets_the_gradient_of_its_own_parameters():
    result = []
    for gradient in ("reparameterised", "dreg"):
        model = linear(draws=5, gradient=gradient)
        model.prior = Shifted()
        loss(model).total.backward()
        result.append(model.prior.mean.grad)
    torch.testing.assert_close(*result)
    assert result[0].abs().min() > 0


def test_gradients_leave_out_the_worst_items():
    rows = torch.cat([X.repeat(9, 1), torch.full((1, 3), 100.0)])
    trimmed, all_of_them = (loss(linear(draws=3, trimmed_fraction=fraction), rows).total.item()
                         for fraction in (0.1, 0.0))
    assert trimmed < 20 < all_of_them


def test_auto_is_dreg_for_several_weighted_draws():
    def twice(**settings):
        return IWAEConfig(**settings).resolve(SPACE).gradient == "dreg"
    assert twice()
    assert not twice(draws=1)
    assert not twice(bound="average")
    assert twice(draws=1, gradient="dreg")


@pytest.mark.parametrize(("config", "settings", "says"), [
    (IWAEConfig, {"free_bits": 0.1}, "free_bits=0.1 needs the KL of every latent dimension"),
    (HierarchicalVAEConfig, {"latents": (5,)}, "two layers or more"),
    (HierarchicalVAEConfig, {"latents": (5, 3), "latent_dim": 9}, "have 8 numbers together")])
def test_what_makes_no_sense_is_refused_in_one_line(config, settings, says):
    with pytest.raises(ConfigError, match=says):
        config(**settings)


def test_layers_are_those_asked_for_or_two_to_one():
    space = tiny.images().space
    assert HierarchicalVAE(HierarchicalVAEConfig(latents=(5, 3, 2)), space).latent_shapes == (
        (5,), (3,), (2,))
    divided = HierarchicalVAE(HierarchicalVAEConfig(latent_dim=12), space)
    assert divided.config.latents == (8, 4) and divided.latent_dim == 12
    again = HierarchicalVAE(divided.config, space)
    assert again.config == divided.config
    with pytest.raises(ConfigError, match="latent_dim=1"):
        HierarchicalVAE(HierarchicalVAEConfig(latent_dim=1), space)


@pytest.mark.parametrize(("modules", "says"), [
    ({"up": nn.ModuleList()}, "up holds 0 networks; 2 layers need 1"),
    ({"down": nn.ModuleList([nn.Linear(1, 3)])}, r"down must turn \(n, 1\) into \(n, 4\)")])
def test_links_of_the_users_own_must_fit(modules, says):
    with pytest.raises(ConfigError, match=says):
        HierarchicalVAE(HierarchicalVAEConfig(latents=(2, 1)), SPACE, **modules)


def test_the_chains_densities_are_products_of_their_layers():
    model, noise = chain(), Noise(0)
    x = torch.randn(7, 3)
    q = model.encode(x)
    z = q.draws(4, noise)
    first, second = z[..., :2], z[..., 2:]
    up, down = model.up[0](first), model.prior.links[0](second)

    def log_normal(at, output):
        mean, log_var = (part.detach().double().numpy() for part in output.chunk(2, -1))
        return scipy.stats.norm(mean, np.exp(log_var / 2)).logpdf(at.detach()).sum(-1)
    truth = log_normal(first, model.encoder(x)) + log_normal(second, up)
    np.testing.assert_allclose(q.log_prob(z).detach(), truth, rtol=1e-4)
    truth = scipy.stats.norm().logpdf(second.detach())[..., 0] + log_normal(first, down)
    np.testing.assert_allclose(model.prior.log_prob(z).detach(), truth, rtol=1e-4)
    torch.testing.assert_close(q.detached().log_prob(z), q.log_prob(z))


def test_draws_of_the_chain_and_its_prior_have_the_densities_they_say():
    """E_q[p/q] = 1 over draws of q, and the other way round."""
    model = chain()
    with torch.no_grad():
        q, p = model.encode(torch.zeros(1, 3)), model.prior
        for drawn, other, own in ((q.draws(100_000, Noise(0)), p, q),
                                  (p.sample(100_000, Noise(1))[:, None], q, p)):
            ratio = (other.log_prob(drawn) - own.log_prob(drawn)).double().exp()
            assert abs(ratio.mean() - 1) < 5 * ratio.std() / len(ratio) ** 0.5 < 0.3


def test_an_upper_layer_moves_what_lies_below_it():
    data = tiny.images()
    model = tiny.build("hierarchical-vae", data, tiny.small("hierarchical-vae", latents="3,2",
                                                            latent_dim=0))
    walks = latlas.traverse(model, dims=[0, 4], steps=3)
    assert walks.shape == (2, 3, 1, 8, 8)
    z = torch.randn(6, 5)
    assert torch.equal(model.fill_lower_layers(z, 0), z)
    below = conditional(model.prior.links[0], z[:, 3:]).mean
    torch.testing.assert_close(model.fill_lower_layers(z, 1), torch.cat([below, z[:, 3:]], 1))
    moved = model.decode(model.fill_lower_layers(z, 1)).mean
    assert not torch.allclose(moved, model.decode(z).mean)
    assert information(model, data).shape == (5,)


def test_samples_come_from_the_chain_and_not_from_a_standard_normal():
    model = chain()
    with torch.no_grad():
        model.prior.links[0].bias[:2] = 50.0
    rows = sample(model, 200, seed=0).values
    ancestral = model.sample(200, noise=Noise(0)).detach().numpy()
    assert np.abs(rows.mean(0) - ancestral.mean(0)).max() < 1.0
    assert np.abs(rows).max() > 10


def test_copies_of_a_chain_share_nothing():
    model = chain()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    with torch.no_grad():
        assert not torch.allclose(model.encode(X).mean, other.encode(X).mean)
