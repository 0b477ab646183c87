"""Probabilistic PCA against scikit-learn, closed-form Gaussians, and its own in-memory fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as SklearnPCA

from latlas.core.errors import ConfigError, DataError
from latlas.core.model import Batch, Decodes, Encodes, FitsDirectly, Samples, ScoresDensity
from latlas.core.noise import Noise, dequantise
from latlas.core.space import Images, Table
from latlas.models.autoencoder import auto_latent_dim
from latlas.models.pca import PCA, PCAConfig, spectrum

D, K = 7, 3


def table(n=200, d=D, seed=0, decay=0.6):
    rng = np.random.default_rng(seed)
    scales = decay ** np.arange(d)
    return rng.normal(size=(n, d)) * scales @ rng.normal(size=(d, d)) + rng.normal(size=d) * 5


def batches(x, size=64):
    return [Batch(x=part) for part in torch.as_tensor(x).split(size)]


def fitted(x, k=K, space=None, size=64, **config):
    model = PCA(PCAConfig(latent_dim=k, **config), space or Table.of_numbers(x.shape[1]))
    model.fit(batches(x, size))
    return model


def gaussian(model):
    """Mean and covariance of x that the parameters stand for."""
    w = model.weight
    return model.mean, w @ w.T + model.noise_variance * torch.eye(len(w), dtype=w.dtype)


def score(model, x, seed=0):
    return model.log_likelihood(torch.as_tensor(x), noise=Noise(seed))


@pytest.mark.parametrize("k", [1, 3, D - 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_log_likelihood_equals_scikit_learn(k, seed):
    x, new = table(seed=seed), table(50, seed=seed + 10)
    nats, ess = score(fitted(x, k), new)
    truth = SklearnPCA(k, svd_solver="full").fit(x).score_samples(new)
    np.testing.assert_allclose(nats, truth, rtol=1e-6)
    assert torch.isinf(ess).all() and PCA.exact_likelihood


def test_maximum_likelihood_has_the_biased_variance():
    x = table(40)
    best = fitted(x, ddof=0)
    values = np.linalg.eigvalsh(np.cov(x.T, ddof=0))[::-1]
    np.testing.assert_allclose(best.eigenvalues, values[:K], rtol=1e-9)
    np.testing.assert_allclose(best.noise_variance, values[K:].mean(), rtol=1e-9)
    assert score(best, x)[0].mean() > score(fitted(x), x)[0].mean()


def test_likelihood_is_reported_in_data_units():
    raw = table()
    space = Table.of_numbers(D, location=tuple(raw.mean(0)), scale=tuple(raw.std(0) * 3))
    standard = space.to_model(torch.tensor(raw))
    full = fitted(standard, D - 1, space)  # a full Gaussian is equivariant under scaling
    torch.testing.assert_close(score(full, standard)[0], score(fitted(raw, D - 1), raw)[0],
                               rtol=1e-5, atol=1e-5)
    assert full.base_measure == "table units"


@pytest.mark.parametrize("size", [1, 13, 200])
def test_streaming_equals_in_memory(size):
    x = table() + 1e6  # a large mean would cancel in a sum of squares
    model = fitted(x, size=size)
    values, vectors = np.linalg.eigh(np.cov(x.T))
    np.testing.assert_allclose(model.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(model.eigenvalues, values[::-1][:K], rtol=1e-7)
    overlap = np.abs(np.sum(vectors[:, ::-1][:, :K] * model.axes.numpy(), 0))
    np.testing.assert_allclose(overlap, 1, rtol=1e-7)


def test_randomised_is_close_to_exact():
    x = torch.tensor(table(500, 80, decay=0.9))
    exact, near = (spectrum(lambda: x.split(64), 8, exact=flag) for flag in (True, False))
    torch.testing.assert_close(near.eigenvalues, exact.eigenvalues, rtol=1e-4, atol=0)
    torch.testing.assert_close(near.total, exact.total)
    torch.testing.assert_close(near.axes.T @ exact.axes, torch.eye(8).double(), rtol=0, atol=0.01)
    assert (near.eigenvalues <= exact.eigenvalues * (1 + 1e-9)).all()


def test_randomised_solver_of_the_model():
    x = table(300, 40, decay=0.8)
    exact, near = fitted(x, 5), fitted(x, 5, solver="randomised")
    torch.testing.assert_close(score(near, x)[0], score(exact, x)[0], rtol=1e-4, atol=0)


def test_large_items_take_the_randomised_solver(monkeypatch):
    monkeypatch.setattr("latlas.models.pca.COVARIANCE_DIMS", D - 1)
    monkeypatch.setattr("latlas.models.pca.scipy", None)  # whose eigh takes the whole covariance
    assert fitted(table()).noise_variance > 0


def test_randomised_sees_the_same_dequantisation_in_every_sweep():
    space = Images((1, 4, 4), levels=3)
    x = space.to_model(torch.randint(3, (100, 1, 4, 4)).float())
    exact = fitted(x, 2, space)
    near = fitted(x, 2, space, solver="randomised")
    torch.testing.assert_close(near.eigenvalues, exact.eigenvalues, rtol=1e-3, atol=0)
    torch.testing.assert_close(near.mean, exact.mean)


def test_samples_have_the_model_s_moments():
    model = fitted(table())
    x = model.sample(100_000, noise=Noise(0)).double()
    mean, covariance = gaussian(model)
    scale = covariance.diagonal().max().sqrt()
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.02 * float(scale))
    torch.testing.assert_close(torch.cov(x.T), covariance, rtol=0, atol=0.02 * float(scale) ** 2)
    assert torch.equal(model.sample(3, noise=Noise(5)), model.sample(3, noise=Noise(5)))


def test_posterior_is_the_conditional_gaussian():
    model = fitted(table())
    x = torch.tensor(table(5, seed=3))
    mean, covariance = gaussian(model)
    gain = model.weight.T @ torch.linalg.inv(covariance)  # of the joint Gaussian of z and x
    posterior = model.encode(x)
    expected = (x - mean) @ gain.T
    variance = torch.eye(K).double() - gain @ model.weight
    torch.testing.assert_close(posterior.mean.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(posterior.log_var[0].double().exp().diag(), variance,
                               rtol=1e-4, atol=1e-6)


def test_bayes_rule_ties_the_four_methods():
    """log p(x) = log p(z) + log p(x|z) − log p(z|x) for every z."""
    model = fitted(table())
    x = torch.tensor(table(6, seed=4)).float()
    posterior = model.encode(x)
    z = posterior.sample(Noise(1))
    prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
    parts = prior + model.decode(z).log_prob(x) - posterior.log_prob(z)
    torch.testing.assert_close(parts.double(), score(model, x)[0], rtol=1e-4, atol=1e-3)


def test_reconstruction_is_the_projection_where_noise_is_small():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, K)) @ rng.normal(size=(K, D)) + 1e-4 * rng.normal(size=(200, D))
    model = fitted(x)
    reduced = SklearnPCA(K).fit(x)
    truth = reduced.inverse_transform(reduced.transform(x))
    np.testing.assert_allclose(model.decode(model.encode(torch.tensor(x)).mean).mean, truth,
                               atol=1e-4)


def test_codes_of_training_data_are_whitened():
    x = table(2000)
    model = fitted(x)
    latents = model.encode(torch.tensor(x))
    spread = torch.cov(latents.mean.T) + latents.log_var[0].exp().diag()
    torch.testing.assert_close(spread, torch.eye(K), rtol=0, atol=1e-4)


def test_pictures_are_dequantised_and_scored_as_integers():
    space = Images((2, 3, 3), levels=5)
    values = torch.randint(5, (4000, 2, 3, 3), generator=torch.Generator().manual_seed(0))
    x = space.to_model(values.float())
    model = fitted(x, 4, space)
    per_dim = -score(model, x)[0].mean() / space.dims / math.log(2)
    assert model.base_measure == "integers"
    # independent uniform levels, plus the noise, are uniform on [−½, 4½): variance 25/12
    assert float(per_dim) == pytest.approx(0.5 * math.log2(2 * math.pi * math.e * 25 / 12),
                                           abs=0.02)
    assert model.decode(torch.zeros(2, 6, 4)).mean.shape == (2, 6, 2, 3, 3)
    assert model.sample(3, noise=Noise(0)).shape == (3, 2, 3, 3)
    assert torch.equal(score(model, x)[0], score(model, x)[0])
    assert not torch.equal(score(model, x)[0], score(model, x, seed=1)[0])


def test_constant_pixels_of_pictures_keep_the_density_bounded():
    space = Images((1, 4, 4), levels=256)
    x = space.to_model(torch.zeros(50, 1, 4, 4))
    assert float(fitted(x, 3, space).noise_variance) == pytest.approx(space.step**2 / 12, rel=0.3)


@pytest.mark.parametrize("solver", ["covariance", "randomised"])
def test_every_batch_is_dequantised_by_noise_of_its_own(solver):
    """Black images in pairs: with one draw for all pairs there would be two points, a line."""
    space = Images((1, 3, 3), levels=256)
    x = space.to_model(torch.zeros(600, 1, 3, 3))
    model = fitted(x, 2, space, size=2, solver=solver)
    uniform = space.step ** 2 / 12
    assert model.noise_variance.item() == pytest.approx(uniform, rel=0.1)
    np.testing.assert_allclose(model.eigenvalues, uniform, rtol=0.3)
    np.testing.assert_allclose(model.mean, -1, atol=5 * (uniform / 600) ** 0.5)


def test_dequantise():
    x = torch.tensor([[-1.0, 0.0, 1.0]]).expand(10_000, 3)
    noise = dequantise(x, 1.0, Noise(0)) - x
    assert noise.min() >= -0.5 and noise.max() <= 0.5
    assert float(noise.var()) == pytest.approx(1 / 12, rel=0.02)
    assert dequantise(x, 0.0, Noise(0)) is x


def test_protocols_and_saving():
    model = fitted(table())
    for protocol in (FitsDirectly, Samples, Encodes, Decodes, ScoresDensity):
        assert isinstance(model, protocol)
    other = PCA(model.config, model.space)
    other.load_state_dict(model.state_dict())
    assert torch.equal(score(other, table())[0], score(model, table())[0])
    assert len(model.state_dict()) == 4


@pytest.mark.parametrize(("dims", "asked_dim", "used"), [(2, 0, 1), (2, 1, 1), (7, 6, 6)])
def test_latent_dim_stays_below_the_dimensions(dims, asked_dim, used):
    assert PCA(PCAConfig(latent_dim=asked_dim), Table.of_numbers(dims)).latent_dim == used


def test_chosen_latent_dim_is_that_of_the_other_families():
    space = Images((1, 28, 28))
    assert PCA(PCAConfig(), space).latent_dim == auto_latent_dim(space)


@pytest.mark.parametrize(("dims", "k", "message"), [(7, 7, "at most latent_dim=6"),
                                                    (7, 9, "latent_dim=9"), (1, 0, "at least 2")])
def test_too_many_latent_dimensions(dims, k, message):
    with pytest.raises(ConfigError, match=message):
        PCA(PCAConfig(latent_dim=k), Table.of_numbers(dims))


@pytest.mark.parametrize("solver", ["covariance", "randomised"])
def test_too_few_items(solver):
    with pytest.raises(DataError, match=r"needs at least 5 training examples, got 4"):
        fitted(table(4), 3, solver=solver)


@pytest.mark.parametrize("solver", ["covariance", "randomised"])
def test_flat_data_names_the_largest_latent_dim(solver):
    x = table()
    x[:, 2], x[:, 5] = 1.5, x[:, 0]  # a constant column and a copy leave 5 dimensions
    with pytest.raises(DataError, match=r"plane of 5 dimensions.*latent_dim to 4"):
        fitted(x, 6, solver=solver)
    assert torch.isfinite(score(fitted(x, 4, solver=solver), x)[0]).all()


def test_identical_items():
    with pytest.raises(DataError, match="hardly differ"):
        fitted(np.ones((20, D)))


@pytest.mark.parametrize("solver", ["covariance", "randomised"])
def test_values_that_are_not_finite(solver):
    x = table()
    x[3, 2] = np.nan
    with pytest.raises(DataError, match="not finite"):
        fitted(x, solver=solver)
