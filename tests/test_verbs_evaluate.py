"""Evaluation and comparison: metrics beside controls, base measures kept apart."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from latlas.core.distributions import Normal, PointMass
from latlas.core.errors import ConfigError
from latlas.core.model import Model
from latlas.core.space import Images, Table
from latlas.data.dataset import Dataset
from latlas.metrics.table import KINDS, Metric, number
from latlas.verbs.evaluate import Evaluation, evaluated, side_by_side
from latlas.verbs.sample_quality import feature_extractor

LEVELS = 16
SPACE = Images((1, 2, 2), LEVELS, classes=("dark", "light"))


class Gaussian(Model):
    """x ~ N(m, v) per pixel, the density of dequantised levels; the code is half the image."""

    base_measure = "integers"
    exact_likelihood = True

    def __init__(self, train, space=SPACE):
        super().__init__(None, space)
        self.latent_dim = 2
        x = torch.from_numpy(space.to_model(np.asarray(train.take("x"), np.float32)))
        self.register_buffer("mean", x.mean(0))
        self.register_buffer("variance", x.var(0, unbiased=False) + space.step**2 / 12)

    def encode(self, x, *, condition=None):
        return PointMass(x.flatten(1)[:, :2])

    def decode(self, z, *, condition=None):
        rest = self.mean.flatten()[2:].expand(len(z), 2)
        return PointMass(torch.cat([z, rest], 1).reshape(-1, *self.space.shape), 3)

    def sample(self, n, *, noise, condition=None):
        return self.mean + self.variance.sqrt() * noise.normal(n, *self.space.shape)

    def sample_latents(self, n, *, noise):
        return noise.normal(n, 2)

    def log_likelihood(self, x, *, noise, draws=1, condition=None):
        q = Normal(self.mean, self.variance.log(), len(self.space.shape))
        return q.log_prob(x) - self.space.log_volume, torch.full((len(x),), math.inf)


class Sampler(Model):
    """Samples and nothing else: what it is given, in order."""

    latent_dim = 1

    def __init__(self, examples, space=SPACE):
        super().__init__(None, space)
        self.examples = torch.from_numpy(space.to_model(examples.astype(np.float32)))

    def sample(self, n, *, noise, condition=None):
        return self.examples[:n]


class Binary(Gaussian):
    base_measure = "binary pixels"


class Loose(Gaussian):
    """Importance weights of which few count."""

    exact_likelihood = False

    def log_likelihood(self, x, *, noise, draws=1, condition=None):
        nats, _ = super().log_likelihood(x, noise=noise)
        return nats, torch.full((len(x),), 3.0)


def data(n, seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(2, size=n)
    x = rng.normal(4 + 7 * label[:, None], 1.5, size=(n, 4))
    return Dataset(np.clip(np.rint(x), 0, 15).astype(np.uint8).reshape(n, 1, 2, 2), SPACE, label)


@pytest.fixture(scope="module")
def parts():
    return data(400, 0), data(200, 1)


@pytest.fixture(scope="module")
def extract(parts):
    return feature_extractor("pixels", parts[0])


def run(model, parts, extract, **options):
    return evaluated(model, train=parts[0], test=parts[1], features=extract, samples=200,
                   **options)


def by_hand(parts):
    """E log p over uniform dequantisation noise would differ: here x sits mid-level."""
    train, test = (np.asarray(p.take("x"), np.float64).reshape(len(p), -1) for p in parts)
    m, v = train.mean(0), train.var(0) + 1 / 12
    return (-0.5 * ((test - m) ** 2 / v + np.log(2 * np.pi * v))).sum(1)


def test_likelihood_is_in_data_units_with_its_standard_error(parts, extract):
    nats = run(Gaussian(parts[0]), parts, extract).get("nats")
    expected = by_hand(parts)
    assert nats.value == pytest.approx(expected.mean(), abs=1e-4)
    assert nats.error == pytest.approx(expected.std(ddof=1) / 200**0.5, rel=1e-3)


def test_a_diagonal_gaussian_equals_its_own_control(parts, extract):
    result = run(Gaussian(parts[0]), parts, extract)
    bits, nats = result.get("bits_per_dim"), result.get("nats")
    assert nats.control_name == "diagonal Gaussian"
    assert nats.value == pytest.approx(nats.control, abs=0.02)
    assert bits.value == pytest.approx(-nats.value / (4 * math.log(2)))
    assert bits.control == pytest.approx(-nats.control / (4 * math.log(2)))


def test_reconstruction_error_in_levels_and_on_the_unit_range(parts, extract):
    result = run(Gaussian(parts[0]), parts, extract)
    train, test = (np.asarray(p.take("x"), np.float64).reshape(len(p), -1) for p in parts)
    error = np.square(test - train.mean(0))
    assert result.get("mse").value == pytest.approx(error[:, 2:].sum(1).mean() / 4, rel=1e-4)
    assert result.get("mse").control == pytest.approx(error.mean(), rel=1e-4)
    assert result.get("mse_unit").value == pytest.approx(result.get("mse").value / 15**2)
    assert result.get("active_units").value == 2 and result.get("latent_dim").value == 2


def test_real_items_are_as_good_as_the_control_and_copies_are_caught(parts, extract):
    fresh = run(Sampler(data(200, 2).x), parts, extract)
    copies = run(Sampler(parts[0].x), parts, extract)
    assert fresh.get("nats") is None and fresh.base_measure is None
    # whole levels tie, so the ratio and near copies are coarse here: C_T ranks them fairly
    assert abs(fresh.get("data_copying").value) < 3
    assert copies.get("data_copying").value < -3
    assert any("finds copying" in note for note in copies.notes)
    assert copies.get("data_copying").training_copies < -3
    assert fresh.get("frechet").value < 4 * fresh.get("frechet").control + 0.2
    assert abs(fresh.get("two_sample").value - 0.5) < 0.12


def test_few_effective_draws_are_flagged(parts, extract):
    result = run(Loose(parts[0]), parts, extract)
    assert result.get("nats").flag == "ESS < 10" and result.get("ess_median").value == 3
    assert any("100.0% of the examples" in note for note in result.notes)
    assert run(Gaussian(parts[0]), parts, extract).get("nats").flag == ""


def test_an_evaluation_is_json_with_every_value(parts, extract):
    result = run(Loose(parts[0]), parts, extract, name="loose")
    facts = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert [(m["key"], float(m["value"])) for m in facts["metrics"]] == [
        (m.key, m.value) for m in result.metrics]
    assert (facts["name"], facts["notes"], facts["settings"]) == (
        "loose", list(result.notes), result.settings)


def test_the_table_explains_every_metric(parts, extract):
    result = run(Gaussian(parts[0]), parts, extract, name="model")
    columns = result.table()
    assert len(columns["meaning"]) == len(result.metrics)
    assert all(text[-1] in ".?" for text in columns["meaning"]) and all(columns["model"])


def test_other_footings_are_shown_but_not_compared(parts, extract):
    good, binary = Gaussian(parts[0]), Binary(parts[0])
    table = side_by_side([run(good, parts, extract, name="good"), run(binary, parts, extract,
                                                                 name="binary"),
                     run(Sampler(data(200, 3).x), parts, extract, name="sampler")])
    line = next(line for line in table.lines() if line.key == "nats")
    assert table.base_measure == "integers" and line.best == frozenset()
    assert "binary pixels" in line.cells[1] and line.cells[2] == "–"
    assert any(n.startswith("binary: a likelihood of binary pixels, not compared")
               for n in table.notes)
    assert any(n.startswith("sampler: no likelihood") for n in table.notes)


def test_a_conditional_likelihood_is_compared_with_no_other(parts, extract):
    model = Gaussian(parts[0])
    model.condition_dim = 2
    result = run(model, parts, extract)
    assert result.base_measure == "integers given a condition"
    assert result.get("nats").control is None
    table = side_by_side([result, run(Gaussian(parts[0]), parts, extract, name="plain")])
    assert table.base_measure == "integers"
    assert any("given a condition, not compared" in note for note in table.notes)


def test_the_best_comparable_value_is_marked(parts):
    def evaluation(name, **values):
        return Evaluation(name, "integers", tuple(Metric(k, v) for k, v in values.items()),
                          settings={"examples": 5})

    table = side_by_side([evaluation("a", bits_per_dim=2.0, recall=0.5, two_sample=0.9),
                     evaluation("b", bits_per_dim=1.0, recall=0.4, two_sample=0.45)])
    best = {line.key: set(line.best) for line in table.lines()}
    assert best == {"bits_per_dim": {1}, "recall": {0}, "two_sample": {1}}


def test_the_table_prints_every_model_and_control(parts, extract):
    table = side_by_side([run(Gaussian(parts[0]), parts, extract, name=n) for n in ("one", "two")])
    text = table.text()
    assert all(word in text for word in ("one", "two", "diagonal Gaussian", "held-out data",
                                         "Fréchet distance"))
    assert "recall\u00a0↑" in table.table()["metric"]


def test_runs_evaluated_on_different_examples_are_not_compared():
    evaluations = [Evaluation(n, None, (), settings={"examples": k})
                   for n, k in (("a", 5), ("b", 6))]
    with pytest.raises(ConfigError, match="5 and 6 examples"):
        side_by_side(evaluations)
    with pytest.raises(ConfigError, match="name at least one"):
        side_by_side([])


def test_tables_without_noise_have_no_unbounded_control():
    space = Table.of_numbers(("a", "constant"))
    rng = np.random.default_rng(0)
    x = np.c_[rng.normal(size=80), np.ones(80)].astype(np.float32)
    whole = Dataset(x, space)

    class Flat(Gaussian):
        base_measure = "table units"

        def encode(self, x, *, condition=None):
            return PointMass(x)

        def decode(self, z, *, condition=None):
            return PointMass(z)

    model = Flat(whole, space)
    model.variance += 1e-3
    result = evaluated(model, train=whole.subset(slice(0, 50)), test=whole.subset(slice(50, 80)))
    assert result.base_measure == "data units" and result.get("bits_per_dim") is None
    assert result.get("nats").control is None
    assert any("constant" in note for note in result.notes)


def test_every_kind_says_what_it_is():
    assert all(kind.meaning[-1] in ".?" and kind.better in ("low", "high", "fair", "")
               for kind in KINDS.values())


@pytest.mark.parametrize(("value", "error", "text"), [
    (-85.2134, 0.2412, "−85.21 ± 0.24"), (0.0117612, 0.000357, "0.01176 ± 0.00036"),
    (12345.6, 78.9, "12,346 ± 79"), (1.0, math.nan, "1"), (2.5, None, "2.5")])
def test_values_are_rounded_by_their_error(value, error, text):
    assert Metric("nats", value, error).text() == text


def test_numbers_that_are_not():
    assert [number(v) for v in (None, math.nan, -math.inf)] == ["–", "–", "−∞"]
