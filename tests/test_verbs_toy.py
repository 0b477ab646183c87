"""A linear-Gaussian model whose every quantity has a closed form, and the verbs that read it.

    z ~ N(0, I_2),  x | z ~ N(W z, s² I_4)  in model units
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import latlas
from latlas.core.distributions import Normal
from latlas.core.errors import CapabilityError, ConfigError
from latlas.core.model import Model
from latlas.core.space import Images, Points, Table
from latlas.data.dataset import Dataset
from latlas.run import Run
from latlas.verbs import estimators
from latlas.verbs.estimators import Settings, elbo_parts, estimates
from latlas.verbs.generate import walk
from latlas.verbs.passes import (
    can,
    decoded,
    drawn_examples,
    encoded,
    information,
    map_batches,
    squared_errors,
)
from latlas.verbs.score import score

SCALE = (1.0, 2.0, 0.5, 4.0)
SPACE = Table.of_numbers("abcd", location=(1.0, 0.0, -1.0, 3.0), scale=SCALE)
WEIGHT = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [-0.5, 1.0]])
NOISE = 0.5


class Linear(Model):
    """Posterior N(M⁻¹ Wᵀ x, s² M⁻¹) made diagonal, so that the bound is not tight."""

    base_measure = "table units"

    def __init__(self, widen=0.0):
        super().__init__(None, SPACE)
        self.latent_dim, self.widen = 2, widen
        self.register_buffer("weight", WEIGHT)

    def encode(self, x, *, condition=None):
        m = self.weight.T @ self.weight + NOISE**2 * torch.eye(2)
        variance = NOISE**2 * torch.linalg.inv(m).diagonal()
        mean = x @ self.weight @ torch.linalg.inv(m)
        return Normal(mean, (variance.log() + self.widen).expand_as(mean))

    def decode(self, z, *, condition=None):
        return Normal(z @ self.weight.T, torch.tensor(2 * math.log(NOISE)))

    def sample(self, n, *, noise, condition=None):
        return self.decode(noise.normal(n, 2)).mean

    def _log_weights(self, x, noise, draws):
        q = self.encode(x)
        z = q.mean + torch.exp(0.5 * q.log_var) * noise.normal(draws, *q.mean.shape)
        prior = Normal(torch.zeros(2), torch.zeros(2)).log_prob(z)
        return self.decode(z).log_prob(x) + prior - q.log_prob(z) - SPACE.log_volume

    def log_likelihood(self, x, *, noise, draws=1, condition=None):
        w = self._log_weights(x, noise, draws).double()
        ess = torch.exp(2 * w.logsumexp(0) - (2 * w).logsumexp(0))
        return w.logsumexp(0) - math.log(draws), ess

    def elbo(self, x, *, noise, draws=1, condition=None):
        every = self._log_weights(x, noise, draws)
        bound = every.mean(0)
        return {"bound": bound, "reconstruction": -bound - 1, "kl": torch.ones_like(bound),
                "se": every.std(0) / draws**0.5 if draws > 1 else torch.full_like(bound, math.nan)}


class Exact(Linear):
    """The same with its likelihood in closed form."""

    exact_likelihood = True

    def log_likelihood(self, x, *, noise, draws=1, condition=None):
        return truth(x), torch.full((len(x),), math.inf)


class OnlySamples(Model):
    latent_dim = 2

    def sample(self, n, *, noise, condition=None):
        return noise.normal(n, 4)


def truth(x):
    covariance = (WEIGHT @ WEIGHT.T + NOISE**2 * torch.eye(4)).numpy()
    return torch.as_tensor(multivariate_normal(np.zeros(4), covariance).logpdf(x.numpy())
                           - sum(map(math.log, SCALE))).reshape(-1)


def table(n=50, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)) @ WEIGHT.numpy().T + NOISE * rng.normal(size=(n, 4))
    return Dataset(SPACE.to_data(x.astype(np.float32)), SPACE)


def exact_nats(data):
    """By SciPy, straight in data units: location and covariance both transformed."""
    scale = np.diag(SCALE)
    covariance = scale @ (WEIGHT @ WEIGHT.T + NOISE**2 * torch.eye(4)).numpy() @ scale
    return multivariate_normal(np.array(SPACE.location), covariance).logpdf(data.x)


def test_exact_scores_are_scipys_density_in_data_units():
    data = table()
    scores = score(Exact(), data, draws=7)
    assert scores.method == "exact" and scores.draws == 0
    assert np.isinf(scores.ess).all() and not scores.unreliable.any()
    np.testing.assert_allclose(scores.nats, exact_nats(data), atol=1e-4)
    np.testing.assert_allclose(scores.bits_per_dim, -exact_nats(data) / (4 * math.log(2)),
                               atol=1e-4)


def test_importance_weights_close_in_on_the_exact_figure_from_below():
    data, exact = table(200), exact_nats(table(200)).mean()
    one, few, many = (score(Linear(0.5), data, draws=k) for k in (1, 10, 2000))
    assert one.mean < few.mean < many.mean
    assert many.mean == pytest.approx(exact, abs=0.02)
    assert many.method == "iw" and many.draws == 2000
    assert (many.ess > 10).all() and few.unreliable.all()


def test_standard_error_is_over_items():
    scores = score(Exact(), table(30))
    assert scores.standard_error == pytest.approx(exact_nats(table(30)).std(ddof=1) / 30**0.5,
                                                  rel=1e-4)
    assert math.isnan(score(Exact(), table(1)).standard_error)


def test_elbo_is_one_draw_and_has_no_sample_size():
    scores = score(Linear(), table(), method="elbo")
    assert scores.method == "elbo" and np.isnan(scores.ess).all()
    assert not scores.unreliable.any()
    parts = elbo_parts(Linear(), table())
    np.testing.assert_allclose(parts["bound"], -parts["reconstruction"] - parts["kl"], atol=1e-5)


def test_scores_are_deterministic_and_follow_the_seed():
    a, b, c = (score(Linear(), table(), draws=5, seed=s).nats for s in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).all()


def test_the_batch_keeps_the_draws_within_memory(monkeypatch):
    def first_batch(method, draws):
        """Examples whose draws are made at once; nothing is estimated."""
        sizes = []
        monkeypatch.setattr(estimators, "estimate",
                            lambda model, observes, batch, *_: sizes.append(len(batch)))
        model = Linear()
        next(estimates(model, model, table(600), method, Settings(draws), 0, None))
        return sizes[0]

    sizes = [first_batch("iw", k) for k in (1, 100_000, 10**9)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == 512 and sizes[-1] == 1
    assert sizes[1] * 100_000 * 4 * 4 <= 200_000_000
    # shared draws are taken in parts
    monkeypatch.setattr(estimators, "_row_bytes", lambda *_: 64)
    assert first_batch("naive", 10**9) == 512


def test_progress_counts_every_item():
    calls = []
    score(Linear(), table(50), draws=2, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (50, 50)


@pytest.mark.parametrize(("model", "options", "culprit"), [
    (Linear(), {"method": "exact"}, "exact likelihood"),
    (OnlySamples(None, SPACE), {}, "likelihood"),
])
def test_scores_a_model_cannot_give_are_refused_in_one_line(model, options, culprit):
    with pytest.raises(CapabilityError, match=culprit):
        score(model, table(), **options)


def test_score_options_are_checked():
    with pytest.raises(ConfigError, match="did you mean 'exact'"):
        score(Linear(), table(), method="exakt")
    with pytest.raises(ConfigError, match="draws=0"):
        score(Linear(), table(), draws=0)


def test_columns_name_the_items():
    data = replace(table(3), names=np.array(["p", "q", "r"]))
    columns = score(Exact(), data).table()
    assert columns["example"].tolist() == ["p", "q", "r"]
    assert {len(v) for v in columns.values()} == {3}


def test_codes_are_posterior_means_whatever_the_batch():
    data = table()
    centred = SPACE.to_model(data.x)
    m = WEIGHT.T @ WEIGHT + NOISE**2 * torch.eye(2)
    expected = centred @ (WEIGHT @ torch.linalg.inv(m)).numpy()
    few = map_batches(Linear(), data, lambda model, batch: model.encode(batch.x).mean.numpy(),
               batch_size=7)
    for latents in (few, latlas.encode(Linear(), data)):
        np.testing.assert_allclose(latents, expected, atol=1e-5)


def test_a_model_reads_data_in_its_own_units_not_those_of_the_file():
    data = table()
    other = Dataset(data.x, Table.of_numbers(4, location=9.0, scale=3.0))
    np.testing.assert_array_equal(encoded(Linear(), data), encoded(Linear(), other))


def test_reconstruction_is_the_decoded_mean_code():
    data = table(20)
    latents = encoded(Linear(), data)
    expected = SPACE.to_data((latents @ WEIGHT.numpy().T).astype(np.float32))
    np.testing.assert_allclose(latlas.reconstruct(Linear(), data), expected, atol=1e-5)
    np.testing.assert_allclose(squared_errors(Linear(), data),
                               np.square(expected - data.x).mean(1), rtol=1e-3, atol=1e-5)


def test_information_is_the_kl_to_a_normal_with_the_moments_of_the_codes():
    data = table(30)
    q = Linear().encode(torch.from_numpy(SPACE.to_model(data.x)))
    sd = torch.exp(0.5 * q.log_var)
    around = torch.distributions.Normal(q.mean.mean(0),
                                        (q.mean.var(0, correction=0) + sd.square().mean(0)).sqrt())
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(q.mean, sd), around)
    np.testing.assert_allclose(information(Linear(), data), kl.mean(0), rtol=1e-4)


def test_items_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"shape \(3,\)"):
        encoded(Linear(), Dataset(np.zeros((2, 3), np.float32), Table.of_numbers(3)))


def test_samples_have_the_model_s_moments():
    drawn = SPACE.to_model(latlas.sample(Linear(), 20_000, mean=False).values)
    means = SPACE.to_model(latlas.sample(Linear(), 20_000, mean=True).values)
    covariance = (WEIGHT @ WEIGHT.T).numpy()
    np.testing.assert_allclose(np.cov(means.T), covariance, atol=0.06)
    np.testing.assert_allclose(np.cov(drawn.T), covariance + NOISE**2 * np.eye(4), atol=0.06)


def test_tables_are_drawn_and_pictures_are_means():
    for space, drawn in ((SPACE, False), (Points((4,)), False), (Images((4,), None), True)):
        model = Linear()
        model.space = space
        samples = latlas.sample(model, 3)
        np.testing.assert_array_equal(samples, latlas.sample(model, 3, mean=drawn))
        assert (samples != latlas.sample(model, 3, mean=not drawn)).all()
    with pytest.raises(ConfigError, match="n=-3"):
        latlas.sample(Linear(), -3)


def test_samples_follow_the_seed_and_come_in_the_number_asked_for():
    a, b, c = (drawn_examples(Linear(), 10, seed=s, batch_size=4) for s in (3, 3, 4))
    np.testing.assert_array_equal(a, b)
    assert a.shape == (10, 4) and a.dtype == np.float32 and (a != c).all()
    assert latlas.sample(Linear(), 0).shape == (0, 4)
    assert latlas.sample(OnlySamples(None, SPACE), 3, mean=False).shape == (3, 4)


def test_inference_leaves_the_mode_as_it_was():
    model = Linear().train()
    latlas.sample(model, 2)
    assert model.training


def test_pictures_come_back_as_whole_levels():
    space = Images((1, 2, 2), levels=17)
    model = Linear()
    model.space = space
    model.decode = lambda z, condition=None: Normal(
        (3 * z @ WEIGHT.T).reshape(-1, 1, 2, 2), torch.zeros(1), 3)
    x = latlas.sample(model, 50).values
    assert x.dtype == np.uint8 and x.min() == 0 and x.max() == 16


@pytest.mark.parametrize("method", ["linear", "slerp"])
def test_paths_begin_and_end_at_the_codes(method):
    start, end = np.array([3.0, 0.0, 0.0]), np.array([0.0, 0.0, 5.0])
    path = walk(start, end, 5, method)
    np.testing.assert_allclose(path[[0, -1]], [start, end], atol=1e-12)
    middle = {"linear": [1.5, 0, 2.5], "slerp": [4 / 2**0.5, 0, 4 / 2**0.5]}[method]
    np.testing.assert_allclose(path[2], middle, atol=1e-12)


@pytest.mark.parametrize("end", [[2.0, 0, 0], [-1.0, 0, 0], [0.0, 0, 0]])
def test_circles_through_parallel_opposite_and_zero_codes_stay_finite(end):
    path = walk([1.0, 0, 0], end, 9, "slerp")
    norms = np.linalg.norm(path, axis=1)
    np.testing.assert_allclose(path[-1], end, atol=1e-12)
    np.testing.assert_allclose(norms, np.linspace(1, np.linalg.norm(end), 9), atol=1e-12)


def test_interpolation_decodes_the_path():
    a, b = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    examples = latlas.interpolate(Linear(), a, b, steps=3)
    expected = SPACE.to_data(np.array([a, (a + b) / 2, b]) @ WEIGHT.numpy().T)
    np.testing.assert_allclose(examples, expected, atol=1e-5)
    with pytest.raises(ConfigError, match="unknown method 'arc'"):
        latlas.interpolate(Linear(), a, b, method="arc")
    with pytest.raises(ConfigError, match="widths 2 and 3"):
        latlas.interpolate(Linear(), a, [1, 2, 3])


def test_traversal_varies_one_dimension_at_a_time():
    examples = SPACE.to_model(latlas.traverse(Linear(), span=2.0, steps=5).values)
    assert examples.shape == (2, 5, 4)
    for dim in range(2):
        expected = np.linspace(-2, 2, 5)[:, None] * WEIGHT[:, dim].numpy()
        np.testing.assert_allclose(examples[dim], expected, atol=1e-5)


def test_traversal_over_codes_starts_with_the_most_active_and_uses_their_spread():
    positions = np.random.default_rng(0).normal([1, 2], [0.1, 3.0], size=(500, 2))
    examples = SPACE.to_model(latlas.traverse(Linear(), latents=positions, steps=3, span=1).values)
    reach = examples[0, 2] - examples[0, 1]
    np.testing.assert_allclose(reach, positions[:, 1].std() * WEIGHT[:, 1].numpy(), atol=1e-4)
    np.testing.assert_allclose(examples[0, 1], positions.mean(0) @ WEIGHT.numpy().T, atol=1e-4)
    with pytest.raises(ConfigError, match="no dimension 7"):
        latlas.traverse(Linear(), dims=[0, 7])


def test_codes_of_the_wrong_width_are_refused():
    with pytest.raises(ConfigError, match="3 dimensions, the model 2"):
        latlas.decode(Linear(), np.zeros((4, 3)))
    with pytest.raises(ConfigError, match="3 conditions for 4 examples"):
        decoded(Linear(), np.zeros((4, 2)), condition=[0, 1, 2])


def test_require_names_the_models_that_can(monkeypatch):
    able = {"gan": {"sample"}, "vae": {"encode"}, "ae": {"encode"}}
    monkeypatch.setattr("latlas.models.MODELS", {
        name: SimpleNamespace(provides=frozenset(words)) for name, words in able.items()})
    Run.of(Linear()).require("encode")
    run = Run.of(OnlySamples(None, SPACE))
    run.model_name = "gan"
    with pytest.raises(CapabilityError) as caught:
        run.require("encode")
    assert str(caught.value) == ("gan cannot encode; `encode` needs an encoder. "
                                 "Models that can: ae, vae")


def test_capabilities_are_what_protocols_say():
    sampler = OnlySamples(None, SPACE)
    assert can(sampler, "sample") and not can(sampler, "encode")
    assert all(can(Linear(), what) for what in ("sample", "encode", "decode", "score"))
