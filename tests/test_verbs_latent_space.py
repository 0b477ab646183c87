"""Figures and map of a latent space, on models whose latent space is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny
import torch
from test_report import Page, sections

from latlas.core.distributions import Normal, PointMass
from latlas.core.model import Model
from latlas.core.space import Points
from latlas.data.dataset import Dataset
from latlas.metrics.latent_space import neighbour_distance
from latlas.models import MODELS
from latlas.models.priors import FullNormal, StandardNormal
from latlas.verbs.evaluate import evaluated
from latlas.verbs.metric_groups import has_latent_space, latent_space, prior_draws
from latlas.verbs.sample_quality import feature_extractor
from latlas.verbs.sections import CELLS, SPAN, Subject, build_page, plane

SPACE = Points((3,))


class Linear(Model):
    """x = scale · (z, 0) for two latent dimensions; q(z|x) is exact for z with ``share`` of its
    variance, so that the aggregate posterior is the prior."""

    def __init__(self, scale=2.0, share=0.75, prior=None, flat=False):
        super().__init__(None, SPACE)
        self.latent_dim, self.scale, self.share, self.flat = 2, scale, share, flat
        self.prior = prior or StandardNormal(2)

    def encode(self, x, *, condition=None):
        mean = x[:, :2] / self.scale * math.sqrt(self.share)
        return Normal(mean, torch.full_like(mean, math.log(1 - self.share)))

    def decode(self, z, *, condition=None):
        out = torch.nn.functional.pad(self.scale * z, (0, 1))
        return PointMass(0 * out if self.flat else out)

    def sample(self, n, *, noise, condition=None):
        return self.decode(self.prior.sample(n, noise)).mean

    def sample_latents(self, n, *, noise):
        return self.prior.sample(n, noise)


def data(n=1500, seed=0, scale=2.0):
    z = np.random.default_rng(seed).normal(size=(n, 2))
    return Dataset(np.c_[scale * z, np.zeros(n)].astype(np.float32), SPACE)


def metrics(model, test, seed=0):
    notes = []
    return {f.key: f for f in latent_space(model, test, seed, notes)}, notes


def test_a_linear_decoder_has_one_slope():
    test = data()
    result, _ = metrics(Linear(), test)
    expected = 2.0 / neighbour_distance(test.x)  # sd of these draws of the prior is near 1
    assert result["slope_median"].value == pytest.approx(expected, rel=0.05)
    assert result["slope_high"].value == pytest.approx(expected, rel=0.05)
    assert result["lipschitz_ratio"].value == pytest.approx(1, abs=1e-3)
    assert result["largest_jump"].value >= result["largest_jump"].control > 0


def test_slopes_do_not_depend_on_the_unit_of_the_codes():
    wide = FullNormal(torch.tensor([5.0, -3.0]), 10 * torch.eye(2))
    one, other = Linear(), Linear(scale=0.2, prior=wide)
    a, b = (metrics(m, data())[0] for m in (one, other))
    for key in ("slope_median", "lipschitz_ratio", "largest_jump"):
        assert a[key].value == pytest.approx(b[key].value, rel=1e-3)


def test_information_of_a_gaussian_channel():
    result, notes = metrics(Linear(share=0.75), data())
    for key in ("information", "information_upper"):
        assert result[key].value == pytest.approx(math.log(4), abs=0.15)
    for key in ("marginal_kl", "total_correlation", "dimension_kl", "linear_tc"):
        assert result[key].value == pytest.approx(0, abs=0.06)
    assert result["information"].error > 0 and notes == []


def test_few_items_say_that_they_bound_the_information():
    result, notes = metrics(Linear(share=0.99999), data(60))
    assert result["information"].value == pytest.approx(math.log(60), abs=0.01)
    assert "lower bound" in notes[0] and "60 examples" in notes[0]


def test_parts_by_dimension_are_of_the_standard_prior_alone():
    other = FullNormal(torch.zeros(2), torch.tensor([[1.0, 0.0], [0.5, 1.0]]))
    result, _ = metrics(Linear(prior=other), data())
    assert "dimension_kl" not in result
    held_out = np.array([[1, 0.5], [0.5, 1.25]])  # KL(N(0, I) ‖ N(0, held)) in closed form
    expected = 0.5 * (np.trace(np.linalg.inv(held_out)) - 2 + math.log(np.linalg.det(held_out)))
    assert result["marginal_kl"].value == pytest.approx(expected, abs=0.06)


def test_an_autoencoder_has_points_for_codes():
    class Points(Linear):
        def encode(self, x, *, condition=None):
            return PointMass(x[:, :2])

    result, _ = metrics(Points(), data())
    assert "information" not in result and result["linear_tc"].value == pytest.approx(0, abs=0.01)


def test_a_collapsed_decoder_does_not_move():
    result, _ = metrics(Linear(flat=True), data())
    assert result["slope_median"].value == 0 and "lipschitz_ratio" not in result


def test_completeness_stands_beside_held_out_data():
    train, test = data(800, 1), data(400, 2)
    extract = feature_extractor("columns", train)
    good, wide = (evaluated(m, train=train, test=test, features=extract, samples=400)
                  for m in (Linear(), Linear(scale=8.0)))
    assert good.get("completeness").value > 0.5
    assert good.get("completeness").value == pytest.approx(
        good.get("completeness").control, abs=0.06)
    assert wide.get("completeness").value < 0.2
    assert good.get("coverage").value > 0.85


def test_prior_draws_are_reproducible():
    np.testing.assert_array_equal(prior_draws(Linear(), 5, 3), prior_draws(Linear(), 5, 3))
    assert not np.array_equal(prior_draws(Linear(), 5, 3), prior_draws(Linear(), 5, 4))


def test_the_map_of_a_linear_decoder():
    test = data()
    tiles, reach, slope = plane(Linear(), test, lambda x: np.asarray(x)[:, :2])
    np.testing.assert_allclose(slope, slope[0, 0], rtol=1e-3)
    assert slope[0, 0] == pytest.approx(2 / neighbour_distance(test.x), rel=0.1)
    middle, corner = CELLS // 2, tiles.reshape(CELLS, CELLS, 3)[0, 0]
    assert reach[middle, middle] < min(1, 0.5 * reach[0, 0])
    assert np.linalg.norm(corner) == pytest.approx(2 * SPAN * math.sqrt(2), rel=0.1)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_the_metrics_it_can_have(name):
    examples = tiny.data_for(name)
    model = tiny.build(name, examples, tiny.small(name)).eval()
    result, _ = metrics(model, examples)
    assert all(math.isfinite(f.value) for f in result.values())
    assert ("slope_median" in result) == has_latent_space(model)
    again, _ = metrics(model, examples)
    assert result == again


@pytest.mark.parametrize("name", ["ae", "conditional-vae"])
def test_a_report_shows_the_latent_space_of_pictures(name, quick_classifier):
    examples = tiny.images(n=120)
    train, test = examples.subset(slice(0, 80)), examples.subset(slice(80, 120))
    model = tiny.build(name, examples, tiny.small(name))
    page = Page(text := build_page([Subject(name, model)], train=train, test=test))
    assert "the-latent-space" in sections(text)
    alts = [img["alt"] for img in page.of("img")]
    assert f"{name} completeness" in alts and f"{name} Lipschitz ratio, p99 / median" in alts


def test_points_have_a_map_and_one_dimension_has_none():
    examples = tiny.points()
    model = tiny.build("vae", examples, tiny.small("vae", latent_dim=2))
    assert "the-latent-space" in sections(build_page([Subject("vae", model)], train=examples,
                                                     test=examples))
    single = tiny.build("vae", examples, tiny.small("vae", latent_dim=1))
    assert "the-latent-space" not in sections(build_page([Subject("vae", single)], train=examples,
                                                         test=examples))
