"""Outliers of a trained run: the threshold, the metrics, the scores, the command."""

from __future__ import annotations

import json

import numpy as np
import polars
import pytest
import torch
from PIL import Image
from scipy.stats import binom
from sklearn.metrics import average_precision_score, roc_auc_score
from tiny import images, options, points, small, table, train

import latlas
from latlas.cli.__main__ import run as command
from latlas.core.distributions import (
    Bernoulli,
    DiscretisedLogistic,
    Normal,
    PointMass,
    log_probs,
)
from latlas.core.errors import CapabilityError, ConfigError, DataError
from latlas.core.model import Model
from latlas.core.space import Points
from latlas.data.dataset import Dataset
from latlas.metrics import outliers as metrics
from latlas.verbs.normality import nats_maps
from latlas.verbs.outliers import NEEDED, outliers


@pytest.mark.parametrize(("m", "share"), [(99, 0.1), (199, 0.01), (57, 0.3)])
def test_a_new_normal_item_exceeds_the_threshold_as_often_as_asked(m, share):
    """Exactly ⌊α (m + 1)⌋ / (m + 1) of the time, whatever the distribution."""
    rng = np.random.default_rng(0)
    draws = rng.standard_cauchy((4000, m + 1))
    alarms = sum(row[-1] > metrics.threshold(row[:-1], share) for row in draws)
    expected = np.floor(share * (m + 1) + 1e-9) / (m + 1)
    low, high = binom.interval(0.999, len(draws), expected)
    assert low <= alarms <= high


@pytest.mark.parametrize(("m", "share", "message"), [
    (50, 0.01, "needs 99 held-out normal examples, there are 50, which are "
     "enough for fpr=0.02"), (50, 0.0, "between 0 and 1"),
    (50, 1.5, "between 0 and 1")])
def test_a_threshold_that_cannot_be_had_is_refused(m, share, message):
    with pytest.raises(ConfigError, match=message):
        metrics.threshold(np.arange(m), share)
    assert metrics.threshold(np.arange(50), 0.02) == 49


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    outlier = rng.random(300) < 0.1
    score = rng.normal(size=300) + outlier
    result = metrics.ranking(score, outlier)
    assert result.auroc == pytest.approx(roc_auc_score(outlier, score))
    assert result.average_precision == pytest.approx(average_precision_score(outlier, score))
    assert result.k == outlier.sum()
    assert metrics.ranking(score, outlier, 5).precision == outlier[np.argsort(-score)[:5]].mean()
    assert metrics.ranking(score, np.zeros(300)) is None


def test_typical_is_the_squared_mahalanobis_distance():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3)) + 1000
    covariance = np.cov(x.T)
    centred = x - x.mean(0)
    expected = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred)
    np.testing.assert_allclose(metrics.Typical.of(x).distance(x), expected, rtol=1e-6)


def test_statistics_that_repeat_or_never_vary_change_nothing():
    x = np.random.default_rng(3).normal(size=(200, 2))
    more = np.column_stack([x, 2 * x[:, 0] + 1, np.full(200, 7.0)])
    mine, theirs = metrics.Typical.of(x).distance(x), metrics.Typical.of(more).distance(more)
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_controls_know_their_own():
    """PPCA's control ranks as the exact density of scikit-learn; both find what lies far off."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 6)) + 0.1 * rng.normal(size=(400, 6))
    examples = np.concatenate([x[:50], rng.normal(size=(5, 6)) * 6])
    control = metrics.ppca_surprise(x, examples, 2)
    exact = -PCA(2).fit(x).score_samples(examples)
    np.testing.assert_allclose(control - control[0], 2 * (exact - exact[0]), rtol=1e-2, atol=1e-2)
    for result in (control, metrics.forest_surprise(x, examples)):
        assert set(np.argsort(-result)[:5]) == set(range(50, 55))


CASES = [("vae", images), ("hierarchical-vae", images), ("atlas-vae", images), ("ae", images),
         ("pca", images), ("vae", table), ("ae", points), ("pca", table)]


@pytest.mark.parametrize(("name", "data"), CASES)
@pytest.mark.parametrize("method", ["auto", *NEEDED])
def test_an_items_score_depends_on_that_item_alone(tmp_path, name, data, method):
    if name == "ae" and method == "nats":
        pytest.skip("no likelihood")
    examples = data(n=90)
    model, _ = train(tmp_path, name, examples, small(name))
    normal = examples.subset(slice(0, 60))
    whole = outliers(model, examples.subset(slice(60, 90)), reference=normal, fpr=0.1,
                     controls=False, method=method)
    part = outliers(model, examples.subset(slice(70, 73)), reference=normal, fpr=0.1,
                    controls=False, method=method)
    np.testing.assert_allclose(part.score, whole.score[10:13], rtol=1e-3, atol=1e-3)
    assert part.threshold == whole.threshold


class Plain(Model):
    """Three statistics of an example: two of its three numbers, and their log mean square."""

    latent_dim = 1

    def __init__(self):
        super().__init__(None, Points((3,)))

    def encode(self, x, *, condition=None):
        return Normal(x[:, :1], x[:, 1:2])

    def decode(self, z, *, condition=None):
        return PointMass(torch.zeros(len(z), 3))

    def log_likelihood(self, x, *, noise, draws, condition=None):
        return x[:, 2], torch.ones(len(x))


@pytest.mark.parametrize("method", ["auto", *NEEDED])
def test_fresh_normal_items_are_flagged_as_often_as_asked_though_few_set_the_threshold(method):
    """Few: a threshold from the examples that a Gaussian was fitted to would be far too low."""
    rng, model, alarms = np.random.default_rng(5), Plain(), []
    for _ in range(150):
        x = rng.normal(size=(140, 3)).astype(np.float32)
        examples = Dataset(x, model.space)
        scores = outliers(model, examples.subset(slice(40, None)), reference=examples.subset(
            slice(0, 40)), fpr=0.1, method=method, controls=False)
        assert len(scores.reference) == (20 if scores.method == "typicality" else 40)
        alarms.append(scores.flag.mean())
    m = len(scores.reference)
    expected = np.floor(0.1 * (m + 1)) / (m + 1)
    error = np.std(alarms) / np.sqrt(len(alarms))
    assert np.mean(alarms) == pytest.approx(expected, abs=4 * error) and error < 0.01


@pytest.mark.parametrize("name", ["vae", "ae", "pca"])
def test_what_is_no_blob_is_odd(tmp_path, name):
    examples = images(n=300)
    model, _ = train(tmp_path, name, examples.subset(slice(0, 200)), small(name))
    noise = np.random.default_rng(0).integers(0, 17, (20, *examples.x.shape[1:])).astype(np.uint8)
    mixed = Dataset(np.concatenate([examples.x[290:], noise]), examples.space)
    outlier = np.arange(len(mixed)) >= 10
    result = outliers(model, (mixed.x, outlier), reference=examples.subset(slice(200, 290)),
                     controls=examples.subset(slice(0, 200)), fpr=0.1)
    assert result.method == "typicality"
    assert result.rankings()["typicality"].auroc == 1
    assert set(result.rankings()) == {"typicality", "isolation forest", "ppca"}
    assert result.flag[outlier].all()
    columns = result.table()
    assert columns["rank"].tolist() == list(range(1, 31))
    assert (np.diff(columns["score"]) <= 0).all() and columns["label"][:20].all()


def test_a_model_of_parts_and_a_strange_method_are_refused(tmp_path):
    examples = images()
    model, _ = train(tmp_path / "c", "conditional-vae", examples, small("conditional-vae"))
    with pytest.raises(CapabilityError, match="a model of x"):
        outliers(model, examples, reference=examples, controls=False)
    model, _ = train(tmp_path / "a", "ae", examples, small("ae"))
    with pytest.raises(CapabilityError, match="cannot score"):
        outliers(model, examples, reference=examples, controls=False, method="nats")
    with pytest.raises(ConfigError, match="did you mean 'typicality'"):
        outliers(model, examples, reference=examples, controls=False, method="typical")
    with pytest.raises(ConfigError, match="typicality needs 20"):
        outliers(model, examples, reference=examples.subset(slice(0, 5)), controls=False)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "digits"
    latlas.train("vae", "digits", out=out, images=2000, progress=False, threads=1, width=16,
                 depth=1)
    return out


def test_the_command_writes_ranks_histogram_and_gallery(digits, tmp_path, capsys):
    out = tmp_path / "outliers.csv"
    assert command(["outliers", str(digits), "--outlier-label", "1,3", "--fpr", "0.05", "--k", "10",
                    "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    frame = polars.read_csv(out)
    assert frame["rank"].to_list() == list(range(1, said["examples"] + 1))
    assert frame["flag"].sum() == said["flagged"]
    assert (frame["score"] > said["threshold"]).to_list() == frame["flag"].to_list()
    assert said["rankings"]["ppca"]["k"] == 10
    for name in ("outliers-histogram.png", "outliers-first.png"):
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 100


def test_the_command_in_words(digits, tmp_path, capsys):
    out = str(tmp_path / "o.parquet")
    assert command(["outliers", str(digits), "--outlier-label", "1", "--fpr", "0.1",
                    "--out", out]) == 0
    said = capsys.readouterr().out
    assert "isolation forest" in said and "precision at" in said and "held out" in said
    assert command(["outliers", str(digits), "--fpr", "0.1", "--out", out]) == 0
    assert "are also the first by ppca" in capsys.readouterr().out


@pytest.mark.parametrize(("more", "message"), [
    (["--outlier-label", "eleven"], "unknown class 'eleven'"),
    (["--fpr", "0.0001"], "needs 9999 held-out normal examples"),
    (["--out", "x.docx"], "valid endings"), (["--data", "moons"], "holds")])
def test_what_cannot_be_is_one_line(digits, more, message, capsys):
    assert command(["outliers", str(digits), *more]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_arrays_with_marks_and_other_peoples_labels(digits):
    x = latlas.open_data("digits", "test").take("x")
    marks = np.arange(len(x)) % 7 == 0
    result = latlas.outliers(digits, (x, marks), fpr=0.1, controls=False)
    assert (result.truth == marks).all() and not result.controls
    again = latlas.outliers(digits, x, fpr=0.1, method="error", controls=False)
    assert again.truth is None and again.rankings() == {}
    with pytest.raises(DataError, match="0 or 1"):
        latlas.outliers(digits, (x, np.arange(len(x))), fpr=0.1)


@pytest.mark.parametrize("name", ["vae", "pca"])
def test_maps_of_nats_add_up_and_are_bright_where_an_image_is_strange(tmp_path, name):
    examples = images(n=300)
    model, _ = train(tmp_path, name, examples.subset(slice(0, 250)), small(name),
                     training=options(images=10_000))
    x = examples.x[250:260].copy()
    x[:, :, 7, 0] = 16  # where no blob is
    maps = nats_maps(model, Dataset(x, examples.space), examples.subset(slice(0, 200)))
    assert maps.shape == (10, 8, 8)
    assert (maps.reshape(10, -1).argmax(1) == 7 * 8).mean() > 0.7
    result = outliers(model, x, reference=examples.subset(slice(0, 200)), fpr=0.1, controls=False)
    result.save(tmp_path / "o.csv")
    with Image.open(tmp_path / "o-nats.png") as nats, Image.open(tmp_path / "o-first.png") as first:
        assert nats.size == first.size


def test_nats_of_every_number_add_up_to_those_of_the_example():
    rng, x = torch.Generator().manual_seed(0), torch.linspace(-1, 1, 16).round().reshape(1, 1, 4, 4)
    output = torch.randn(3, 1, 4, 4, generator=rng)
    for p in (Normal(output, torch.tensor(-1.0), 3), Normal(output, output, 3),
              Bernoulli(output, 3), DiscretisedLogistic(output, output, 2.0, 3)):
        torch.testing.assert_close(log_probs(p, x.expand(3, -1, -1, -1)).flatten(1).sum(1),
                                   p.log_prob(x), rtol=1e-4, atol=1e-4)
