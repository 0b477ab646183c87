"""What a data set holds little of: planted clusters, closed forms, groups, words for bad input."""

from __future__ import annotations

import json

import numpy as np
import polars
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import cdist
from tiny import images, small, table, train

import latlas
from latlas.cli.__main__ import run as command
from latlas.core.distributions import Normal, PointMass
from latlas.core.errors import CapabilityError, ConfigError, DataError
from latlas.core.model import Model
from latlas.core.space import Images, Points, Table
from latlas.data.dataset import Dataset
from latlas.data.tables import kinds_of
from latlas.metrics import outliers
from latlas.metrics.features import outlines
from latlas.metrics.outliers import Neighbours, loneliness, seldomness
from latlas.verbs.audit import audited
from latlas.verbs.auditing import build_page


class Through(Model):
    """The code is the example; of the last dimensions nothing comes through."""

    def __init__(self, dims: int, silent: int = 0, classes: tuple[str, ...] = ()):
        super().__init__(None, Points((dims,), 0.0, 1.0, classes=classes))
        self.latent_dim, self.silent = dims, silent

    def encode(self, x, *, condition=None):
        open_to = torch.arange(self.latent_dim) < self.latent_dim - self.silent
        return Normal(x * open_to, torch.where(open_to, -9.0, 0.0))

    def decode(self, z, *, condition=None):
        return PointMass(2 * z)


class Scales(Through):
    """The code is the example, each dimension times a number."""

    def __init__(self, dims, by):
        super().__init__(dims)
        self.by = torch.tensor(by, dtype=torch.float32)

    def encode(self, x, *, condition=None):
        return Normal(x * self.by, torch.where(self.by > 0, -9.0, 0.0))


class Tells(Through):
    """Says class 0 of every example left of the middle."""

    def classify(self, x):
        return torch.stack([-x[:, 0], x[:, 0]], 1)


class Draws(Model):
    latent_dim = 2

    def sample(self, n, *, noise, condition=None):
        return noise.normal(n, 2)


def planted(n=2000, few=20, dims=6, seed=0):
    """A broad Gaussian, and a tight cluster of a few examples at its side; which those are."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, dims)) @ rng.normal(size=(dims, dims))
    centre = 6 * np.linalg.cholesky(np.cov(x.T))[:, 0]
    rows = rng.choice(n, few, replace=False)
    x[rows] = centre + 0.2 * rng.normal(size=(few, dims)) @ np.linalg.cholesky(np.cov(x.T)).T
    return x.astype(np.float32), np.isin(np.arange(n), rows)


def points(x, **more):
    return Dataset(x, Points(x.shape[1:], 0.0, 1.0), **more)


# ------------------------------------------------------------------------------ metrics

def test_isolation_is_the_log_distance_to_the_kth_others():
    x = np.random.default_rng(0).normal(size=(80, 3))
    expected = np.log(np.sort(cdist(x, x), 1)[:, [2, 7]])
    np.testing.assert_allclose(Neighbours.of(x).isolation((2, 7)), expected)


def test_isolation_beside_some_of_the_items_leaves_out_the_item_itself():
    x = np.random.default_rng(1).normal(size=(60, 2))
    rows = np.unique(np.linspace(0, 59, 20).astype(int))
    far = cdist(x, x[rows])
    far[rows, np.arange(len(rows))] = np.inf
    expected = np.log(np.sort(far, 1)[:, [0, 2]])
    np.testing.assert_allclose(Neighbours.of(x, most=20).isolation((1, 9)), expected)


def test_loneliness_is_the_greatest_rank_over_the_neighbours():
    x = np.random.default_rng(5).normal(size=(70, 2))
    far = np.sort(cdist(x, x), 1)[:, [5, 10, 30]].round(9)  # of two that are each other's k-th
    below = (far[:, None] > far).sum(1) + (far[:, None] == far).sum(1) / 2
    np.testing.assert_allclose(loneliness(Neighbours.of(x)), below.max(1) / 70, atol=0.51 / 70)


@pytest.mark.parametrize("most", [120, 70])
def test_seldomness_is_that_of_the_walk_in_the_long_run(most):
    """Its visits solve π = 0.9 Aᵀπ + 0.1, A the steps to any neighbour."""
    x = np.random.default_rng(8).standard_t(3, size=(120, 2))
    rows = np.unique(np.linspace(0, 119, most).astype(int))
    far = cdist(x, x[rows])
    far[rows, np.arange(most)] = np.inf
    near, steps = np.argsort(far, 1)[:, :30], np.zeros((most, most))
    np.add.at(steps, (np.arange(most)[:, None], near[rows]), 1 / 30)
    visits = np.linalg.solve(np.eye(most) - 0.9 * steps.T, np.full(most, 0.1))
    result = seldomness(Neighbours.of(x, most=most))
    np.testing.assert_allclose(result, -np.log(visits)[near[:, :10]].mean(1), atol=0.01)


def test_few_beside_a_dense_kind_are_seldom_and_a_sparse_kind_is_not():
    rng = np.random.default_rng(9)
    x = np.concatenate([rng.normal(size=(1000, 2)), 60 * rng.normal(size=(1000, 2)) + 300,
                        rng.normal(size=(10, 2)) + 8])
    view = Neighbours.of(x)
    assert outliers.ranks(loneliness(view))[-10:].mean() < 0.95
    found = outliers.ranks(seldomness(view))
    assert found[-10:].min() > 0.95
    assert abs(found[:1000].mean() - found[1000:2000].mean()) < 0.1


def test_half_whitened_codes_have_the_root_of_their_covariance():
    x = np.random.default_rng(2).normal(size=(500, 3)) @ np.array([[1, 5, 0], [0, 9, 1], [2, 0, 1]])
    variances = np.linalg.eigvalsh(np.cov(x.T))
    flat = np.column_stack([x, x[:, 0], np.ones(500)])
    white = outliers.half_whitened(np.column_stack([x, np.ones(500)]))
    np.testing.assert_allclose(np.cov(white.T), np.diag(np.sqrt(variances)), atol=1e-8)
    assert outliers.half_whitened(flat).shape == (500, 3)
    assert outliers.half_whitened(flat[:, :1]).shape == (500, 1)


def test_on_all_its_axes_items_have_their_distances():
    x = np.random.default_rng(3).normal(size=(90, 6)).astype(np.float32)
    np.testing.assert_allclose(cdist(*2 * [outliers.Axes.of(x)(x)]), cdist(x, x), atol=1e-4)
    assert outliers.Axes.of(x, 2)(x[:4]).shape == (4, 2)


def test_ranks_share_ties():
    assert outliers.ranks(np.array([3.0, 1.0, 1.0, 9.0])).tolist() == [0.625, 0.25, 0.25, 0.875]


def test_groups_are_found_and_one_cloud_is_one_group():
    rng = np.random.default_rng(4)
    label = np.repeat([0, 1, 2], [50, 30, 15])
    apart = rng.normal(size=(95, 2)) * 0.1 + 5 * np.array([[0, 0], [1, 0], [0, 1]])[label]
    np.testing.assert_array_equal(outliers.groups(apart), label)
    assert not outliers.groups(apart[:15]).any()


def test_numbers_of_few_values_are_kinds_and_others_are_cut_at_quartiles():
    code, names = kinds_of(np.array([2.0, 0.5, 2.0]), "a")
    assert names == ("0.5", "2") and code.tolist() == [1, 0, 1]
    code, names = kinds_of(np.arange(100), "a")
    assert np.bincount(code).tolist() == [25, 25, 25, 25] and len(names) == 4
    with pytest.raises(DataError, match="a holds infinite numbers"):
        kinds_of(np.array([1.0, np.inf]), "a")


@pytest.mark.parametrize("values", [[1.0, np.nan, 2.0, 1.0], np.array(["x", None, "y", "x"])])
def test_gaps_are_a_kind_of_their_own(values):
    code, names = kinds_of(values, "a")
    assert code.tolist() == [0, 2, 1, 0] and names[2] == "(missing)"
    with pytest.raises(DataError, match="a holds nothing but gaps"):
        kinds_of(np.array([None, None]), "a")


# ------------------------------------------------------------------------------ examples

def test_a_planted_cluster_is_among_the_rarest_and_is_a_group_of_its_own():
    x, few = planted()
    result = audited(Through(6), points(x))
    assert few[result.rarest].mean() * len(result.rarest) >= 18
    most = max(result.clusters, key=lambda c: few[c.examples].sum())
    assert few[most.examples].sum() >= 18
    assert not few[most.common].any()


@pytest.mark.parametrize("view", ["latent", "example"])
def test_few_that_one_view_alone_sees_are_among_the_rarest(view):
    rng = np.random.default_rng(6)
    x, few = rng.normal(size=(2000, 3)).astype(np.float32), np.arange(2000) % 100 == 7
    x[few, 2] = 9 + 0.3 * x[few, 2]
    blind = "example" if view == "latent" else "latent"
    if view == "latent":
        x[:, 2] /= 1000  # by the examples' distances nothing
    result = audited(Scales(3, [1, 1, 1000 if view == "latent" else 0]), points(x))
    assert few[result.rarest].sum() >= 18
    assert getattr(result, f"by_{view}")[few].mean() > 0.97
    assert 0.3 < getattr(result, f"by_{blind}")[few].mean() < 0.9
    assert (result.share_by_latent(np.flatnonzero(few)) > 0.5) == (view == "latent")


def test_large_pictures_are_compared_by_thumbnails(tmp_path):
    data = images((3, 64, 40), n=60)
    model, _ = train(tmp_path, "pca", data, small("pca"))
    result = audited(model, data)
    whole = data.x.astype(np.float64) / 8 - 1
    mean = whole.reshape(60, 3, 32, 2, 40).mean(3)  # 64 rows become 32
    thumbnails = F.adaptive_avg_pool2d(torch.from_numpy(mean), (32, 32))
    looks = [look.flatten(1).numpy() for look in (thumbnails, outlines(thumbnails))]
    views = [Neighbours.of(outliers.Axes.of(look)(look)) for look in looks]
    alone = np.max([loneliness(view) for view in views], 0)
    np.testing.assert_allclose(result.by_example, outliers.ranks(alone), atol=1.1 / 60)
    np.testing.assert_allclose(result.by_walk, outliers.ranks(seldomness(views[1])), atol=1.1 / 60)


@pytest.mark.parametrize("sides", [(8, 8), (1, 8), (8, 1)])
def test_pictures_without_outlines_are_compared_as_they_are(tmp_path, sides):
    shade = np.random.default_rng(0).integers(0, 256, (80, 1, 1, 1))
    plain = np.broadcast_to(shade, (80, 1, *sides)).astype(np.uint8)
    data = Dataset(plain, Images((1, *sides)))
    calls = []
    result = audited(train(tmp_path, "pca", data, small("pca"))[0], data,
                  progress=lambda *now: calls.append(now))
    assert calls[-1] == (320, 320)
    assert result.by_walk is None and "by_walk" not in result.table()
    assert np.corrcoef(result.by_example, np.abs(shade.ravel() - 127.5))[0, 1] > 0


def test_rarity_is_the_greatest_rank_with_the_walk_of_pictures_from_half_up(tmp_path):
    x, _ = planted(300)
    found = audited(Through(6), points(x))
    np.testing.assert_allclose(found.rarity, outliers.ranks(np.maximum(found.by_latent,
                                                                        found.by_example)))
    data = images((1, 8, 8), n=200)
    found = audited(train(tmp_path, "pca", data, small("pca"))[0], data)
    expected = np.max([found.by_latent, found.by_example, (1 + found.by_walk) / 2], 0)
    np.testing.assert_allclose(found.rarity, outliers.ranks(expected))
    order = np.argsort(-found.rarity, kind="stable")
    np.testing.assert_array_equal(found.table()["by_walk"], found.by_walk[order])


def test_a_cluster_says_where_it_lies_and_the_way_ends_there():
    x, few = planted(dims=2)
    result = audited(Through(2), points(x))
    cluster = max(result.clusters, key=lambda c: few[c.examples].sum())
    rest = np.delete(x, cluster.examples, 0)
    expected = (x[cluster.examples].mean(0) - rest.mean(0)) / x.std(0)
    assert dict(cluster.apart) == pytest.approx(dict(enumerate(expected)), rel=1e-3)
    assert abs(cluster.apart[0][1]) >= abs(cluster.apart[1][1])
    end = latlas.decode(Through(2), cluster.path).values[-1]
    np.testing.assert_allclose(end, 2 * x[cluster.examples].mean(0), rtol=1e-4)
    np.testing.assert_allclose(cluster.path[0], x[cluster.common].mean(0), rtol=1e-4)


def test_the_same_twice_and_whatever_the_order_of_the_items():
    x, _ = planted(400)
    calls = []
    mine, again = (audited(Through(6), points(x), progress=lambda *now: calls.append(now))
                   for _ in range(2))
    assert calls[-1] == (1600, 1600)
    np.testing.assert_array_equal(mine.rarity, again.rarity)
    assert json.dumps(mine.facts()) == json.dumps(again.facts())
    order = np.random.default_rng(0).permutation(400)
    other = audited(Through(6), points(x[order]))
    np.testing.assert_allclose(other.rarity, mine.rarity[order], atol=1e-6)


def test_a_dimension_that_does_not_vary_is_left_out_and_said():
    x, _ = planted(300)
    result = audited(Through(6, silent=2), points(x))
    assert [d.dim for d in result.dimensions] == [0, 1, 2, 3]
    assert "2 of 6 latent dimensions do not vary with the examples and are left out: z4, z5" in (
        result.notes)


def test_the_weights_are_those_of_the_histograms_product():
    from latlas.metrics import rarity

    x, _ = planted(300, dims=2)
    found = audited(Through(2), points(x))
    density = rarity.densities(x.astype(np.float64))
    np.testing.assert_allclose(found.density, density, rtol=1e-6)
    expected = rarity.guarded(density, "product")
    np.testing.assert_allclose(found.weights.weights, expected.weights, rtol=1e-6)


# ------------------------------------------------------------------------------ groups

def test_groups_have_counts_rarity_lift_error_and_accuracy():
    x, few = planted()
    result = audited(Tells(6, classes=("no", "yes")), points(x), label=few.astype(int),
                  names=("no", "yes"))
    no, yes = result.groups
    assert (no.count, yes.count) == (1980, 20)
    assert yes.rarity == pytest.approx(result.rarity[few].mean())
    assert yes.rarity > 0.9 and yes.rarest > 0.9
    assert yes.lift == pytest.approx(result.weights.weights[few].mean())
    assert no.share * no.lift + yes.share * yes.lift == pytest.approx(1)
    assert yes.error == pytest.approx(np.square(x[few]).mean(), rel=1e-4)
    assert yes.accuracy == pytest.approx((x[few, 0] > 0).mean())
    assert result.spread["rarity"].worst == "yes"
    assert result.spread["error"].variance == pytest.approx(np.var([no.error, yes.error]))
    assert result.table()["group"][0] in ("no", "yes")


def test_accuracy_is_by_the_names_of_classes_not_by_their_places():
    """Groups in another order than the model's classes, fewer of them, examples in none, others."""
    x, few = planted(200)
    model, right = Tells(6, classes=("no", "yes")), (x[:, 0] > 0) == few
    assert 0 < right[few].mean() != right[~few].mean() < 1
    turned = audited(model, points(x), label=1 - few.astype(int), names=("yes", "no"))
    assert {g.name: g.accuracy for g in turned.groups} == pytest.approx(
        {"yes": right[few].mean(), "no": right[~few].mean()})
    alone = audited(model, points(x), label=few.astype(int) - 1, names=("yes",))
    assert alone.groups[0].accuracy == pytest.approx(right[few].mean())
    other = audited(model, points(x), label=few.astype(int), names=("no", "perhaps"))
    assert [g.accuracy for g in other.groups] == [None, None]


def test_likelihood_of_groups_is_the_mean_of_their_scores(tmp_path):
    data = table(120)
    model, _ = train(tmp_path, "pca", data, small("pca"))
    label = np.arange(120) % 2
    result = audited(model, data, label=label, names=("even", "odd"))
    nats = latlas.score(model, data).nats
    assert [g.nats for g in result.groups] == pytest.approx([nats[0::2].mean(), nats[1::2].mean()])
    less = nats[0::2].mean() < nats[1::2].mean()
    assert result.spread["nats"].worst == ("even" if less else "odd")


def test_one_group_is_said_and_not_compared():
    x, _ = planted(100)
    result = audited(Through(6), points(x), label=np.zeros(100, int), names=("all",))
    assert not result.spread
    assert "All examples are of one group: there is nothing to compare it with." in result.notes


# ------------------------------------------------------------------------------ bad input

def test_bad_input_has_clear_words():
    x, _ = planted(100)
    model = Through(6)
    with pytest.raises(DataError, match="49 examples are too few for an audit, which needs 50"):
        audited(model, points(x[:49]))
    with pytest.raises(DataError, match="no dimension of the latents varies over these examples"):
        audited(Through(6, silent=6), points(x))
    with pytest.raises(DataError, match="these examples are all alike, so none is rare"):
        audited(model, points(np.ones((60, 6), np.float32)))
    with pytest.raises(DataError, match="3 labels for 100 examples: give one for each"):
        latlas.audit(model, (x, [0, 1, 0]))
    with pytest.raises(CapabilityError, match="an encoder"):
        audited(Draws(None, model.space), points(x))
    with pytest.raises(ConfigError, match="arrays have no columns"):
        latlas.audit(model, x, group="age")


def test_a_model_that_needs_a_condition_is_refused():
    model = Through(6)
    model.condition_dim = 2
    with pytest.raises(CapabilityError, match="under a condition"):
        audited(model, points(planted(100)[0]))


def test_labels_need_not_be_the_models_own():
    x, few = planted(200)
    result = latlas.audit(Through(6), (x, np.where(few, "rare", "usual")))
    assert [g.name for g in result.groups] == ["rare", "usual"]


# ------------------------------------------------------------------------------ files

def test_the_page_shows_pictures_groups_and_the_way(tmp_path):
    data = images(n=120)
    model, _ = train(tmp_path, "pca", data, small("pca"))
    result = audited(model, data, label=data.label, names=data.space.classes)
    text = build_page(result, model, data, title="t", command="latlas audit run")
    for anchor in ("summary", "the-rarest-and-the-commonest", "groups-of-rare-examples",
                   "dimensions", "groups-by-label", "how-it-was-made"):
        assert f'<section id="{anchor}">' in text
    assert "To group 1" in text and "http" not in text and "<script" not in text
    without = build_page(audited(model, data), model, data, title="t")
    assert 'id="groups-by-label"' not in without


def test_the_page_of_a_table_has_rows_and_the_columns_that_tell_a_group(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    few = np.arange(300) % 30 == 4
    x[few, 1] += 40
    names = np.array([f"row-{i}" for i in range(300)])
    space = Table.of_numbers(("a", "b", "c"))
    data = Dataset(x, space, names=names)
    result = audited(Through(3), data)
    text = build_page(result, Through(3), data, title="t")
    first = result.order[0]
    row = "".join(f"<td>{v:.4g}</td>" for v in x[first])
    assert f"<td>row-{first}</td>{row}" in text
    most = max(result.clusters, key=lambda c: few[c.examples].mean())
    mean = x[most.examples, 1].astype(float).mean()
    assert f"<td>b</td><td>{mean:.4g}</td>" in text
    assert "rarer by latent vector" in text.replace("\n", " ")
    assert "to its middle, decoded" not in text
    assert "30th neighbour." in text and "a walk from" not in text


def test_the_command_writes_page_metrics_and_table(tmp_path, capsys):
    rng = np.random.default_rng(0)
    csv = tmp_path / "rows.csv"
    polars.DataFrame({"a": rng.normal(size=90), "b": rng.normal(size=90),
                      "kind": ["x", "y", "z"] * 30}).write_csv(csv)
    run = tmp_path / "run"
    assert command(["train", "pca", "--data", str(csv), "--label", "kind", "--out", str(run)]) == 0
    capsys.readouterr()
    assert command(["audit", str(run), "--data", str(csv), "--label", "kind", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [g["name"] for g in result["groups"]] == ["x", "y", "z"]
    held_out = json.loads((run / "audit" / "audit.json").read_text())
    assert held_out["groups"] == result["groups"]
    examples = polars.read_csv(run / "audit" / "examples.csv")
    assert examples["rank"].to_list() == list(range(1, 91))
    assert (run / "audit" / "report.html").read_text().startswith("<!doctype html>")
    assert command(["audit", str(run), "--group", "a", "--out", str(tmp_path / "again")]) == 0
    assert "variance between groups" in capsys.readouterr().out
    assert command(["audit", str(run), "--group", "c"]) == 2
    assert "unknown factor or column 'c'" in capsys.readouterr().err
