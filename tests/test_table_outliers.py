"""Outliers of tables by the command: gaps and words, reasons, files of another month."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

import latlas
from latlas.cli import __main__ as cli
from latlas.core.errors import CapabilityError, DataNote


def customers(n=1500, planted=30, gaps=0.1, seed=0):
    """Skewed income, a debt that follows it, words; planted: income × 12, debt × 15, no gap."""
    rng = np.random.default_rng(seed)
    income = np.exp(rng.normal(10, 0.4, n))
    debt = 0.3 * income * rng.lognormal(0, 0.2, n)
    changed = np.where(np.arange(n) < planted, np.where(np.arange(n) % 2, "income", "debt"), "")
    income[changed == "income"] *= 12
    debt[changed == "debt"] *= 15
    values = {"income": income.round(), "debt": debt.round(), "kids": rng.poisson(1.2, n),
              "city": rng.choice(["Ulm", "Bonn", "Jena"], n), "owner": rng.random(n) < 0.4}
    empty = rng.random((n, len(values))) < gaps
    empty[:planted] = False
    order = rng.permutation(n)
    frame = pl.DataFrame({"id": [f"K{i:05d}" for i in range(n)]} | {
        name: pl.Series([None if gap else v for v, gap in zip(
            column[order].tolist(), empty[order, j], strict=True)])
        for j, (name, column) in enumerate(values.items())})
    return frame, changed[order], empty[order].any(1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("customers")
    frame, changed, gap = customers()
    frame.write_csv(folder / "train.csv")
    latlas.train("pca", folder / "train.csv", out=folder / "run", progress=False, latent_dim=3)
    return folder / "run", frame, changed, gap


def ranked(run, frame, tmp_path, *more):
    frame.write_csv(tmp_path / "data.csv")
    assert cli.run(["outliers", str(run), "--data", str(tmp_path / "data.csv"), "--split", "all",
                    "--out", str(tmp_path / "o.csv"), *more]) == 0
    return pl.read_csv(tmp_path / "o.csv", infer_schema_length=None)


def test_planted_rows_come_first_with_their_column_and_gaps_say_nothing(run, tmp_path, capsys):
    folder, frame, changed, gap = run
    table = ranked(folder, frame, tmp_path, "--json").sort("id")
    facts = json.loads(capsys.readouterr().out)
    score, odd = table["score"].to_numpy(), changed != ""
    assert roc_auc_score(odd, score) > 0.99
    assert abs(roc_auc_score(gap[~odd], score[~odd]) - 0.5) < 0.07
    first = table["reason 1"].fill_null("").str.split(" ").list.first().to_numpy()
    assert (first[odd] == changed[odd]).mean() > 0.9
    assert facts["expected"][0] <= facts["flagged"] / 1500 <= facts["expected"][1]
    assert table.select(frame.columns).equals(frame.with_columns(pl.col("owner")))
    wild = table.sort("rank").filter(pl.col("reason 1").str.starts_with("income"))["reason 1"][0]
    assert "nats: " in wild and "where 95 % lie under" in wild
    page = (tmp_path / "o-reasons.html").read_text("utf-8")
    assert page.count("<img") == page.count("</figure>") > 1 and "nats" in page


def test_contamination_flags_that_share_of_the_training_rows(run, tmp_path):
    table = ranked(run[0], run[1], tmp_path, "--contamination", "0.02")
    assert table["flag"].mean() == pytest.approx(0.02, abs=0.006)
    assert (run[2] != "")[table.with_columns(row=pl.col("id").str.slice(1).cast(int)).filter(
        "flag")["row"].to_numpy()].mean() > 0.85


def test_another_months_file_is_read_as_it_comes(run, tmp_path, capsys):
    july = customers(200, 0, 0.0, 1)[0]
    july = july.drop("kids").with_columns(
        pl.when(pl.col("id") == "K00007").then(pl.lit("Trier")).otherwise("city").alias("city"),
        pl.when(pl.col("id") == "K00009").then(pl.lit("?!")).otherwise(
            pl.col("income").cast(str)).alias("income"), more=pl.lit(1))
    table = ranked(run[0], july, tmp_path)
    notes = capsys.readouterr().err
    for words in ("no column 'kids'", "city holds 'Trier'", "'?!'", "(more)"):
        assert words in notes
    assert "K00007" in table["id"][:5]
    assert table.filter(pl.col("id") == "K00007")["reason 1"][0].startswith("city")
    assert table.height == 200 and table["score"].is_finite().all()


def test_a_row_has_one_score_whatever_stands_beside_it(run, tmp_path):
    folder, frame, _, _ = run
    whole = latlas.outliers(folder, frame[:60], split="all")
    with pytest.warns(DataNote):
        part = latlas.outliers(folder, frame[20:23].with_columns(more=pl.lit(1)), split="all")
    np.testing.assert_allclose(part.score, whole.score[20:23], rtol=1e-6)
    assert part.threshold == whole.threshold
    scorer = latlas.Scorer(folder, "outliers")
    batch = {c: np.array(frame[c][:60].to_list(), object) for c in frame.columns}
    np.testing.assert_allclose(scorer(batch)["score"], whole.score, rtol=1e-6)


def test_columns_of_the_data_do_not_replace_those_of_the_result(run, tmp_path):
    frame = run[1][:60].with_columns(pl.lit("mine").alias("reason 1"), score=pl.lit(1))
    table = ranked(run[0], frame, tmp_path)
    assert (table["reason 1 (data)"] == "mine").all() and (table["score (data)"] == 1).all()
    assert "mine" not in table["reason 1"].to_list() and table["score"].n_unique() > 1


@pytest.mark.parametrize("contamination", [None, 0.05])
def test_progress_ends_at_its_total(run, contamination):
    counts = []
    latlas.outliers(run[0], run[1][:50], split="all", contamination=contamination,
                    controls=False, progress=lambda *pair: counts.append(pair))
    assert len({total for _, total in counts}) == 1
    assert counts == sorted(counts) and counts[-1][0] == counts[-1][1]


@pytest.mark.filterwarnings("ignore::latlas.core.errors.DataNote")
def test_a_scorer_reads_gaps_and_new_words_as_the_verb_does(tmp_path):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.normal(size=1200), "b": rng.normal(size=1200),
                          "word": rng.choice(["x", "y"], 1200)})
    latlas.train("pca", frame.write_csv(tmp_path / "t.csv") or tmp_path / "t.csv",
                 out=tmp_path / "run", progress=False, latent_dim=1)
    rows = frame[:4].with_columns(a=pl.Series([None, *frame["a"][1:4]]),
                                  word=pl.Series(["x", "z", None, "y"]))
    batch = {c: np.array(rows[c].to_list(), object) for c in rows.columns}
    whole = latlas.outliers(tmp_path / "run", rows, split="all", controls=False)
    np.testing.assert_allclose(latlas.Scorer(tmp_path / "run", "outliers")(batch)["score"],
                               whole.score, rtol=1e-6)
    options = {"method": "nats", "contamination": 0.1}
    whole = latlas.outliers(tmp_path / "run", frame[:30], split="all", controls=False, **options)
    scorer = latlas.Scorer(tmp_path / "run", "outliers", **options)
    assert scorer.normality.threshold == whole.threshold


def test_the_ensemble_needs_a_table_and_its_training_rows(run):
    model = latlas.load(run[0]).model
    with pytest.raises(CapabilityError, match="training data can be opened"):
        latlas.outliers(model, run[1][:50], method="ensemble")
    result = latlas.outliers(model, run[1][:300], reference=run[1], controls=False)
    assert result.method == "nats"


@pytest.mark.parametrize(("more", "message"), [
    (["--fpr", "0.0001"], "needs 9999 held-out normal examples"),
    (["--contamination", "0.7"], "a share above 0, up to 0.5")])
def test_a_threshold_that_cannot_be_is_one_line(run, tmp_path, capsys, more, message):
    assert cli.run(["outliers", str(run[0]), "--out", str(tmp_path / "o.csv"), *more]) == 2
    error = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error")]
    assert len(error) == 1 and message in error[0]


@pytest.mark.parametrize("extra", ["one value", "10,000 words", "gaps but three", "words alone"])
def test_columns_that_say_little_are_no_problem(tmp_path, extra):
    rng, n = np.random.default_rng(0), 600
    columns = {"a": rng.normal(size=n), "b": rng.choice(["x", "y"], n)}
    if extra == "one value":
        columns["c"] = np.full(n, 7)
    elif extra == "10,000 words":
        columns["c"] = [f"w{i % 290}" for i in range(n)]
    elif extra == "gaps but three":
        columns["c"] = pl.Series([1.0, 2.0, 4.0] + [None] * (n - 3))
    else:
        columns = {"b": columns["b"], "c": rng.choice(["p", "q", "r"], n)}
    pl.DataFrame(columns).write_csv(tmp_path / "t.csv")
    latlas.train("pca", tmp_path / "t.csv", out=tmp_path / "run", progress=False, latent_dim=1)
    assert cli.run(["outliers", str(tmp_path / "run"), "--split", "all", "--fpr", "0.1", "--out",
                    str(tmp_path / "o.csv")]) == 0
    assert pl.read_csv(tmp_path / "o.csv")["score"].is_finite().all()
