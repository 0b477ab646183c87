"""The VAE against models whose likelihood is known: linear-Gaussian, PPCA, factor analysis."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tiny
import torch
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.decomposition import FactorAnalysis
from torch import Tensor, nn

from latlas.core.errors import ConfigError
from latlas.core.model import Step
from latlas.core.noise import Noise, dequantise
from latlas.core.space import Images, Space, Table
from latlas.data.dataset import Dataset
from latlas.models import vae as vae_module
from latlas.models.vae import VAE, VAEConfig
from latlas.verbs.score import score

#: variances along the principal axes of the data for the linear models
SPECTRUM = np.array([4.0, 2.0, 1.0, 0.1, 0.1, 0.1])
AXES = 3


def linear_gaussian(wrong_by: float = 0.0) -> tuple[VAE, Tensor, scipy.stats.rv_continuous]:
    """A VAE with x = W z + b + σ ε and its exact posterior, examples, and the exact density.

    Columns of W are orthogonal, so the posterior is diagonal: M = WᵀW + σ² I,
    N(M⁻¹ Wᵀ(x − b), σ² M⁻¹). The table has units, so data units differ from model units.
    """
    rng, noise_sd = np.random.default_rng(0), 0.4
    w = np.linalg.qr(rng.standard_normal((5, 2)))[0] * [1.5, 0.7]
    b, units = rng.standard_normal(5), np.array([1.0, 10.0, 0.1, 3.0, 7.0])
    space = Table.of_numbers(5, tuple(rng.standard_normal(5)), tuple(units))
    m = (w**2).sum(0) + noise_sd**2
    encoder, decoder = nn.Linear(5, 4), nn.Linear(2, 5)
    set_linear(decoder, w, b)
    set_linear(encoder, np.concatenate([(w / m).T, np.zeros((2, 5))]),
               np.concatenate([-(w / m).T @ b, np.log(noise_sd**2 / m) + wrong_by]))
    config = VAEConfig(latent_dim=2, likelihood="gaussian", noise_sd=noise_sd)
    model = VAE(config, space, encoder=encoder, decoder=decoder)
    mean = np.asarray(space.location) + units * b
    scaled = units[:, None] * w
    covariance = scaled @ scaled.T + np.diag((units * noise_sd) ** 2)
    density = scipy.stats.multivariate_normal(mean, covariance)
    x = torch.from_numpy(density.rvs(300, random_state=1))
    return model, space.to_model(x).float(), density


def set_linear(layer: nn.Linear, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))


def test_with_the_exact_posterior_one_draw_is_exact():
    model, x, density = linear_gaussian()
    truth = density.logpdf(model.space.to_data(x.double()))
    for draws in (1, 9):
        nats, ess = model.log_likelihood(x, noise=Noise(0), draws=draws)
        np.testing.assert_allclose(nats, truth, atol=2e-4)
        np.testing.assert_allclose(ess, draws, rtol=1e-4)


def test_the_elbo_with_the_exact_posterior_has_no_gap():
    """One draw of log p(x|z) varies, so the average over draws is compared."""
    model, x, density = linear_gaussian()
    truth = density.logpdf(model.space.to_data(x.double())).mean()
    parts = [model.elbo(x, noise=Noise(seed)) for seed in range(400)]
    bounds = torch.stack([p["bound"].mean() for p in parts]).double()
    error = bounds.std() / 20
    assert abs(bounds.mean() - truth) < 4 * error < 0.05
    for p in parts[:3]:
        torch.testing.assert_close(p["bound"], -p["reconstruction"] - p["kl"])


def test_with_a_wrong_posterior_the_bound_rises_with_draws_to_the_truth():
    model, x, density = linear_gaussian(wrong_by=1.0)
    truth = density.logpdf(model.space.to_data(x.double())).mean()
    result = [model.log_likelihood(x, noise=Noise(0), draws=k) for k in (1, 4, 32, 512)]
    means = [nats.mean().item() for nats, _ in result]
    assert means[0] < truth - 0.3
    assert all(a < b for a, b in pairwise(means))
    assert abs(means[-1] - truth) < 0.01
    assert 1 < result[-1][1].mean() < 512


def test_draws_in_chunks_estimate_the_same(monkeypatch):
    model, x, density = linear_gaussian(wrong_by=1.0)
    monkeypatch.setattr(vae_module, "CHUNK", 10 * len(x) * 5)
    nats, _ = model.log_likelihood(x, noise=Noise(0), draws=515)
    truth = density.logpdf(model.space.to_data(x.double())).mean()
    assert abs(nats.mean().item() - truth) < 0.01


def test_the_loss_is_the_negative_bound_in_model_units():
    model, x, _ = linear_gaussian(wrong_by=1.0)
    from latlas.core.model import Batch
    loss = model.loss(Batch(x), Step(0, 0, 1.0, Noise(3)))
    bound = model.elbo(x, noise=Noise(3))["bound"].mean() + model.space.log_volume
    torch.testing.assert_close(loss.total, -bound)


def with_spectrum(n: int = 400) -> np.ndarray:
    """(n, 6) examples whose sample covariance (over n) has exactly ``SPECTRUM``."""
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((n, 6))
    raw -= raw.mean(0)
    white = np.linalg.svd(raw, full_matrices=False)[0] * np.sqrt(n)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    return (white * np.sqrt(SPECTRUM)) @ turn.T


def trained_linear_vae(tmp_path, x: np.ndarray, space: Space, shape: tuple[int, ...]) -> VAE:
    """Full batches, one linear map each way, learnt variance."""
    def modules():
        return {"encoder": nn.Sequential(nn.Flatten(), nn.Linear(6, 2 * AXES)),
                "decoder": nn.Sequential(nn.Linear(AXES, 6), nn.Unflatten(1, shape))}
    data = Dataset(x.astype(np.float32).reshape(-1, *shape), space)
    training = tiny.options(images=2000 * len(x), batch_size=len(x), learning_rate=0.05)
    config = VAEConfig(latent_dim=AXES, likelihood="gaussian-learnt")
    return tiny.train(tmp_path / "run", "vae", data, config, training=training,
                      modules=modules)[0]


def mean_bound(model: VAE, x: np.ndarray) -> float:
    examples = model.space.to_model(torch.from_numpy(x).float().reshape(-1, *model.space.shape))
    return float(np.mean([model.elbo(examples, noise=Noise(s))["bound"].mean()
                          for s in range(100)]))


def test_a_linear_vae_reaches_ppca(tmp_path):
    """Images of continuous pixels share one learnt variance: exactly PPCA's noise.

    At its optimum the likelihood is −½ (Σ_{j≤k} log λ_j + (D − k) log σ² + D log 2π + D), and the
    bound is tight there (Lucas et al. 2019, theorem 1).
    """
    x = with_spectrum()
    optimum = -0.5 * (np.log(SPECTRUM).sum() + 6 * np.log(2 * np.pi) + 6)
    sklearn = SklearnPCA(AXES).fit(x).score(x)  # divides by n − 1, a little below the optimum
    assert optimum - 0.01 < sklearn < optimum
    model = trained_linear_vae(tmp_path, x, Images((1, 2, 3), None), (1, 2, 3))
    assert optimum - 0.1 < mean_bound(model, x) < optimum + 0.02


def test_a_linear_vae_on_a_table_reaches_factor_analysis(tmp_path):
    """A table has one learnt variance per column, which is factor analysis, in the table's units.

    Its diagonal posterior costs a little: the bound is tight only where WᵀΨ⁻¹W is diagonal, a
    rotation that the likelihood leaves free.
    """
    x = with_spectrum() * [1.0, 5.0, 0.2, 1.0, 3.0, 1.0] + 2.0
    space = Table.of_numbers(6, tuple(x.mean(0)), tuple(x.std(0)))
    truth = FactorAnalysis(AXES, tol=1e-6, max_iter=5000, svd_method="lapack").fit(x).score(x)
    model = trained_linear_vae(tmp_path, x, space, (6,))
    assert truth - 0.1 < mean_bound(model, x) < truth + 0.02


LEVELS, CENTRE, SCALE = 17, 0.2, 0.25


class Constant(nn.Module):
    """The same output for every input, (n, *shape)."""

    def __init__(self, *values: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values).view(-1, *[1] * (len(shape) - 1)))
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return self.values.expand(self.shape).expand(len(x), *self.shape)


def blind(likelihood: str, *values: float, noise_sd: float = 0.1) -> VAE:
    """A VAE whose code carries nothing: q is the prior and p(x|z) is one distribution."""
    space = Images((1, 1, 1), LEVELS)
    config = VAEConfig(latent_dim=1, likelihood=likelihood, noise_sd=noise_sd)
    return VAE(config, space, encoder=Constant(0.0, 0.0, shape=(2,)),
               decoder=Constant(*values, shape=(len(values), 1, 1)))


def integers() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the 17 levels under a binned logistic, and the levels in model units."""
    edges = np.linspace(-1, 1, LEVELS)[:-1] + 1 / 16
    cdf = scipy.special.expit((edges - CENTRE) / SCALE)
    return np.diff(np.concatenate([[0.0], cdf, [1.0]])), np.linspace(-1, 1, LEVELS)


def bits(model: VAE, draws: int) -> float:
    """Expected bits per dimension over the known distribution of integers."""
    p, x = integers()
    examples = torch.from_numpy(x).float().view(-1, 1, 1, 1).repeat(draws, 1, 1, 1)
    nats, _ = model.log_likelihood(examples, noise=Noise(0))
    return float(-(p * nats.view(draws, -1).mean(0).numpy()).sum() / np.log(2))


def test_a_discretised_likelihood_of_the_truth_costs_its_entropy():
    p, _ = integers()
    entropy = -(p * np.log2(p)).sum()
    model = blind("discretised-logistic", CENTRE, float(np.log(SCALE)))
    assert model.base_measure == "integers"
    assert bits(model, 1) == pytest.approx(entropy, abs=5e-4)


def test_a_dequantised_density_is_on_the_same_footing():
    """E_u log p(x + u) of a Gaussian, by quadrature; and below log of the integral over a bin."""
    p, x = integers()
    entropy, noise_sd = -(p * np.log2(p)).sum(), 0.45
    model = blind("gaussian", CENTRE, noise_sd=noise_sd)
    assert model.base_measure == "integers"
    nodes, weights = np.polynomial.legendre.leggauss(20)
    u = x[:, None] + nodes / 16
    inside = (scipy.stats.norm.logpdf(u, CENTRE, noise_sd) * weights / 2).sum(1) - np.log(8)
    truth = -(p * inside).sum() / np.log(2)
    result = bits(model, 4000)
    assert result == pytest.approx(truth, abs=4e-3)
    normal = scipy.stats.norm(CENTRE, noise_sd)
    whole = np.log(normal.cdf(x + 1 / 16) - normal.cdf(x - 1 / 16))
    assert truth > -(p * whole).sum() / np.log(2) > entropy


def test_dequantising_more_draws_average_to_the_same_items():
    x = torch.tensor([[0.5]])
    many = dequantise(x.expand(50_000, 1), 0.25, Noise(0))
    assert many.mean().item() == pytest.approx(0.5, abs=0.002)


def test_gray_pixels_under_coin_flips_are_called_no_likelihood():
    space = Images((1, 2, 2))
    families = {b: vae_module.Likelihood("bernoulli", space, b)
                for b in ("none", "dynamic", "threshold")}
    assert "no likelihood" in families["none"].base_measure
    assert families["dynamic"].base_measure == families["threshold"].base_measure == "binary pixels"
    gray = torch.zeros(20_000, 1, 2, 2) - 0.5  # a quarter ink
    drawn = families["dynamic"].preprocess(gray, Noise(0))
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert (drawn == 1).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert (families["threshold"].preprocess(gray, Noise(0)) == -1).all()


def test_bf16_moves_an_importance_weighted_bound_by_hundredths_of_a_nat(tmp_path):
    data = tiny.images(n=64)
    model, _ = tiny.train(tmp_path / "run", "vae", data, tiny.small("vae"))
    model.eval()
    full = score(model, data, draws=64, precision="fp32")
    half = score(model, data, draws=64, precision="bf16")
    assert abs(half.mean - full.mean) < 0.05
    assert not np.array_equal(half.nats, full.nats)
    np.testing.assert_array_equal(score(model, data, draws=64).nats, full.nats)
    with pytest.raises(ConfigError, match=r"unknown precision 'auto'.*fp32"):
        score(model, data, precision="auto")
