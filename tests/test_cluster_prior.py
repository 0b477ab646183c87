"""Clusters of alike examples: found, counted, drawn as often as they occur, known to G and D."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import tiny
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.decomposition import PCA
from torch import nn

import latlas
from latlas.core.errors import ConfigError
from latlas.core.model import Batch, Step
from latlas.core.noise import Noise
from latlas.core.space import Images
from latlas.data.batches import Sweep
from latlas.data.dataset import Dataset
from latlas.models.cluster_prior import ClusterPrior, fit_bandwidth
from latlas.models.gan import GAN
from latlas.verbs import project as projecting
from latlas.verbs.passes import latent_in_support, latents_of_prior
from latlas.verbs.styles import latents_of_seeds

SIDE = 12
PICTURES = Images((1, SIDE, SIDE),
                 classes=("even", "odd"))
#: how many images are bright in which corner, of each class
EVEN, ODD = (300, 100, 0, 0), (0, 100, 100, 200)
COUNTS = [[300, 100, 0, 0, 0], [0, 0, 100, 100, 200]]


def corners(seed=0):
    """Images of four kinds, and what they are of five of kind and class: 0 and 1 even, the
    others odd, where 1 and 2 look alike."""
    rng = np.random.default_rng(seed)
    kind = np.repeat([0, 1, 2, 3] * 2, EVEN + ODD)
    both = np.repeat(np.arange(5), [n for n in EVEN + ODD if n])
    x = rng.integers(0, 40, (len(kind), 1, SIDE, SIDE), np.uint8)
    half = SIDE // 2
    for image, k in zip(x, kind, strict=True):
        image[0, half * (k // 2):half * (k // 2 + 1), half * (k % 2):half * (k % 2 + 1)] += 200
    order = rng.permutation(len(kind))
    label = np.repeat([0, 1], [sum(EVEN), sum(ODD)])
    return Dataset(x[order], PICTURES, label=label[order]), both[order]


@pytest.fixture(scope="module")
def result():
    data, kind = corners()
    torch.manual_seed(0)
    clusters = ClusterPrior(64, PICTURES.shape, n_clusters=5, classes=2)
    clusters.fit(Sweep(data, 100), len(data))
    return clusters, data, kind


@pytest.fixture(scope="module")
def with_content():
    """Clusters with contents of six numbers, the images they are of, and their clusters."""
    data, _ = corners()
    clusters = ClusterPrior(64, PICTURES.shape, n_clusters=5, content_dims=6)
    clusters.fit(Sweep(data, 100), len(data))
    x = next(iter(Sweep(data, len(data)))).x
    return clusters, x, clusters.assign(x)


def group_of(z):
    """What the numbers of a code after the first 64 say."""
    assert ((z[:, 64:] != 0).sum(1) == 1).all()
    return z[:, 64:].argmax(1)


def of_kind(clusters, data, kind):
    """The group that each kind of a class became."""
    batch = next(iter(Sweep(data, len(data))))
    group = clusters.assign(batch.x, batch.label).numpy()
    assert all(len(set(group[kind == k])) == 1 for k in range(5))
    return [int(group[kind == k][0]) for k in range(5)]


def test_kinds_of_a_class_are_groups_and_are_counted_by_class(result):
    clusters, data, kind = result
    order = of_kind(clusters, data, kind)
    assert sorted(order) == [0, 1, 2, 3, 4]
    assert clusters.counts[:, order].tolist() == COUNTS
    x = next(iter(Sweep(data, len(data)))).x  # without a class
    alike = clusters.assign(x).numpy()
    assert (alike[kind == 3] == order[3]).all()
    assert set(alike[(kind == 1) | (kind == 2)]) <= {order[1], order[2]}


def test_groups_fewer_than_kinds_may_hold_several_classes():
    data, _ = corners()
    clusters = ClusterPrior(64, PICTURES.shape, n_clusters=1, classes=2)
    clusters.fit(Sweep(data, 100), len(data))
    assert clusters.counts.tolist() == [[400.0], [400.0]]


@pytest.mark.parametrize("label", [None, 0, 1])
def test_codes_are_drawn_as_often_as_the_group_occurs(result, label):
    clusters, data, kind = result
    order, n = of_kind(clusters, data, kind), 20_000
    condition = None if label is None else torch.full((n,), label)
    z = clusters.sample(n, Noise(3), condition)
    assert z.shape == (n, 69) and abs(z[:, :64].mean()) < 0.01 and abs(z[:, :64].std() - 1) < 0.01
    near = group_of(z).bincount(minlength=5)[order] / n
    counts = torch.tensor(COUNTS).float()
    share = counts.sum(0) if label is None else counts[label]
    torch.testing.assert_close(near, share / share.sum(), atol=0.015, rtol=0)


def test_the_density_of_codes_is_that_of_the_normal_and_the_group(result):
    clusters, _, _ = result
    z = clusters.sample(50, Noise(1))
    weights = clusters.counts.sum(0)[group_of(z)] / clusters.counts.sum()
    expected = multivariate_normal(np.zeros(64)).logpdf(z[:, :64]) + np.log(weights.numpy())
    np.testing.assert_allclose(clusters.log_prob(z).numpy(), expected, rtol=1e-5)
    z[:, 64:] *= 0.5
    assert clusters.log_prob(z).isneginf().all()


def test_known_groups_stay_and_are_counted_anew(result):
    clusters, data, kind = result
    centres = clusters.centres.clone()
    part = data.subset(np.flatnonzero(kind == 4))
    clusters = ClusterPrior(64, PICTURES.shape, 5, 2).requires_grad_(False)
    clusters.load_state_dict(result[0].state_dict())
    clusters.fit(Sweep(part, 64), len(part))
    assert torch.equal(clusters.centres, centres)
    assert clusters.counts.sum(0).tolist().count(0) == 4 and clusters.counts.sum() == 200


def test_groups_are_counted_alike_in_batches_of_any_size(result):
    """Also those that the first batch has none of."""
    clusters, data, _ = result
    again = ClusterPrior(64, PICTURES.shape, n_clusters=5, classes=2)
    again.load_state_dict(clusters.state_dict())
    again.fit(Sweep(data, 2), len(data))
    assert torch.equal(again.counts, clusters.counts)


def test_few_items_make_few_groups_and_unused_ones_hold_nothing():
    data, _ = corners()
    clusters = ClusterPrior(64, PICTURES.shape, n_clusters=200)
    clusters.fit(Sweep(data.subset(np.arange(120)), 50), 120)
    assert (clusters.counts > 0).sum() == 2 and clusters.counts.sum() == 120
    assert clusters.assign(torch.rand(64, *PICTURES.shape)).max() <= 1


class Listening(nn.Module):
    """A discriminator that remembers which clusters and contents it was told."""

    def __init__(self):
        super().__init__()
        self.told, self.contents, self.scale = [], [], nn.Parameter(torch.ones(()))

    def forward(self, x, label=None, group=None, content=None):
        self.told.append(group)
        self.contents.append(content)
        return x.flatten(1).mean(1, keepdim=True) * self.scale


def test_fakes_have_the_groups_of_the_real_items_of_their_step(result):
    data, _ = corners()
    model = tiny.build("gan", data, tiny.small("gan", n_clusters=4, latent_dim=64, network="conv"))
    model.prepare(Sweep(data, 100), len(data))
    model.discriminator = discriminator = Listening()
    batch = Batch(next(iter(Sweep(data, 60))).x)
    latents = []
    model.generator.register_forward_hook(lambda _, inputs, out: latents.append(inputs[0].detach()))
    list(model.losses(batch, Step(0, 0, 0.0, Noise(1))))
    group = model.prior.assign(batch.x)
    assert len(set(group.tolist())) == 4
    assert len(discriminator.told) >= 3 and all(
        torch.equal(g, group.repeat(len(g) // len(group))) for g in discriminator.told)
    assert len(latents) == 1 and torch.equal(group_of(latents[0]), group)


def test_samples_of_a_class_come_from_its_groups():
    """A generator that shows its latent vector: those of `even` are at its kinds."""
    data, kind = corners()
    config = tiny.small("conditional-gan", n_clusters=5, latent_dim=64, network="conv")
    model = tiny.build("conditional-gan", data, config)
    model.prepare(Sweep(data, 100), len(data))
    order = of_kind(model.prior, data, kind)
    z = model.sample_latents(400, noise=Noise(1), condition=torch.zeros(400, dtype=torch.long))
    near = group_of(z).bincount(minlength=5)[order]  # three quarters of the first, none of odd ones
    assert near[0] > 2 * near[1] and near[2] == near[3] == near[4] == 0


def test_groups_are_found_once_and_are_part_of_the_run(tmp_path, monkeypatch):
    calls = []
    find = ClusterPrior.find_clusters
    monkeypatch.setattr(ClusterPrior, "find_clusters", lambda self, *inputs: (
        calls.append(1), find(self, *inputs)))
    settings = {"images": 320, "batch_size": 32, "width": 4, "threads": 1, "progress": False}
    trained = latlas.train("gan", "digits", out=tmp_path / "run", **settings)
    assert len(calls) == 1
    model = latlas.load(tmp_path / "run").model
    assert torch.equal(model.prior.centres, trained.model.prior.centres)
    assert model.prior.counts.sum() == len(latlas.open_data("digits", split="train"))


def test_a_discriminator_of_ones_own_is_not_told_of_groups():
    space = Images((1, SIDE, SIDE))
    model = GAN(tiny.small("gan", network="conv"), space, discriminator=Listening())
    assert model.config.prior == "normal" and model.clusters is None
    asked = tiny.small("gan", network="conv", prior="clusters", n_clusters=5)
    with pytest.raises(ConfigError, match="prior=clusters: a discriminator of your own"):
        GAN(asked, space, discriminator=Listening())
    with pytest.raises(ConfigError, match="n_clusters=5 goes with prior=clusters"):
        GAN(tiny.small("gan", network="conv", n_clusters=5), space, discriminator=Listening())


def test_a_prior_may_be_given(with_content):
    """What the model knows of it is what it answers."""
    prior, x, _ = with_content
    model = GAN(tiny.small("gan", network="conv", prior="normal"), PICTURES, prior=prior)
    assert model.prior is prior and model.latent_dim == 69
    found = dict(model.losses(Batch(x[:60]), Step(0, 0, 0.0, Noise(1))))
    assert "content" in found["generator"].terms
    assert model.initial_latents(x, noise=Noise(0)) is not None


def test_more_groups_than_different_pictures():
    """The numbers of a group are those of the examples that are said to be in it."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.integers(0, 256, (5, 1, SIDE, SIDE), np.uint8), 120, 0)
    data = Dataset(rng.permutation(x), PICTURES)
    clusters = ClusterPrior(64, PICTURES.shape, n_clusters=12, content_dims=4)
    clusters.fit(Sweep(data, 100), len(data))
    batch_x = next(iter(Sweep(data, len(data)))).x
    assert sorted(clusters.counts[0].tolist()) == [0.0] * 7 + [120.0] * 5
    expected = clusters.content_means[clusters.assign(batch_x)]
    torch.testing.assert_close(clusters.content_of(batch_x), expected, atol=1e-4, rtol=1e-4)
    drawn = clusters.content_of_latents(clusters.sample(2000, Noise(0)))
    torch.testing.assert_close(drawn.var(0), torch.ones(4), atol=0.2, rtol=0)


@pytest.fixture(scope="module")
def classed():
    """A model of classes whose clusters are of one class each, and its data."""
    data, _ = corners()
    model = tiny.build("conditional-gan", data, tiny.small(
        "conditional-gan", n_clusters=5, content_dims=4, latent_dim=64, network="conv"))
    model.prepare(Sweep(data, 100), len(data))
    return model.eval().requires_grad_(False), data


def all_of_class(model, latents, label):
    """Codes are of clusters that the class has, and of no other."""
    latents = torch.as_tensor(latents).float()
    assert model.prior.log_prob(latents).isfinite().all()
    return bool((model.prior.counts[label, group_of(latents)] > 0).all())


@pytest.mark.parametrize("label", [0, 1])
def test_verbs_take_latents_that_the_class_has(classed, monkeypatch, label):
    model, data = classed
    starts = []

    def descend(decode, begin, *rest):
        starts.append(begin)
        return descended(decode, begin, *rest)

    descended = projecting._descend
    monkeypatch.setattr(projecting, "_descend", descend)
    few = data.subset(np.flatnonzero(data.take("label") == label)[:4])
    projecting.project(model, few, starts=8, steps=1)
    for latents in (starts[0], latents_of_prior(model, 50, condition=label),
                  latents_of_seeds(model, range(20), condition=label)):
        assert all_of_class(model, latents, label)


def test_walks_begin_and_end_where_there_are_pictures(classed):
    model, _ = classed
    start = latent_in_support(model, np.zeros(model.latent_dim), np.array([1, 0, 1]))
    assert all_of_class(model, start[None], 1)
    assert latent_in_support(model, start, 1) is start
    ends = latlas.prior_latents(model, 6, seed=3, label=["odd", "even"])
    assert all_of_class(model, ends[::2], 1) and all_of_class(model, ends[1::2], 0)


def test_content_is_the_whitened_principal_coordinates(with_content):
    clusters, x, _ = with_content
    expected = PCA(6, whiten=True, svd_solver="full").fit_transform(x.flatten(1).double().numpy())
    expected *= np.sqrt(len(x) / (len(x) - 1))  # variances of sklearn are of a sample
    result = clusters.content_of(x).numpy()
    np.testing.assert_allclose(result * np.sign((result * expected).sum(0)), expected, atol=2e-3)


def test_a_code_keeps_the_content_it_was_made_of(with_content):
    clusters, x, group = with_content
    expected = clusters.content_of(x)
    z = clusters.sample_given_cluster(group, Noise(0), expected)
    torch.testing.assert_close(clusters.content_of_latents(z), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(clusters.generator_input(z)[:, 6:], z[:, 6:])
    for k in range(5):  # the numbers that stand for it are as those of any code
        white = z[group == k, :6]
        assert white.mean(0).abs().max() < 1e-3 and abs(white.var(0).mean() - 1) < 0.1


def test_content_of_drawn_latents_lies_as_that_of_examples_in_every_cluster(with_content):
    clusters, x, group = with_content
    z = clusters.sample(40_000, Noise(1))
    drawn, real = clusters.content_of_latents(z), clusters.content_of(x)
    for k in range(5):
        mine, own = drawn[group_of(z) == k], real[group == k]
        torch.testing.assert_close(mine.mean(0), own.mean(0), atol=0.03, rtol=0)
        torch.testing.assert_close(mine.T.cov(), own.T.cov(), atol=0.1, rtol=0)


def test_the_density_of_content_is_that_of_the_examples_blurred(with_content):
    clusters, h = copy.deepcopy(with_content[0]), 0.6
    assert clusters.bandwidth > 0.85  # these kinds are normal
    clusters.bandwidth.fill_(h)
    z = clusters.sample(20, Noise(4))
    weights = clusters.counts.sum(0)[group_of(z)] / clusters.counts.sum()
    for code, weight, result in zip(z, weights, clusters.log_prob(z), strict=True):
        near = clusters.kde_centres[code[64:].argmax()] * (1 - h * h) ** 0.5
        mean = np.mean([multivariate_normal(c, h * h).pdf(code[:6].numpy()) for c in near.numpy()])
        expected = np.log(mean) + norm.logpdf(code[6:64].numpy()).sum() + np.log(float(weight))
        np.testing.assert_allclose(result, expected, rtol=1e-4)


def test_contents_of_two_kinds_are_drawn_as_two_kinds_and_normal_ones_smoothly():
    draws = np.random.default_rng(0)
    ends = torch.from_numpy(draws.choice([-1.0, 1.0], (300, 2)) + draws.normal(0, 0.05, (300, 2)))
    assert fit_bandwidth([ends[:100], ends[100:200], ends[200:]]) < 0.45
    assert fit_bandwidth([torch.from_numpy(draws.normal(size=(100, 8))) for _ in range(5)]) > 0.85
    assert fit_bandwidth([ends[:19]]) == 1


def test_half_way_between_two_clusters_content_is_half_way(with_content):
    clusters, _, _ = with_content
    z = clusters.sample_given_cluster(torch.tensor([0, 1]), Noise(2))
    z[1, :64] = z[0, :64]
    between = clusters.content_of_latents(z.mean(0, keepdim=True))
    torch.testing.assert_close(between[0], clusters.content_of_latents(z).mean(0))


@pytest.mark.parametrize("examples", [1, 3])
def test_what_does_not_vary_says_nothing(examples):
    x = np.full((60, 1, SIDE, SIDE), 7, np.uint8)
    x[:examples] = 200
    data = Dataset(x, PICTURES)
    clusters = ClusterPrior(64, PICTURES.shape, n_clusters=3, content_dims=6)
    clusters.fit(Sweep(data, 60), len(data))
    batch = next(iter(Sweep(data, 60)))
    result = clusters.content_of(batch.x)
    assert result.isfinite().all() and result[:, 1:].abs().max() < 1e-3
    drawn = clusters.sample_given_cluster(clusters.assign(batch.x), Noise(0), result)
    assert drawn.isfinite().all()


def test_fakes_are_made_of_the_contents_of_real_items_and_pay_for_leaving_them():
    data, _ = corners()
    model = tiny.build("gan", data, tiny.small("gan", n_clusters=4, content_dims=5, latent_dim=64,
                                               network="conv"))
    model.prepare(Sweep(data, 100), len(data))
    model.discriminator = discriminator = Listening()
    batch = Batch(next(iter(Sweep(data, 60))).x)
    latents = []
    model.generator.register_forward_hook(lambda _, inputs, out: latents.append(inputs[0].detach()))
    fakes, expected = [], model.prior.content_of(batch.x)
    model.generator.register_forward_hook(lambda _, inputs, out: fakes.append(out.detach()))
    paid = dict(model.losses(batch, Step(0, 0, 0.0, Noise(1))))["generator"]
    assert discriminator.contents and all(torch.equal(s, expected.repeat(len(s) // 60, 1))
                                  for s in discriminator.contents)
    torch.testing.assert_close(latents[0][:, :5], expected, rtol=1e-4, atol=1e-4)
    error = model.prior.content_of(fakes[0]) - expected
    torch.testing.assert_close(paid.terms["content"], error.square().mean())
    torch.testing.assert_close(paid.total, paid.terms["generator"] + 3 * error.square().mean())


@pytest.mark.parametrize("dims", [0, 5])
def test_a_projection_starts_from_the_cluster_and_the_content_of_the_picture(dims):
    data, _ = corners()
    model = tiny.build("conditional-gan", data, tiny.small(
        "conditional-gan", n_clusters=5, content_dims=dims, latent_dim=64, network="conv"))
    model.prepare(Sweep(data, 100), len(data))
    part = data.subset(np.arange(9))
    latents = []
    model.generator.register_forward_hook(
        lambda _, inputs, out: latents.append(inputs[0].detach().clone()))
    projecting.project(model, part, n=None, starts=3, steps=1)
    batch = next(iter(Sweep(part, 9)))
    at_start = latents[0].view(3, 9, -1)
    for k, z in enumerate(at_start):
        like = (group_of(z) == model.prior.assign(batch.x, batch.label)).all()
        close = not dims or torch.allclose(z[:, :dims], model.prior.content_of(batch.x),
                                             atol=1e-3)
        assert bool(like) == (k < 2) and (close or k == 2), k


def test_content_goes_with_clusters():
    with pytest.raises(ConfigError, match="content_dims=4 goes with prior=clusters"):
        GAN(tiny.small("gan", network="conv", prior="normal", content_dims=4), PICTURES)
    model = GAN(tiny.small("gan", network="conv", prior="normal"), PICTURES)
    assert model.config.content_dims is None and model.latent_dim == 3
    model = GAN(tiny.small("gan", network="conv", n_clusters=7), PICTURES)
    assert (model.config.prior, model.config.content_dims) == ("clusters", 32)
    assert model.config.resolve(PICTURES) == model.config
