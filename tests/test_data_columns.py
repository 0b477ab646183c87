"""Columns of tables: what they are taken for, and that a row is read the same everywhere."""

import io
import math
import re
from datetime import date, datetime, time

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latlas.core.errors import DataError
from latlas.core.space import Table
from latlas.data.columns import interpret
from latlas.data.frames import read_frame
from latlas.data.tables import numbers_of
from latlas.data.text import HowToRead
from latlas.data.values import canonical, frame_of, with_fills

KINDS = ("integer", "real", "word", "date", "boolean", "time")


@st.composite
def frames(draw):
    n = draw(st.integers(3, 25))
    columns = {}
    for i in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(KINDS))
        value = {
            "integer": st.integers(-2**40, 2**40),
            "real": st.floats(-1e30, 1e30, allow_subnormal=False),
            "word": st.sampled_from(["red", "green", "déjà vu", "x,y"]),
            "date": st.dates(date(1950, 1, 1), date(2050, 1, 1)),
            "boolean": st.booleans(),
            "time": st.datetimes(datetime(1950, 1, 1), datetime(2050, 1, 1)).map(
                lambda t: t.replace(microsecond=0)),
        }[kind]
        gaps = draw(st.booleans())
        values = [None if gaps and draw(st.integers(0, 3)) == 0 else draw(value) for _ in range(n)]
        dtype = {"integer": pl.Int64, "real": pl.Float64, "word": pl.String, "date": pl.Date,
                 "boolean": pl.Boolean, "time": pl.Datetime("us")}[kind]
        columns[f"{kind} {i}"] = pl.Series(values, dtype=dtype)
    return pl.DataFrame(columns)


def fitted(frame):
    """A run's columns, all rows for training."""
    data = read_frame(frame, "t")
    result = interpret(data, "t")
    if result.problems:
        return None
    raw = numbers_of(data, result.columns, "t", fill=False)
    return with_fills(result.columns, raw.x, np.arange(len(frame)))


def rows(columns, source, name="t"):
    return numbers_of(read_frame(source, name), columns, name)


def stream(frame, kind):
    out = io.BytesIO()
    if kind == "csv":
        frame.write_csv(out, datetime_format="%Y-%m-%d %H:%M:%S")
    else:
        frame.write_parquet(out)
    out.seek(0)
    return out


def same(a, b):
    np.testing.assert_array_equal(a.x, b.x)
    np.testing.assert_array_equal(a.key, b.key)


@settings(max_examples=200, deadline=None)
@given(frames(), st.randoms(use_true_random=False))
def test_a_row_is_read_the_same_alone_and_in_any_file(frame, random):
    columns = fitted(frame)
    if columns is None:
        return
    together = rows(columns, frame)
    assert np.isfinite(together.x).all()
    order = list(range(len(frame)))
    random.shuffle(order)
    shuffled = rows(columns, frame[order])
    np.testing.assert_array_equal(shuffled.x, together.x[order])
    np.testing.assert_array_equal(shuffled.key, together.key[order])
    for i in range(len(frame)):
        alone = rows(columns, frame[[i]])
        np.testing.assert_array_equal(alone.x[0], together.x[i])
        assert alone.key[0] == together.key[i]
    turned = list(frame.columns)
    random.shuffle(turned)
    wider = frame.select(turned).with_columns(pl.lit("more").alias("one more"))
    same(rows(columns, wider), together)
    if frame.width > 1:  # a line of one gap is a blank line
        same(rows(columns, stream(frame, "csv"), "t.csv"), together)
    same(rows(columns, stream(frame, "parquet"), "t.parquet"), together)
    same(rows(columns, frame.to_pandas()), together)
    same(rows(columns, pd.DataFrame({c: pd.Series(frame[c].to_list(), dtype=object)
                                     for c in frame.columns})), together)
    same(rows(columns, frame.to_arrow()), together)


@settings(max_examples=100, deadline=None)
@given(frames())
def test_what_is_written_has_the_types_and_values_of_training(frame):
    columns = fitted(frame)
    if columns is None:
        return
    read = rows(columns, frame)
    written = frame_of(read.x, Table(fields=columns))
    learnt = [c.name for c in columns if c.learnt]
    assert written.columns == learnt
    for name in learnt:
        assert written[name].dtype == frame[name].dtype
        for a, b in zip(written[name].to_list(), frame[name].to_list(), strict=True):
            assert a == b or (isinstance(a, float) and math.isclose(a, b))
    np.testing.assert_array_equal(rows(columns, written).x, read.x)


def meaning(text):
    frame = read_frame(io.BytesIO(text.encode()), "t.csv")
    result = interpret(frame, "t.csv")
    return {c.name: c for c in result.columns}, result


def test_what_columns_are_taken_for():
    rows = "".join(f"{i},{i * 7919 % 1000:04d},c{i},{i % 3},{i * 0.5},{'TF'[i % 2]},"
                   f"2020-01-{i % 28 + 1:02d},w{i % 4},note {i}\n" for i in range(60))
    columns, result = meaning("customer_id,zip,key,pclass,size,ok,day,kind,note\n" + rows)
    assert not result.problems
    assert {name: c.kind for name, c in columns.items()} == {
        "customer_id": "id", "zip": "text", "key": "text", "pclass": "integer", "size": "real",
        "ok": "boolean", "day": "date", "kind": "category", "note": "text"}
    assert "customer_id names rows" in " ".join(result.notes)


def test_large_numbers_keep_their_differences():
    values = [2**62 + i for i in range(50)]
    frame = pl.DataFrame({"a": values})
    columns = fitted(frame)
    x = rows(columns, frame).x
    assert len(np.unique(x)) == 50
    assert frame_of(x, Table(fields=columns))["a"].to_list() == values


def test_rare_words_share_a_column():
    words = [f"w{i}" for i in range(45)] * 4 + [f"rare{i}" for i in range(20)]
    frame = pl.DataFrame({"w": words, "n": range(len(words))})
    columns = fitted(frame)
    assert len(columns[0].categories) == 50 and columns[0].categories[-1] == "(other)"
    assert rows(columns, pl.DataFrame({"w": ["never"], "n": [1]})).x[0, 49] == 1


def test_columns_with_names_that_look_alike():
    frame = pl.DataFrame({"k": ["x", "y", "x", "y"], "k=x": [0.5, 1.0, 2.0, 3.0]})
    columns = fitted(frame)
    read = rows(columns, frame)
    assert read.x.shape == (4, 3)
    assert frame_of(read.x, Table(fields=columns)).equals(frame)


@pytest.mark.parametrize(("frame", "message"), [
    ({"a": [1.0]}, "no column 'b', 'c'"),
    ({"a": ["one"], "b": ["x"], "c": [True]}, "column a: 1 values are no numbers .as 'one'"),
    ({"a": [1.0], "b": ["zebra"], "c": [True]}, "column b holds 'zebra', which the run has not"),
    ({"a": [float("inf")], "b": ["x"], "c": [True]}, "column a holds infinite"),
    ({"a": ["q"], "b": ["zebra"], "c": [True]}, "column a: .*; column b holds"),
])
def test_what_does_not_fit_a_run_is_named_at_once(frame, message):
    columns = fitted(pl.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"], "c": [True, False]}))
    with pytest.raises(DataError, match=message):
        rows(columns, pl.DataFrame(frame))


def test_positions_stand_for_names_where_there_are_none():
    columns = fitted(pl.DataFrame({"a": [1.0, 2.0], "b": [3.0, 5.0]}))
    read = rows(columns, np.array([[1.0, 3.0]]))
    assert read.x.tolist() == [[1.0, 3.0]] and "by their position" in read.notes[0]
    with pytest.raises(DataError, match="3 columns without names, the run learnt 2"):
        rows(columns, np.zeros((1, 3)))


def test_gaps_that_training_had_none_of_are_filled_and_said():
    columns = fitted(pl.DataFrame({"a": [1.0, 2.0, 9.0], "b": ["x", "y", "y"]}))
    read = rows(columns, pl.DataFrame({"a": [None], "b": [None]}, schema={"a": pl.Float64,
                                                                           "b": pl.String}))
    assert read.x.tolist() == [[2.0, 0.0, 1.0]]
    assert len(read.notes) == 2 and "filled with 2" in read.notes[0]


def test_pandas_with_any_labels_types_and_index():
    twice = pd.DataFrame([[1.5, 2.5, 3.5]] * 3, columns=["a", "b", "a"])
    assert read_frame(twice, "t").data.columns == ["a", "b", "a_2"]
    pairs = pd.DataFrame([[1.5, 2.5]] * 3, columns=pd.MultiIndex.from_tuples(
        [("u", "m"), ("u", "s")]))
    assert read_frame(pairs, "t").data.columns == ["u_m", "u_s"]
    years = pd.DataFrame([[1.5, 2.5]] * 3, columns=[2000, 2001])
    assert read_frame(years, "t").data["2001"].to_list() == [2.5] * 3
    nullable = pd.DataFrame({"i": pd.array([1, None, 3], dtype="Int64"),
                             "b": pd.array([True, None, False], dtype="boolean")},
                            index=pd.Index(["p", "q", "r"], name="patient"))
    frame = read_frame(nullable, "t")
    assert frame.data["i"].to_list() == [1, None, 3]
    assert frame.data["b"].to_list() == [True, None, False]
    assert "index patient is not read" in frame.notes[0]
    assert read_frame(pd.Series([1.5, 2.5], name="a"), "t").data.columns == ["a"]
    months = pd.DataFrame({"m": pd.period_range("2020-01", periods=3, freq="M"),
                           "c": pd.cut([1.0, 2.0, 3.0], 2)})
    assert [c.kind for c in interpret(read_frame(months, "t"), "t").columns] == ["date", "category"]


def test_zoned_times_are_utc_and_what_tells_nothing_is_said():
    times = pl.datetime_range(pl.datetime(2020, 1, 1), pl.datetime(2020, 1, 12), "1d",
                              time_zone="Europe/Berlin", eager=True)
    big = pl.Series([2**64 - 1 - i for i in range(12)], dtype=pl.UInt64)
    frame = read_frame(pl.DataFrame({"t": times, "u": big, "k": [7] * 12,
                                     "w": [*"abcabcabcab", "Total"]}), "t")
    found = interpret(frame, "t")
    assert str(canonical(frame.data["t"], found.columns[0])[0]) == "2019-12-31 23:00:00"
    said = "\n".join(found.notes)
    for words in ("t: times with a zone are read in UTC", "u: 12 distinct values are 1",
                  "drop=k", "the last row (2020-01-12"):
        assert words in said


def test_columns_of_almost_the_same_name_are_named():
    frame = read_frame(pl.DataFrame({"Big Name": [1.5, 2.5]}), "t")
    with pytest.raises(DataError, match="rename 'big_name' to 'Big Name'"):
        numbers_of(read_frame(pl.DataFrame({"big_name": [1.5]}), "u"),
                   interpret(frame, "t").columns, "u")


@pytest.mark.parametrize(("words", "kind", "first", "note"), [
    (["2019-06", "2021-07", "2018-01"], "date", date(2019, 6, 1), "is read as 2019-06-01"),
    (["06/2019", "07/2021", "01/2018"], "date", date(2019, 6, 1), "is read as 2019-06-01"),
    (["14:35", "2:05", "23:59"], "date", time(14, 35), "is read as a time of day"),
    (["14:35:10", "", "23:59:01"], "date", time(14, 35, 10), "is read as a time of day"),
    (["2:35 PM", "11:05 AM", "1:00 AM"], "date", time(14, 35), "is read as a time of day"),
    (["12 kg", "5 kg", "1,200 kg"], "integer", 12, "'12 kg' is read as 12 .all are in kg."),
    (["12.5kg", "5.25kg", ""], "real", 12.5, "'12.5kg' is read as 12.5"),
    (["12,5 °C", "5,25 °C", "1,0 °C"], "real", 12.5, "all are in °C"),
    (["5%", "7.5%", "1%"], "real", 5.0, "'5%' is read as 5"),
])
def test_months_times_of_day_and_units(words, kind, first, note):
    text = "n;v\n" + "".join(f'{i}.5;"{word}"\n' for i, word in enumerate(words * 5))
    columns, result = meaning(text)
    assert columns["v"].kind == kind and not result.problems
    assert re.search(f"column v: .*{note}", "\n".join(result.notes))
    frame = read_frame(io.BytesIO(text.encode()), "t.csv")
    raw = numbers_of(frame, result.columns, "t", fill=False)
    fields = with_fills(result.columns, raw.x, np.arange(len(raw.x)))
    read = numbers_of(frame, fields, "t")
    written = frame_of(read.x, Table(fields=fields))
    assert written["v"][0] == first
    for source in (written, stream(written, "csv"), stream(written, "parquet")):
        name = "t.csv" if source is not written and source.read(1) != b"P" else "t.parquet"
        _ = source is written or source.seek(0)
        np.testing.assert_allclose(rows(fields, source, name).x, read.x, atol=1e-12)


def test_a_time_of_day_goes_round():
    columns = fitted(pl.DataFrame({"t": [time(h, 30) for h in range(24)], "n": range(24)}))
    midnight = rows(columns, pl.DataFrame({"t": [time(0, 0, 1), time(23, 59, 59)], "n": [1, 2]})).x
    assert np.abs(midnight[0, 1:3] - midnight[1, 1:3]).max() < 1e-3
    beyond = frame_of(np.array([[1.25, 1.0, 0.0, 3.0]]), Table(fields=columns))
    assert beyond["t"].to_list() == [time(6)] and beyond["t"].dtype == pl.Time


@pytest.mark.parametrize("words", [["12 kg", "5 g"], ["0.png", "1.png"], ["1234-05", "1300-06"],
                                   ["25:10", "14:35"], ["01234", "12345"], ["w1", "w2"]])
def test_what_only_looks_like_units_months_and_times_is_words(words):
    columns, _ = meaning("n,v\n" + "".join(f"{i}.5,{w}\n" for i, w in enumerate(words * 5)))
    assert columns["v"].kind == "category" and columns["v"].categories == tuple(sorted(words))


@pytest.mark.parametrize("sentinel", ["-999", "9999", "-999.0"])
def test_a_number_that_may_stand_for_a_gap_is_said(sentinel):
    values = [f"{i / 4}" for i in range(60)] + [sentinel] * 5
    text = "n,v\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values))
    note = [n for n in meaning(text)[1].notes if f"missing={sentinel}" in n]
    assert len(note) == 1 and f"column v: {sentinel} comes 5 times" in note[0]
    how = HowToRead(missing=sentinel)
    frame = pl.DataFrame({"v": [float(v) for v in values]})
    for source in (io.BytesIO(text.encode()), stream(frame, "parquet"), frame):
        name = "t.csv" if source is not frame and source.read(1) == b"n" else "t.parquet"
        _ = source is frame or source.seek(0)
        read = interpret(read_frame(source, name, how), "t")
        assert read.columns[-1].gaps and not any("comes 5 times" in n for n in read.notes)


@pytest.mark.parametrize("values", [[0, 1] * 30, [*range(50), 900], [0] * 30 + [*range(30)]])
def test_usual_numbers_are_no_gaps(values):
    frame = read_frame(pl.DataFrame({"v": values, "n": range(len(values))}), "t")
    assert not any("stands for a gap" in note for note in interpret(frame, "t").notes)
