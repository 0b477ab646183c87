"""Likelihoods of a table's columns by kind against closed forms; gaps left out or modelled."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats
from tiny import options, small, train

from latlas.core.columns import ByColumn, Layout
from latlas.core.model import Batch
from latlas.core.noise import Noise
from latlas.core.options import parse
from latlas.core.space import Column, Table
from latlas.data.opening import open_source
from latlas.data.values import feature_rows, frame_of, mixed_rows
from latlas.models import build, get
from latlas.objectives.elbo import importance_bound, log_weights

N = 400


def table(gaps=0.15, n=N, seed=0):
    rng = np.random.default_rng(seed)
    size = rng.normal(170, 10, n)
    columns = {
        "size": size, "weight": 0.7 * size + rng.normal(0, 4, n), "kids": rng.poisson(1.3, n),
        "grade": rng.integers(1, 6, n) + 1, "member": rng.random(n) < 0.4,
        "flag": (size > 172).astype(int), "city": rng.choice(["Ulm", "Bonn", "Jena"], n),
        "day": np.datetime64("2015-01-01") + rng.integers(0, 2000, n)}
    missing = rng.random((n, len(columns))) < gaps
    return pl.DataFrame({name: pl.Series([None if m else v for v, m in zip(
        np.asarray(values).tolist(), gap, strict=True)]) for (name, values), gap in zip(
            columns.items(), missing.T, strict=True)})


@pytest.fixture(scope="module")
def rows():
    source = open_source(table())
    return source.split("all")


def test_kinds_of_likelihoods_are_those_of_the_columns(rows):
    assert {c.name: c.law for c in rows.space.fields} == {
        "size": "gaussian", "weight": "gaussian", "kids": "count", "grade": "ordinal",
        "member": "bernoulli", "flag": "bernoulli", "city": "categorical", "day": "gaussian"}


def test_every_kind_against_its_closed_form(rows):
    space, rng = rows.space, np.random.default_rng(0)
    layout = Layout(space)
    x = space.to_model(torch.tensor(np.asarray(rows.x)))
    output = torch.tensor(rng.normal(0, 0.7, x.shape), dtype=torch.float32)
    log_var = torch.tensor(rng.normal(-1, 0.5, space.dims), dtype=torch.float32)
    nats = ByColumn(output, log_var, layout).log_probs(x).double().numpy()
    there, data = layout.observed(x).numpy(), mixed_rows(rows.x, space.fields)
    sd = np.exp(log_var.double().numpy() / 2)
    for i, part in enumerate(layout.parts):
        at, o = part.start, output[:, part.start].double().numpy()
        scale, location = np.asarray(space.scale)[at], np.asarray(space.location)[at]
        value = np.asarray(rows.x)[:, at]
        if part.column.law == "gaussian":
            expected = stats.norm.logpdf((value - location) / scale, o, sd[at])
        elif part.column.law == "bernoulli":
            expected = stats.bernoulli.logpmf(value > 0.5, 1 / (1 + np.exp(-o)))
        elif part.column.law == "count":
            mean, size = location * np.exp(8 * np.tanh(o / 8)), 1 / sd[at]
            expected = stats.nbinom.logpmf(value, size, size / (size + mean))
        elif part.column.law == "ordinal":
            law = stats.logistic(location + scale * o, scale * sd[at])
            expected = np.log(law.cdf(value + 0.5) - law.cdf(value - 0.5))
        else:
            logits = output[:, part.start:part.stop].double().numpy()
            code = data.codes[:, list(data.names).index("city") - data.numbers.shape[1]]
            expected = (logits - np.log(np.exp(logits).sum(1))[:, None])[
                np.arange(len(code)), code]
        np.testing.assert_allclose(nats[there[:, i], i], expected[there[:, i]], rtol=2e-4,
                                   atol=2e-5, err_msg=part.column.name)
        assert (nats[~there[:, i], i] == 0).all()


@pytest.mark.parametrize("law", ["count", "ordinal"])
def test_chances_of_whole_numbers_sum_to_one(law):
    column = Column("n", "integer", "Int64", likelihood=law)
    space = Table(fields=(column,), location=(3.0,), scale=(2.0,))
    x = space.to_model(torch.arange(-60.0 if law == "ordinal" else 0.0, 400.0)[:, None])
    for o in (-1.0, 0.0, 1.5):
        nats = ByColumn(torch.tensor([[o]]), torch.tensor([-0.5]), Layout(space)).log_prob(x)
        assert float(nats.double().exp().sum()) == pytest.approx(1, abs=1e-4)


def test_draws_have_the_chances_of_their_kind(rows):
    layout, n = Layout(rows.space), 20_000
    rng = np.random.default_rng(1)
    output = torch.tensor(rng.normal(0, 0.7, (1, rows.space.dims)), dtype=torch.float32)
    log_var = torch.full((rows.space.dims,), -1.0)
    p = ByColumn(output.expand(n, -1), log_var, layout)
    x, mean = p.sample(Noise(0)), p.mean[0]
    error = x.std(0) / n**0.5
    waves = [part.start + 1 + i for part in layout.parts for i in range(2 * len(part.column.parts))]
    rest = [j for j in range(rows.space.dims) if j not in waves]
    assert ((x.mean(0) - mean).abs() <= 4.5 * error + 1e-4)[rest].all()
    frame = frame_of(np.asarray(rows.space.to_data(x.numpy())), rows.space)
    assert frame.null_count().sum_horizontal()[0] == 0  # gaps are not modelled
    assert frame["kids"].dtype == pl.Int64 and frame["kids"].min() >= 0
    days = frame["day"].cast(pl.Int64).to_numpy()
    at = next(part.start for part in layout.parts if part.column.name == "day")
    np.testing.assert_allclose(rows.space.to_data(x.numpy())[:, at + 1], np.sin(
        2 * np.pi * days / 365.2425), atol=0.02)


@pytest.mark.parametrize("name", ["vae", "iwae", "hierarchical-vae", "atlas-vae", "pca"])
def test_a_gap_is_left_out_however_it_is_filled(rows, name):
    """NaN, or what stands in its place beside the number for it, make no difference; and a score
    without a column is not the score with it."""
    torch.manual_seed(0)
    model = build(name, parse(get(name).config, {"latent_dim": 2}), rows.space).eval()
    x = rows.space.to_model(torch.tensor(np.asarray(rows.x)))
    if name == "pca":
        model.fit([Batch(x)])
    else:
        model.prepare([Batch(x)], len(x))
    other, missing = x.clone(), x.clone()
    for i, part in enumerate(Layout(rows.space).parts):
        gap = ~Layout(rows.space).observed(x)[:, i]
        stop = part.start + len(part.column.features) - (part.gap is not None)
        other[gap, part.start:stop] = 7.0 if part.column.law == "gaussian" else other[
            gap, part.start:stop]
        missing[gap, part.start] = float("nan")
    scores = [model.log_likelihood(v, noise=Noise(0), draws=2)[0] for v in (x, other, missing)]
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores[0], scores[2], rtol=1e-4, atol=1e-4)
    assert torch.isfinite(scores[0]).all()
    fewer = x.clone()
    fewer[:, 0] = float("nan")
    assert (model.log_likelihood(fewer, noise=Noise(0), draws=2)[0] - scores[0]).abs().max() > 0.1


def test_pca_of_numbers_with_gaps_is_the_normal_of_those_that_are_there():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(500, 5)) @ rng.normal(size=(5, 5))
    space = Table.of_numbers(5)
    model = build("pca", small("pca"), space)
    model.fit([Batch(torch.tensor(x))])
    mean = model.mean.numpy()
    covariance = (model.weight @ model.weight.T).numpy() + float(model.noise_variance) * np.eye(5)
    gap = rng.random(x.shape) < 0.4
    gap[0] = False
    nats = model.log_likelihood(torch.tensor(np.where(gap, np.nan, x)), noise=Noise(0))[0]
    for i in range(60):
        there = ~gap[i]
        expected = stats.multivariate_normal.logpdf(
            x[i, there], mean[there], covariance[np.ix_(there, there)]) if there.any() else 0.0
        assert float(nats[i]) == pytest.approx(expected, abs=1e-8)


def test_pca_fits_rows_with_gaps_as_if_they_were_whole():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4000, 2)) @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(4000, 4))
    whole = pl.DataFrame({f"c{i}": column for i, column in enumerate(x.T)})
    gap = rng.random((4000, 4)) < 0.3
    holes = pl.DataFrame({c: pl.Series([None if g else v for v, g in zip(
        whole[c].to_list(), gap[:, i], strict=True)]) for i, c in enumerate(whole.columns)})
    covariances = []
    for frame in (whole, holes):
        data = open_source(frame).split("all")
        model = build("pca", small("pca", latent_dim=2), data.space)
        model.fit([Batch(data.space.to_model(torch.tensor(np.asarray(data.x))))])
        at = [part.start for part in Layout(data.space).parts]
        scale = np.asarray(data.space.scale)[at]
        c = (model.weight @ model.weight.T).numpy()[np.ix_(at, at)] + float(
            model.noise_variance) * np.eye(4)
        covariances.append(c * scale * scale[:, None])
    np.testing.assert_allclose(covariances[0], covariances[1], rtol=0.08, atol=0.02)


def test_pcas_bound_by_importance_is_its_likelihood(rows):
    """log p(x|z) and the posterior belong to the same density, with gaps."""
    model = build("pca", small("pca", latent_dim=2), rows.space)
    x = rows.space.to_model(torch.tensor(np.asarray(rows.x)))
    model.fit([Batch(x)])
    exact = model.log_likelihood(x, noise=Noise(0))[0]
    q = model.encode(x)
    log_w = log_weights(q, model.prior.log_prob, lambda z: model.log_conditional(x.double(), z),
                        4000, Noise(1))
    difference = importance_bound(log_w)[0] - exact
    assert abs(float(difference.mean())) < 0.02 and float(difference.abs().median()) < 0.05


@pytest.mark.parametrize("name", ["vae", "pca"])
def test_modelled_gaps_have_a_chance(name):
    data = open_source(table()).split("all")
    torch.manual_seed(0)
    model = build(name, parse(get(name).config, {"latent_dim": 2, "gaps": "modelled"}), data.space)
    x = data.space.to_model(torch.tensor(np.asarray(data.x)))
    if name == "pca":
        model.fit([Batch(x)])
    there = Layout(data.space).observed(x)
    row = x[there.all(1)][:1]
    gone = row.clone()
    at = next(p for p in Layout(data.space).parts if p.column.name == "kids").gap
    gone[:, at] = (1 - data.space.location[at]) / data.space.scale[at]
    both = [float(model.log_likelihood(v, noise=Noise(0), draws=1)[0]) for v in (row, gone)]
    assert both[0] != pytest.approx(both[1], abs=0.05)


def test_a_word_that_training_had_not_is_as_improbable_as_the_least_probable(rows):
    layout = Layout(rows.space)
    part = next(p for p in layout.parts if p.column.law == "categorical")
    x = rows.space.to_model(torch.tensor(np.asarray(rows.x)[:1].repeat(4, 0)))
    values = torch.zeros(4, part.stop - part.start + 1)
    values[torch.arange(3), torch.arange(3)] = 1.0
    x[:, part.start:part.stop + 1] = layout.model(values.double(), slice(
        part.start, part.stop + 1)).float()
    output = torch.linspace(-1, 1, rows.space.dims)[None]
    nats = ByColumn(output, torch.zeros(rows.space.dims), layout).log_probs(x)[
        :, layout.parts.index(part)]
    assert float(nats[3]) == pytest.approx(float(nats[:3].min()))


def test_rows_by_kinds_and_back(rows):
    fields = rows.space.fields
    mixed = mixed_rows(rows.x, fields)
    np.testing.assert_allclose(feature_rows(mixed, fields, fill=True), rows.x, atol=1e-9)
    assert mixed.observed.mean() == pytest.approx(0.85, abs=0.03)


def test_a_mixed_table_is_learnt_and_sampled(tmp_path):
    data = open_source(table(gaps=0.05)).split("all")
    model, _ = train(tmp_path, "vae", data, small("vae", width=32), training=options(
        images=20_000, batch_size=64))
    model.requires_grad_(False)
    x = data.space.to_model(torch.tensor(np.asarray(data.x)))
    q = model.encode(x)
    nats = model.decode(q.mean).log_probs(x)
    assert torch.isfinite(nats).all()
    drawn = frame_of(np.asarray(data.space.to_data(model.sample(500, noise=Noise(0)))), data.space)
    shares = drawn["member"].mean(), (drawn["city"] == "Ulm").mean()
    assert 0.25 < shares[0] < 0.55 and 0.15 < shares[1] < 0.55
