"""``score`` by four estimators against models whose log p(x) is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import tiny
import torch
from test_vae_maths import linear_gaussian, set_linear
from torch import nn

from latlas.core.errors import CapabilityError, ConfigError
from latlas.core.model import Batch, Observes
from latlas.core.noise import Noise
from latlas.core.space import Table
from latlas.data.batches import Sweep
from latlas.data.dataset import Dataset
from latlas.models.autoencoder import AE, AEConfig
from latlas.models.pca import PCA, PCAConfig
from latlas.verbs import estimators
from latlas.verbs.score import Scores, score


def ppca(k: int, dims: int, examples: int = 5, sd: float = 0.5) -> tuple[PCA, Dataset]:
    """A fitted model of a table with units, and examples of it."""
    rng = np.random.default_rng(k)
    x = rng.standard_normal((400, k)) @ rng.standard_normal((k, dims))
    x = (x + sd * rng.standard_normal(x.shape)) * 10.0 ** (np.arange(dims) % 3)
    space = Table.of_numbers(dims, tuple(x.mean(0)), tuple(x.std(0)))
    model = PCA(PCAConfig(latent_dim=k), space)
    model.fit([Batch(space.to_model(torch.from_numpy(x)).float())])
    return model, Dataset(x[:examples].astype(np.float32), space)


def gap(model: PCA, data: Dataset, **how) -> tuple[np.ndarray, Scores]:
    result = score(model, data, **how)
    return result.nats - score(model, data, method="exact").nats, result


def test_importance_weights_with_the_exact_posterior_have_no_gap_at_one_draw():
    model, data = ppca(3, 10)
    error, result = gap(model, data, method="iw", draws=1)
    np.testing.assert_allclose(error, 0, atol=1e-4)
    assert result.method == "iw" and np.isnan(result.se).all()
    error, result = gap(model, data, method="iw", draws=9)
    np.testing.assert_allclose(error, 0, atol=1e-4)
    np.testing.assert_allclose(result.ess, 9, rtol=1e-4)
    np.testing.assert_allclose(result.se, 0, atol=2e-3)


def test_the_same_on_dequantised_pictures():
    data = tiny.images(n=60)
    model = PCA(PCAConfig(latent_dim=3), data.space)
    model.fit([Batch(data.space.to_model(torch.from_numpy(data.x).float()))])
    error, _ = gap(model, data, method="iw", draws=1)
    np.testing.assert_allclose(error, 0, atol=1e-3)


def test_annealing_at_1000_temperatures_is_within_a_tenth_of_a_nat():
    model, data = ppca(3, 10)
    error, result = gap(model, data, method="ais", draws=48, leapfrog=4)
    assert (abs(error) < 0.1).all(), error
    assert (result.ess > 24).all() and not result.unreliable.any()
    assert (abs(error) < 5 * result.se).all() and (result.se < 0.1).all()
    assert 0.5 < result.acceptance < 0.8


def test_naive_sampling_falls_short_in_ten_dimensions_and_says_so():
    model, data = ppca(10, 14)
    error, result = gap(model, data, method="naive")
    assert result.draws == 10_000
    assert error.mean() < -5
    assert result.unreliable.all() and np.median(result.ess) < 3
    more, _ = gap(model, data, method="naive", draws=100_000)
    assert error.mean() < more.mean() < 0  # a lower bound in expectation, which rises


def test_naive_sampling_is_right_in_two_dimensions():
    model, data = ppca(2, 8)
    error, result = gap(model, data, method="naive", draws=200_000)
    assert not result.unreliable.any()
    assert (abs(error) < 5 * result.se).all() and (result.se < 0.05).all()


def test_draws_in_parts_estimate_the_same(monkeypatch):
    model, data = ppca(2, 8)
    monkeypatch.setattr(estimators, "BLOCK", 1000 * data.x.size)
    ticks = []
    error, result = gap(model, data, method="naive", draws=20_500,
                       progress=lambda *at: ticks.append(at))
    assert (abs(error) < 5 * result.se).all()
    assert len(ticks) > 20 and ticks[-1] == (5 * 20_500, 5 * 20_500)
    monkeypatch.setattr("latlas.verbs.estimators.MEMORY", 4000)  # a few draws and examples at once
    for how in ({"method": "naive", "draws": 2000}, {"method": "iw", "draws": 5},
                {"method": "ais", "draws": 4, "temperatures": 300, "leapfrog": 3}):
        error, result = gap(model, data, **how)
        assert (abs(error) < 5 * result.se + 1e-4).all(), how


@pytest.mark.parametrize("how", [{"method": "naive", "draws": 50}, {"method": "iw", "draws": 5},
                                 {"method": "elbo", "draws": 3},
                                 {"method": "ais", "draws": 3, "temperatures": 5}])
def test_the_seed_decides_and_the_batch_size_does_not_reach_the_item(how):
    model, x, _ = linear_gaussian(wrong_by=1.0)
    data = Dataset(model.space.to_data(x[:4]).numpy(), model.space)
    a, b, c = (score(model, data, seed=s, **how).nats for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).all()


@pytest.mark.parametrize(("how", "copies"), [
    ({"method": "iw", "draws": 30}, 400), ({"method": "elbo", "draws": 30}, 400),
    ({"method": "ais", "draws": 30, "temperatures": 60, "leapfrog": 3}, 200)])
def test_standard_errors_are_calibrated(how, copies):
    """Copies of one example have draws of their own: their metrics scatter as they say."""
    model, x, density = linear_gaussian(wrong_by=0.7)
    data = Dataset(model.space.to_data(x[:1]).numpy().repeat(copies, 0), model.space)
    result = score(model, data, precision="fp32", **how)
    assert result.nats.std() == pytest.approx(result.se.mean(), rel=0.2)
    if how["method"] != "elbo":
        truth = density.logpdf(data.x[0])
        # log of an unbiased estimate is low by half its variance
        bias = 0.5 * np.square(result.se).mean()
        assert result.mean + bias == pytest.approx(truth, abs=5 * result.standard_error)


def test_the_standard_error_of_naive_sampling_is_calibrated():
    """Its draws are shared by the examples of a batch, so it is repeated over seeds."""
    model, data = ppca(2, 8, examples=1)
    runs = [score(model, data, method="naive", draws=4000, seed=s) for s in range(200)]
    nats, se = np.array([(r.nats[0], r.se[0]) for r in runs]).T
    assert nats.std() == pytest.approx(se.mean(), rel=0.25)


def test_the_elbo_of_many_draws_is_their_mean():
    model, x, _ = linear_gaussian(wrong_by=0.7)
    data = Dataset(model.space.to_data(x[:3]).numpy(), model.space)
    one, many = (score(model, data, method="elbo", draws=k) for k in (1, 4000))
    assert np.isnan(one.se).all() and np.isnan(many.ess).all() and not many.unreliable.any()
    with torch.no_grad():
        q = model.encode(model.space.to_model(torch.from_numpy(data.x)))
    m = q.mean.double().numpy(), q.log_var.exp().double().numpy()
    w, b = (p.detach().double().numpy() for p in model.decoder.parameters())
    noise = model.config.noise_sd**2
    residual = model.space.to_model(data.x) - (m[0] @ w.T + b)
    reconstruction = -0.5 * ((residual**2).sum(1) + m[1] @ (w**2).sum(0)) / noise - 2.5 * np.log(
        2 * np.pi * noise) - model.space.log_volume
    kl = 0.5 * (m[0] ** 2 + m[1] - 1 - np.log(m[1])).sum(1)
    assert (abs(many.nats - (reconstruction - kl)) < 5 * many.se).all()


@pytest.mark.parametrize("name", ["vae", "conditional-vae", "hierarchical-vae", "atlas-vae"])
def test_all_estimators_agree_on_a_trained_model(name, tmp_path):
    """Each with its own draws, on the same binarised images."""
    data = tiny.images(n=60)
    config = tiny.small(name, likelihood="bernoulli", binarize="dynamic", latent_dim=2)
    model, _ = tiny.train(tmp_path / "run", name, data, config,
                          training=tiny.options(images=3000, learning_rate=3e-3))
    few = data.subset(slice(3, 8))
    iw = score(model, few, draws=3000, precision="fp32")
    naive = score(model, few, method="naive", draws=30_000)
    ais = score(model, few, method="ais", temperatures=200, leapfrog=3, draws=20)
    elbo = score(model, few, method="elbo", draws=1000)
    for other in (naive, ais):
        assert (abs(other.nats - iw.nats) < 5 * np.hypot(other.se, iw.se) + 1e-3).all()
        assert other.base_measure == iw.base_measure
    assert (elbo.nats < iw.nats + 5 * elbo.se).all()


def test_an_item_is_binarised_the_same_way_in_any_batch():
    data = tiny.images(n=12)
    batches = [next(iter(Sweep(data.subset(rows)))) for rows in (slice(0, 12), slice(5, 6))]
    model = tiny.build("vae", data, tiny.small("vae", likelihood="bernoulli", binarize="dynamic"))
    whole, alone = (model.preprocess(b.x, estimators.ExampleNoise(b, 0, "score")) for b in batches)
    assert torch.equal(whole[5:6], alone)
    again = model.preprocess(batches[1].x, estimators.ExampleNoise(batches[1], 1, "score"))
    assert not torch.equal(alone, again)


def linear_ae(sd: float) -> tuple[AE, Dataset, np.ndarray]:
    """x ~ N(W z + b, sd²) with z ~ N(m, L Lᵀ) fitted to the latents: Gaussian in data units."""
    rng = np.random.default_rng(0)
    space = Table.of_numbers(5, tuple(rng.standard_normal(5)), (1.0, 10.0, 0.1, 3.0, 7.0))
    encoder, decoder = nn.Linear(5, 2), nn.Linear(2, 5)
    w, b = rng.standard_normal((5, 2)), rng.standard_normal(5)
    set_linear(decoder, w, b)
    model = AE(AEConfig(latent_dim=2), space, encoder=encoder, decoder=decoder)
    factor = np.array([[3.0, 0.0], [0.5, 0.2]])
    model.latent_mean.copy_(torch.tensor([2.0, -1.0]))
    model.latent_factor.copy_(torch.from_numpy(factor))
    scale = np.asarray(space.scale)
    mean = np.asarray(space.location) + scale * (w @ [2.0, -1.0] + b)
    spread = scale[:, None] * (w @ factor)
    density = scipy.stats.multivariate_normal(mean, spread @ spread.T + np.diag(scale * sd) ** 2)
    x = density.rvs(4, random_state=0).astype(np.float32)
    return model, Dataset(x, space), density.logpdf(x)


def test_a_decoder_without_a_likelihood_is_scored_around_its_output():
    model, data, truth = linear_ae(0.5)
    naive = score(model, data, method="naive", observation_sd=0.5, draws=100_000)
    ais = score(model, data, observation_sd=0.5, temperatures=400, leapfrog=4, draws=32)
    assert ais.method == "ais" and ais.base_measure == naive.base_measure == "data units"
    for result in (naive, ais):
        assert (abs(result.nats - truth) < 5 * result.se).all() and (result.se < 0.2).all()


def test_a_generator_without_an_encoder_is_scored():
    """The two-player model of the docs: closer to its own output is likelier."""
    model = tiny.build("toy_gan:ToyGAN", tiny.points(), tiny.small("toy_gan:ToyGAN"))
    near = model.space.to_data(model.sample(3, noise=Noise(0)).detach()).numpy()
    data = Dataset(np.concatenate([near, near + 50]), model.space)
    result = score(model, data, observation_sd=0.3, temperatures=20, draws=4)
    assert np.isfinite(result.nats).all() and (result.nats[:3] > result.nats[3:] + 100).all()


@pytest.mark.parametrize(("how", "error", "says"), [
    ({}, CapabilityError, "observation_sd=S"),
    ({"method": "ais"}, CapabilityError, "observation_sd=S"),
    ({"method": "iw", "observation_sd": 1.0}, CapabilityError, "method=ais"),
    ({"observation_sd": 0.0}, ConfigError, "observation_sd=0.0"),
    ({"observation_sd": math.nan}, ConfigError, "observation_sd=nan"),
    ({"observation_sd": 1.0, "temperatures": 0}, ConfigError, "temperatures=0"),
    ({"observation_sd": 1.0, "leapfrog": 0}, ConfigError, "leapfrog=0"),
    ({"observation_sd": 1.0, "method": "naive", "leapfrog": 3}, ConfigError,
     "leapfrog= belongs to method=ais")])
def test_what_a_decoder_lacks_is_said_in_one_line(how, error, says):
    model, data, _ = linear_ae(0.5)
    with pytest.raises(error, match=says):
        score(model, data, **how)


def test_a_likelihood_of_its_own_is_not_replaced():
    model, data = ppca(2, 8)
    with pytest.raises(ConfigError, match="likelihood of its own"):
        score(model, data, observation_sd=1.0)
    with pytest.raises(CapabilityError, match="no ELBO"):
        score(model, data, method="elbo")


def test_scoring_leaves_no_gradient_behind():
    model, x, _ = linear_gaussian()
    data = Dataset(model.space.to_data(x[:2]).numpy(), model.space)
    model.train()
    score(model, data, method="ais", temperatures=3, draws=2)
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())


def test_shared_codes_are_scored_against_every_item():
    model, x, _ = linear_gaussian()
    z = Noise(0).normal(4, 1, 2)
    assert isinstance(model, Observes)
    with torch.no_grad():
        shared = model.log_conditional(x, z)
        each = model.log_conditional(x, z.expand(4, len(x), 2))
    assert shared.shape == (4, len(x))
    torch.testing.assert_close(shared, each)
