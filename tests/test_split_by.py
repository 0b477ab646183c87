"""Splits in the order of a column: no row of train comes after one that is held out."""

import json

import numpy as np
import polars as pl
import pytest

import latlas
from latlas.cli import __main__ as cli
from latlas.core.errors import DataError, UnreadOptionError
from latlas.data import info, open_pair, open_source, pack, split
from latlas.data.dataset import partition

DAYS = np.datetime64("2020-01-01") + np.arange(300)


def table(day, seed=0, **more):
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({"day": pl.Series(day), "a": rng.normal(size=len(day)),
                          "b": rng.normal(size=len(day)), **more})
    return frame[rng.permutation(len(frame))]


def days_of(source):
    """The values of the column in each split."""
    column = source.frame.data["day"]
    return {part: column[rows.tolist()] for part, rows in partition(source).items()}


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d.%m.%Y", "%b %d, %Y", "%d/%m/%Y"])
def test_dates_as_a_csv_has_them(tmp_path, form):
    frame = table(DAYS)
    frame.with_columns(pl.col("day").dt.strftime(form)).write_csv(tmp_path / "t.csv")
    source = open_source(tmp_path / "t.csv", split_by="day")
    days = {part: column.str.to_date(form) for part, column in days_of(source).items()}
    assert [len(days[part]) for part in ("train", "validation", "test")] == [240, 30, 30]
    assert days["train"].max() < days["validation"].min()
    assert days["validation"].max() < days["test"].min()
    assert not np.array_equal(partition(source)["test"],
                              partition(open_source(tmp_path / "t.csv"))["test"])


@pytest.mark.parametrize("values", [
    np.arange(300) * 1.5, np.arange(300) - 2**62, DAYS.astype("datetime64[us]"),
    np.arange(300).astype(str), DAYS])
def test_typed_columns_and_numbers_in_text(values):
    expected = np.argsort(np.argsort(np.arange(300)))  # rows in their order
    frame = pl.DataFrame({"day": pl.Series(values), "a": np.random.default_rng(0).normal(size=300)})
    source = open_source(frame, split_by="day", drop="day")
    assert partition(source)["test"].tolist() == expected[270:].tolist()
    assert split(source, "train").space.columns == ("a",)
    assert np.array_equal(partition(source, 3)["test"], partition(source)["test"])


def test_equal_values_are_never_in_two_splits():
    rng = np.random.default_rng(1)
    for count in (2, 3, 5, 17, 150):
        days = days_of(open_source(table(DAYS[rng.integers(0, count, 400)]), split_by="day"))
        sets = [set(days[part].to_list()) for part in ("train", "validation", "test")]
        assert sets[0] and sets[2] and (sets[1] or count == 2)
        for earlier, later in ((0, 1), (0, 2), (1, 2)):
            assert not sets[earlier] & sets[later]
            if sets[earlier] and sets[later]:
                assert max(sets[earlier]) < min(sets[later])
    even = np.repeat(DAYS[:100], 4)
    assert {k: len(v) for k, v in days_of(open_source(table(even), split_by="day")).items()} == {
        "train": 320, "validation": 40, "test": 40}


def test_ties_and_gaps_are_said():
    day = pl.Series(DAYS).to_list()
    day[3] = day[4] = None
    day[10] = day[11]
    source = open_source(table(day), split_by="day")
    assert any("1 rows have the value of another" in note for note in source.notes)
    assert any("2 rows have no value; they come first, in train" in note for note in source.notes)
    assert days_of(source)["train"].null_count() == 2


def test_what_has_no_order_is_refused():
    frame = table(DAYS, word=np.resize(["red", "green"], 300), g=np.arange(300) // 3,
                  gap=pl.Series([None] * 300, dtype=pl.String))
    for options, message in (({"split_by": "dya"}, "did you mean 'day'"),
                             ({"split_by": ""}, "unknown column ''"),
                             ({"split_by": "word"}, "no numbers, dates or times to go by"),
                             ({"split_by": "gap", "drop": "gap"}, "no numbers, dates or times"),
                             ({"split_by": "day", "group": "g"}, "one of the two options")):
        with pytest.raises(DataError, match=message):
            open_source(frame, **options)
    odd = frame.with_columns(day=pl.col("day").dt.strftime("%d/%m/%Y")).filter(
        pl.col("day").str.slice(0, 2).cast(int) <= 12)
    with pytest.raises(DataError, match="dates=dmy or dates=mdy"):
        open_source(odd, split_by="day", drop="day")
    days_of(open_source(odd, split_by="day", drop="day", dates="mdy"))
    with pytest.raises(UnreadOptionError, match="unknown option 'split_by'"):
        open_source("digits", split_by="day")


def test_packed_and_paired_tables_keep_the_order(tmp_path):
    frame = table(DAYS)
    frame.write_csv(tmp_path / "t.csv")
    source = open_source(tmp_path / "t.csv", split_by="day")
    packed = pack(tmp_path / "t.csv", tmp_path / "p", split_by="day")
    assert info(packed)["splits"] == {"train": 240, "validation": 30, "test": 30}
    both = open_pair(tmp_path / "t.csv", tmp_path / "t.csv", paired=True, split_by="day")
    assert open_source(both.spec).spec["split_by"] == "day"
    for other in (packed, both.a, both.b, open_source(source.spec)):
        assert np.array_equal(partition(other)["test"], partition(source)["test"])


def test_a_run_is_trained_and_used_in_the_order(tmp_path, capsys):
    frame = table(DAYS)
    frame.write_csv(tmp_path / "t.csv")
    run = tmp_path / "run"
    assert cli.run(["train", "pca", "--data", str(tmp_path / "t.csv"), "--split-by", "day",
                    "--data-option", "drop=day", "--set", "latent_dim=1", "--out", str(run)]) == 0
    assert json.loads((run / "run.json").read_text())["data"]["split_by"] == "day"
    expected = frame.filter(pl.col("day") >= DAYS[270])
    for data in (None, str(tmp_path / "t.csv")):
        test = latlas.load(run).open(data)
        assert sorted(test.take("x")[:, 0].tolist()) == sorted(expected["a"].to_list())
    capsys.readouterr()
    assert cli.run(["evaluate", str(run), "--json", "--data", str(tmp_path / "t.csv")]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["trained_on"] == 0
    newer = table(DAYS + 300, seed=5)
    newer.write_csv(tmp_path / "new.csv")
    assert len(latlas.load(run).open(str(tmp_path / "new.csv"))) == 300
    held_out = latlas.load(run).open(str(tmp_path / "new.csv"), "test")
    assert sorted(held_out.take("x")[:, 0].tolist()) == sorted(
        newer.filter(pl.col("day") >= DAYS[270] + 300)["a"].to_list())
    newer.drop("day").write_csv(tmp_path / "bare.csv")
    assert len(latlas.load(run).open(str(tmp_path / "bare.csv"))) == 300
