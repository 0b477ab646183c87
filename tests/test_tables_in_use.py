"""A run of a table in use: a row has one score, whatever brings it; what it writes is typed."""

import json

import numpy as np
import polars as pl
import pytest

import latlas
from latlas.cli import __main__ as cli

N = 120


def mixed(n=N, seed=0):
    rng = np.random.default_rng(seed)
    gap = rng.random(n) < 0.2
    return pl.DataFrame({
        "customer_id": [f"c{i:04d}" for i in range(n)],
        "age": pl.Series([None if g else int(a) for g, a in zip(gap, rng.integers(18, 90, n),
                                                                strict=True)], dtype=pl.Int64),
        "size": rng.normal(170, 10, n).round(1),
        "colour": rng.choice(["red", "green", "blue"], n),
        "happy": rng.random(n) < 0.5,
        "day": pl.Series(np.datetime64("2020-01-01") + rng.integers(0, 400, n)).cast(pl.Date),
    })


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    mixed().write_csv(folder / "train.csv")
    latlas.train("pca", folder / "train.csv", out=folder / "run", progress=False, latent_dim=3)
    return folder / "run"


def nats(run, data):
    return np.asarray(latlas.score(run, data).nats)


def test_a_score_is_the_rows_own_whatever_brings_it(run, tmp_path):
    frame = mixed(40, seed=1)
    expected = nats(run, frame)
    assert np.isfinite(expected).all()
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "semi.csv", separator=";")
    frame.write_parquet(tmp_path / "t.parquet")
    order = np.random.default_rng(2).permutation(40)
    others = {
        "csv": tmp_path / "t.csv", "semicolons": tmp_path / "semi.csv",
        "parquet": tmp_path / "t.parquet", "pandas": frame.to_pandas(), "arrow": frame.to_arrow(),
        "columns in another order": frame.select(frame.columns[::-1]),
        "another column": frame.with_columns(pl.lit("x").alias("more")),
        "without the id": frame.drop("customer_id"),
    }
    for name, data in others.items():
        np.testing.assert_allclose(nats(run, data), expected, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(nats(run, frame[order]), expected[order], rtol=1e-6)
    for i in range(0, 40, 7):
        np.testing.assert_allclose(nats(run, frame[[i]]), expected[[i]], rtol=1e-6)
    scorer = latlas.Scorer(run)
    batch = {c: np.array(frame[c].to_list(), object) for c in frame.columns}
    np.testing.assert_allclose(scorer(batch)["nats"], expected, rtol=1e-6)


def test_what_a_run_is_not_told_in_training_is_said(run):
    with pytest.warns(latlas.core.errors.DataNote, match="size: 1 gaps, of which training had"):
        nats(run, mixed(3, seed=2).with_columns(size=pl.Series([None, 1.0, 2.0])))
    with pytest.warns(latlas.core.errors.DataNote, match="does not know are ignored .more"):
        nats(run, mixed(3, seed=2).with_columns(more=pl.lit(1)))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_samples_have_the_types_of_the_training_table(run, tmp_path, ending):
    out = tmp_path / f"s{ending}"
    assert cli.run(["sample", str(run), "--n", "20", "--out", str(out)]) == 0
    read = pl.read_csv(out, try_parse_dates=True) if ending == ".csv" else pl.read_parquet(out)
    assert read.columns == ["age", "size", "colour", "happy", "day"]
    assert dict(read.schema) == {"age": pl.Int64, "size": pl.Float64, "colour": pl.String,
                                 "happy": pl.Boolean, "day": pl.Date}
    assert (read["size"] == read["size"].round(1)).all()


def test_missing_columns_and_new_words_are_refused_in_one_line(run, tmp_path, capsys):
    for frame, message in (
            (mixed(5).drop("size", "day"), "has no column 'size', 'day'"),
            (mixed(5).with_columns(colour=pl.lit("violet")), "colour holds 'violet'")):
        frame.write_csv(tmp_path / "bad.csv")
        assert cli.run(["score", str(run), "--data", str(tmp_path / "bad.csv")]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert len(error) == 1 and message in error[0]


def test_outliers_of_a_file_with_an_empty_column_and_labels_of_its_own(run, tmp_path, capsys):
    frame = mixed(30, seed=3).with_columns(
        age=pl.Series([None] * 30, dtype=pl.Int64),
        kind=pl.Series(["strange" if i % 5 == 0 else "usual" for i in range(30)]))
    frame.write_csv(tmp_path / "t.csv")
    assert cli.run(["outliers", str(run), "--data", str(tmp_path / "t.csv"), "--fpr", "0.2",
                    "--label", "kind", "--outlier-label", "strange", "--out",
                    str(tmp_path / "o.csv"), "--json"]) == 0
    assert pl.read_csv(tmp_path / "o.csv").height == 30
    facts = json.loads(capsys.readouterr().out)
    assert facts["examples"] == 30 and facts["rankings"]
    assert all(0 <= ranking["auroc"] <= 1 for ranking in facts["rankings"].values())


def test_data_info_lists_every_column_and_all_problems(tmp_path, capsys):
    frame = mixed().with_columns(nothing=pl.lit(None), odd=pl.Series(
        [f"{i}.5" if i % 3 else f"n{i}" for i in range(N)]))
    frame.write_csv(tmp_path / "t.csv")
    assert cli.run(["data", "info", str(tmp_path / "t.csv")]) == 0
    said = capsys.readouterr().out
    for words in ("customer_id  id", "age          integer", "colour       category",
                  "day          date", "column nothing is empty; leave it out with",
                  "column odd: 67% of its values look like numbers"):
        assert words in said


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_rows_are_refused_for_training_and_scored(run, tmp_path, capsys, n):
    mixed(n, seed=4).write_csv(tmp_path / "t.csv")
    assert cli.run(["train", "pca", "--data", str(tmp_path / "t.csv"), "--out",
                    str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert f"{n} rows are too few to learn from" in error[-1] and not (tmp_path / "run").exists()
    assert np.isfinite(nats(run, tmp_path / "t.csv")).all()
