"""The atlas VAE against the mixture of probabilistic PCA, and what its charts cover."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tiny
import torch
from torch import Tensor, nn

import latlas
from latlas.core.errors import ConfigError
from latlas.core.model import Batch, Step
from latlas.core.noise import Noise
from latlas.core.space import Table
from latlas.data.batches import Sweep
from latlas.data.dataset import Dataset
from latlas.models.atlas_vae import AtlasPrior, AtlasVAE, AtlasVAEConfig
from latlas.models.linear_atlas import cells

SHARES, NOISE_SD, UNITS = np.array([0.2, 0.5, 0.3]), 0.3, np.array([1.0, 10.0, 0.1, 3.0])


class PPCADecoder(nn.Module):
    """W_k z + b_k of coordinates and a one-hot vector of the chart k."""

    def __init__(self, w: Tensor, b: Tensor) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(w), nn.Parameter(b)

    def forward(self, inputs: Tensor) -> Tensor:
        z, k = inputs[:, :self.w.shape[2]], inputs[:, self.w.shape[2]:].argmax(1)
        return torch.einsum("ndj,nj->nd", self.w[k], z) + self.b[k]


class PPCAEncoder(nn.Module):
    """The exact posterior: N(M_k⁻¹ W_kᵀ(x − b_k), σ² M_k⁻¹) of every chart, M_k = W_kᵀW_k + σ²I,
    which is diagonal here, and log p(k|x); log variances are wrong by ``wrong_by``."""

    def __init__(self, w: Tensor, b: Tensor, wrong_by: float) -> None:
        super().__init__()
        self.w, self.b, self.wrong_by = nn.Parameter(w), nn.Parameter(b), wrong_by

    def forward(self, x: Tensor) -> Tensor:
        m = self.w.square().sum(1) + NOISE_SD**2
        mean = torch.einsum("kdj,nkd->nkj", self.w, x[:, None] - self.b) / m
        log_var = (NOISE_SD**2 / m).log().expand_as(mean) + self.wrong_by
        logits = [math.log(s) + torch.distributions.MultivariateNormal(
            b, w @ w.T + NOISE_SD**2 * torch.eye(4)).log_prob(x)
            for s, w, b in zip(SHARES, self.w, self.b, strict=True)]
        latents = torch.cat([mean, log_var], 2).flatten(1)
        return torch.cat([latents, torch.stack(logits, 1)], 1)


def mixture(wrong_by: float = 0.0) -> tuple[AtlasVAE, Tensor, np.ndarray]:
    """An atlas of three planes in four dimensions, examples (model units), exact log-densities."""
    rng = np.random.default_rng(0)
    w = np.stack([np.linalg.qr(rng.standard_normal((4, 2)))[0] * (1.5, 0.7) for _ in SHARES])
    b = 1.5 * rng.standard_normal((3, 4))
    networks = [torch.as_tensor(v, dtype=torch.float32) for v in (w, b)]
    space = Table.of_numbers(4, tuple(rng.standard_normal(4)), tuple(UNITS))
    config = AtlasVAEConfig(latent_dim=2, n_charts=3, likelihood="gaussian", noise_sd=NOISE_SD)
    model = AtlasVAE(config, space, encoder=PPCAEncoder(*networks, wrong_by),
                     decoder=PPCADecoder(*networks)).eval()
    model.prior.logits.data.copy_(torch.as_tensor(SHARES).log())
    parts = [scipy.stats.multivariate_normal(
        np.asarray(space.location) + UNITS * b[k],
        (UNITS[:, None] * w[k]) @ (UNITS[:, None] * w[k]).T + np.diag((UNITS * NOISE_SD) ** 2),
        seed=k) for k in range(3)]
    v = np.concatenate([p.rvs(100) for p in parts])
    truth = scipy.special.logsumexp([p.logpdf(v) + math.log(s) for p, s in zip(
        parts, SHARES, strict=True)], 0)
    return model, space.to_model(torch.as_tensor(v)).float(), truth


def test_with_the_exact_posterior_one_draw_is_the_mixture_of_ppca():
    model, x, truth = mixture()
    for draws in (1, 9):
        nats, ess = model.log_likelihood(x, noise=Noise(0), draws=draws)
        np.testing.assert_allclose(nats, truth, atol=5e-4)
        np.testing.assert_allclose(ess, draws, rtol=1e-3)


def test_the_bound_summed_over_charts_has_no_gap():
    model, x, truth = mixture()
    parts = model.elbo(x, noise=Noise(1), draws=400)
    error = parts["se"]
    assert 0 < error.max() < 0.2
    z = (parts["bound"].numpy() - truth) / error.numpy()
    assert np.abs(z).max() < 5 and 0.8 < z.std() < 1.2
    torch.testing.assert_close(parts["bound"], -parts["reconstruction"] - parts["kl"])


def test_with_a_wrong_posterior_the_bound_is_low_by_its_kl_and_rises_with_draws():
    """Variances e times too large: KL of two Gaussians, ½ (e − 1 − 1) for each coordinate."""
    model, x, truth = mixture(wrong_by=1.0)
    gap = truth.mean() - model.elbo(x, noise=Noise(0), draws=300)["bound"].mean().item()
    assert gap == pytest.approx(math.e - 2, abs=0.02)
    nats, ess = model.log_likelihood(x, noise=Noise(0), draws=2000)
    assert nats.mean().item() == pytest.approx(truth.mean(), abs=0.01)
    assert 100 < ess.mean() < 2000


def test_a_posterior_of_charts_that_is_not_the_true_one_costs_its_kl():
    model, x, truth = mixture()
    before = model.encode(x).log_r
    model.linear.noise.fill_(1.0)  # as if fitted: every centre at 0, so that |z|² is 0 as well
    model.linear.centres[1] = 1.0
    after = model.encode(x).log_r
    kl = (after.exp() * (after - before)).sum(0)
    gap = truth - model.elbo(x, noise=Noise(0), draws=2000)["bound"].numpy()
    assert kl.mean() > 0.005
    assert gap.mean() == pytest.approx(kl.mean().item(), abs=0.01)


def test_the_loss_is_the_negative_bound_and_the_balance():
    model, x, _ = mixture(wrong_by=1.0)
    loss = model.loss(Batch(x), Step(0, 0, 1.0, Noise(3)))
    bound = model.elbo(x, noise=Noise(3))["bound"].mean() + model.space.log_volume
    balance = model.config.balance * -np.log(3 * SHARES).mean()
    assert loss.total.item() == pytest.approx(-bound.item() + balance, rel=1e-5)
    usage = model.responsibilities(x).mean(0)
    assert loss.terms["least_used"].item() == pytest.approx(usage.min().item(), rel=1e-5)
    assert loss.terms["charts_used"].item() == pytest.approx(
        math.exp(scipy.stats.entropy(usage.detach())), rel=1e-5)


def test_a_normal_vector_lies_in_each_chart_as_often_as_the_chart_is_used():
    prior = AtlasPrior(2, 3)
    prior.logits.data.copy_(torch.as_tensor(SHARES).log() + 5)
    counts = np.bincount(prior.chart_of(prior.sample(20_000, Noise(0))), minlength=3)
    assert scipy.stats.chisquare(counts, 20_000 * SHARES).pvalue > 0.001


@torch.no_grad()
def test_numbers_drawn_in_charts_are_normal_when_charts_are_as_frequent():
    prior, n = AtlasPrior(2, 3), 20_000
    prior.logits.data.copy_(torch.as_tensor(SHARES).log())
    chart = torch.as_tensor(np.random.default_rng(0).choice(3, n, p=SHARES))
    z = prior.join(torch.zeros(n, 2), chart, Noise(1))
    assert torch.equal(prior.chart_of(z), chart)
    for column in z[:, 2:].T:
        assert scipy.stats.kstest(column, "norm").pvalue > 0.001
    assert np.abs(np.corrcoef(z[:, 2:].T.numpy()) - np.eye(3)).max() < 0.04
    assert torch.equal(prior.chart_of(prior.join(torch.zeros(3, 2), torch.arange(3))),
                       torch.arange(3))


@torch.no_grad()
def test_draws_of_the_posterior_follow_the_responsibilities():
    model, x, _ = mixture()
    x = x[model.responsibilities(x).amax(1) < 0.9][:1]
    q, r = model.encode(x), model.responsibilities(x)[0]
    draws = q.draws(20_000, Noise(0))
    chart = model.prior.chart_of(draws)[:, 0]
    expected = 20_000 * (r.double() / r.double().sum())
    assert scipy.stats.chisquare(np.bincount(chart, minlength=3), expected).pvalue > 0.001
    for k in range(3):
        z = draws[chart == k, 0, :2]
        mean, log_var = q.charts.mean[k, 0], q.charts.log_var[k, 0]
        assert scipy.stats.kstest(((z - mean) / (0.5 * log_var).exp()).flatten(),
                                  "norm").pvalue > 0.001


def sphere(n: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, 3))
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def two_rings(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle, side = rng.uniform(0, 2 * np.pi, n), 2 * rng.integers(0, 2, n) - 1
    return np.asarray(np.c_[1.5 * side + np.cos(angle), np.sin(angle)]
                      + 0.02 * rng.standard_normal((n, 2)), np.float32)


def test_cells_lie_on_one_side_of_a_tube_and_in_one_component():
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 600)
    tube = np.c_[np.cos(angle), np.sin(angle), np.random.default_rng(1).uniform(0, 1.5, 600)]
    label = cells(np.concatenate([tube, tube + 5]), 8)
    assert all(len(set(np.flatnonzero(label == k) < 600)) == 1 for k in range(8))
    for k in set(label[:600]):
        heading = np.exp(1j * angle[label[:600] == k])
        assert np.abs(np.angle(heading / heading.mean())).max() < np.pi / 2


@pytest.mark.parametrize(("n", "distinct"), [(1, 1), (2, 1), (5, 5), (40, 3)])
def test_few_or_equal_examples_make_few_cells_and_a_finite_atlas(n, distinct):
    x = sphere(distinct)[np.arange(n) % distinct]
    model = tiny.build("atlas-vae", data := dataset(x), tiny.small("atlas-vae"))
    model.prepare(Sweep(data), n)
    assert all(v.isfinite().all() for v in model.state_dict().values())
    assert all(v.isfinite().all() for v in model.loss(
        Batch(torch.as_tensor(x)), Step(0, 0, 1.0, Noise(0))).terms.values())


def dataset(x: np.ndarray) -> Dataset:
    return Dataset(x, Table.of_numbers(x.shape[1]))


@torch.no_grad()
def test_the_linear_atlas_inverts_itself_on_its_planes_which_end():
    model = tiny.build("atlas-vae", data := dataset(sphere(500)), tiny.small(
        "atlas-vae", latent_dim=2, n_charts=6))
    model.prepare(Sweep(data), 500)
    z, chart = torch.randn(6, 40, 2), torch.eye(6)[:, None].expand(6, 40, 6)
    points, far = model.linear.decode(chart, z), model.linear.decode(chart, 1e6 * z)
    for k in range(6):
        shrunk = z[k] / (1 + z[k].square().sum(1, keepdim=True) / 16).sqrt()
        torch.testing.assert_close(model.linear.encode(points[k])[0][k], shrunk, atol=1e-3, rtol=0)
        ends = model.linear.encode(far[k])[0][k].norm(dim=1)
        torch.testing.assert_close(ends, torch.full((40,), 4.0), atol=1e-3, rtol=0)
    label = model.linear.encode(torch.as_tensor(sphere(500)))[2].argmax(0)
    assert np.bincount(label, minlength=6).min() > 40


@pytest.fixture(scope="module")
def atlas():
    return latlas.train("atlas-vae", sphere(4000), latent_dim=2, n_charts=6, width=48, depth=1,
                        images=60_000, batch_size=50, learning_rate=0.004, ema=0.0,
                        weight_decay=0.0, seed=0, threads=1, progress=False).model


@torch.no_grad()
def test_a_sphere_is_covered_by_all_charts_and_none_folds(atlas):
    x = torch.as_tensor(atlas.space.to_model(sphere(1000, 1))).float()
    assert atlas.responsibilities(x).mean(0).min() > 0.05
    chart, z = atlas.encode_chart(x)
    back = torch.cat([atlas.decode_chart(int(k), z[i:i + 1]).mean for i, k in enumerate(chart)])
    np.testing.assert_allclose(back, atlas.decode(atlas.encode(x).mean).mean, atol=1e-5)
    assert (back - x).norm(dim=1).quantile(0.99) < 0.2
    assert torch.equal(atlas.encode(x).mean[:, 2:].argmax(1), chart)  # as the docs say
    for k in range(6):
        here = z[chart == k]
        tangents = [(atlas.decode_chart(k, here + step).mean - atlas.decode_chart(k, here).mean)
                    for step in 0.01 * torch.eye(2)]
        outward = torch.linalg.cross(*tangents) * atlas.decode_chart(k, here).mean
        assert len(set(outward.sum(1).sign().tolist())) == 1


@torch.no_grad()
def test_transitions_agree_with_the_data_where_charts_overlap(atlas):
    x = torch.as_tensor(atlas.space.to_model(sphere(4000, 2))).float()
    shares, order = atlas.responsibilities(x).sort(1, descending=True)
    seam = shares[:, 1] > 0.3
    assert seam.sum() > 20
    for point, (j, k) in zip(x[seam], order[seam, :2].tolist(), strict=True):
        z = atlas.encode_chart(point[None], j)[1]
        there = atlas.decode_chart(k, atlas.transition(j, k, z)).mean
        assert (there - point).norm() < 0.3


def test_charts_compute_in_float64_for_geometry(atlas):
    twin = copy.deepcopy(atlas).double()
    x = twin.space.to_model(torch.as_tensor(sphere(5), dtype=torch.float64)).double()
    chart, z = twin.encode_chart(x, 1)
    assert chart.tolist() == [1] * 5 and z.dtype == torch.float64
    jacobian = torch.autograd.functional.jacobian(
        lambda z: twin.decode_chart(1, z[None]).mean[0], z[0].detach())
    assert jacobian.dtype == torch.float64 and torch.linalg.matrix_rank(jacobian) == 2
    torch.testing.assert_close(z.float(), atlas.encode_chart(x.float(), 1)[1], atol=1e-4, rtol=1e-4)


def test_samples_of_rings_that_lie_apart_stay_on_them():
    settings = {"latent_dim": 1, "width": 32, "depth": 1, "images": 60_000, "threads": 1,
                "batch_size": 50, "learning_rate": 0.004,
                "progress": False, "seed": 0}
    off = {}
    for model in ("vae", "atlas-vae"):
        run = latlas.train(model, two_rings(4000), **settings)
        v = latlas.sample(run, 2000, seed=1).values
        radius = np.hypot(np.abs(v[:, 0]) - 1.5, v[:, 1])
        off[model] = (np.abs(radius - 1) > 0.2).mean()
    assert off["atlas-vae"] < 0.1 < 0.4 < off["vae"]


@pytest.mark.parametrize(("option", "value"), [("prior", "mixture"), ("free_bits", 0.1)])
def test_what_an_atlas_has_not_is_refused_in_one_line(option, value):
    with pytest.raises(ConfigError, match=f"^{option}=.*or train vae$"):
        AtlasVAEConfig(**{option: value})
