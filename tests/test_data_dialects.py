"""A table written in any dialect is read as it was, or refused, or what was decided is said."""

import csv
import io
import math
import re
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latlas.core.errors import DataError
from latlas.data.columns import interpret
from latlas.data.frames import read_frame
from latlas.data.text import HowToRead
from latlas.data.values import canonical

WORDS = st.text(st.sampled_from("abcxyzéßøΩ ;,|'\"._-:/()&\n"), min_size=1, max_size=12).filter(
    lambda w: any(c.isalpha() for c in w) and w.strip() == w
    and w[0] not in "'\"")
COLUMNS = st.one_of(
    st.tuples(st.just("integer"), st.integers(-10**6, 10**6)),
    st.tuples(st.just("real"), st.floats(-1e4, 1e4, allow_subnormal=False).map(
        lambda v: round(v, 3))),
    st.tuples(st.just("word"), WORDS),
    st.tuples(st.just("date"), st.dates(date(1980, 1, 1), date(2030, 1, 1)))).map(lambda t: t[0])
VALUES = {
    "integer": st.integers(-10**6, 10**6),
    "real": st.floats(-1e4, 1e4, allow_subnormal=False).map(lambda v: round(v, 3)),
    "word": WORDS,
    "date": st.dates(date(1980, 1, 1), date(2030, 1, 1)),
}


@st.composite
def tables(draw):
    kinds = draw(st.lists(COLUMNS, min_size=1, max_size=5))
    n = draw(st.integers(2, 12))
    columns = []
    for kind in kinds:
        words = draw(st.lists(WORDS, min_size=1, max_size=4)) if kind == "word" else None
        value = st.sampled_from(words) if words else VALUES[kind]
        gap = draw(st.sampled_from([0.0, 0.2]))
        columns.append([None if gap and draw(st.integers(0, 4)) == 0 else draw(value)
                        for _ in range(n)])
        if len(kinds) == 1:  # "a;b" alone in a line is one word or two
            columns = [[re.sub(r"[,;|\n'\"]", "_", v) if isinstance(v, str) else v
                        for v in columns[0]]]
    dialect = {
        "separator": draw(st.sampled_from(",;\t|")),
        "quote": draw(st.sampled_from('""\'')),
        "quoting": draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL,
                                         csv.QUOTE_NONNUMERIC])),
        "end": draw(st.sampled_from(["\n", "\r\n", "\r"])),
        "header": draw(st.booleans()),
        "encoding": draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])),
        "decimal": draw(st.sampled_from(".,")),
        "blank": draw(st.booleans()),
        "before": draw(st.sampled_from(["", "", "# a comment\n", "sep"])),
        "trailing": draw(st.booleans()),
        "missing": draw(st.sampled_from(["", "NA", "?", "n/a", "-"])),
    }
    if len(kinds) == 1:  # "0,5" alone in a line is one number or two
        dialect["decimal"] = "."
    if dialect["end"] == "\r":  # csv.writer does not quote the other end of lines
        dialect["quoting"] = csv.QUOTE_ALL
    return kinds, columns, dialect


def cell(value, dialect):
    if value is None:
        return dialect["missing"]
    if isinstance(value, float) and dialect["decimal"] == "," and dialect["separator"] != ",":
        return repr(value).replace(".", ",")
    return value if isinstance(value, (int, float)) else str(value)


def written(kinds, columns, dialect):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=dialect["separator"], quotechar=dialect["quote"],
                        quoting=dialect["quoting"], lineterminator=dialect["end"])
    names = [f"{kind} {i}" for i, kind in enumerate(kinds)]
    rows = ([names] if dialect["header"] else []) + [
        [cell(v, dialect) for v in row] for row in zip(*columns, strict=True)]
    for row in rows:
        writer.writerow([*row, ""] if dialect["trailing"] and dialect["header"] else row)
    text = out.getvalue()
    if dialect["blank"] and dialect["quoting"] == csv.QUOTE_ALL:
        mark = dialect["quote"] + dialect["separator"] + dialect["quote"]
        if not any(mark in str(v) for column in columns for v in column):
            text = text.replace(mark, mark.replace(dialect["separator"],
                                                   dialect["separator"] + " "))
    if dialect["before"] == "sep":
        text = f"sep={dialect['separator']}{dialect['end']}{text}"
    else:
        text = dialect["before"].replace("\n", dialect["end"]) + text
    return names, text.encode(dialect["encoding"])


@settings(max_examples=300, deadline=None)
@given(tables())
def test_what_is_written_is_read_or_refused_or_said(table):
    kinds, columns, dialect = table
    names, raw = written(kinds, columns, dialect)
    try:
        frame = read_frame(io.BytesIO(raw), "t.csv", HowToRead())
        result = interpret(frame, "t.csv")
    except DataError:
        return
    if result.problems:
        return
    notes = " ".join(result.notes)
    if frame.named != dialect["header"] or frame.data.height != len(columns[0]):
        assert "taken for names" in notes, (raw, frame.data)
        return
    if "separated by" in notes:  # most values hold another separator
        return
    assert frame.data.width == len(kinds), (raw, frame.data)
    if dialect["header"]:
        assert frame.data.columns == names
    for i, (kind, values) in enumerate(zip(kinds, columns, strict=True)):
        column = result.columns[i]
        read = canonical(frame.data.to_series(i), column).to_list()
        if column.kind == "dropped":
            continue
        for value, got in zip(values, read, strict=True):
            assert same(kind, value, got, column), (raw, column, value, got)


def same(kind, value, got, column):
    if value is None or got is None:
        return value is None and got is None
    if kind == "date":
        return column.kind == "date" and got.date() == value
    if kind == "word":
        return " ".join(str(got).split()) == " ".join(value.split())
    return column.kind in ("real", "integer", "category", "text", "id") and math.isclose(
        float(str(got).replace(",", ".")), value)


CASES = {
    "decimal commas": ("a;b\n1,5;2,25\n3,5;4,125\n", [[1.5, 3.5], [2.25, 4.125]]),
    "blanks after commas": ("a, b\n1, x y\n2, z\n", [[1, 2], ["x y", "z"]]),
    "a quote after a blank": ('a, b\n1, "x, y"\n2, "z"\n', [[1, 2], ["x, y", "z"]]),
    "marks of a spreadsheet": ("sep=;\na;b\n1;2\n3;4\n", [[1, 3], [2, 4]]),
    "comments": ("# one\n# two\na,b\n1,2\n3,4\n", [[1, 3], [2, 4]]),
    "ends of old machines": ("a,b\r1,2\r3,4\r", [[1, 3], [2, 4]]),
    "a comma at the end": ("a,b,\n1,2,\n3,4,\n", [[1, 3], [2, 4]]),
    "money": ('a,b\n"$1,000",2\n"$2,500",4\n', [[1000, 2500], [2, 4]]),
    "percent": ("a,b\n5%,2\n7.5%,4\n", [[5, 7.5], [2, 4]]),
    "thousands with points": ("a;b\n1.234,50;2\n2.000,25;4\n", [[1234.5, 2000.25], [2, 4]]),
    "a name over two lines": ('"a\nx",b\n1,2\n3,4\n', [[1, 3], [2, 4]]),
}


@pytest.mark.parametrize("name", CASES)
def test_dialects_that_people_have(name):
    text, expected = CASES[name]
    frame = read_frame(io.BytesIO(text.encode()), "t.csv")
    result = interpret(frame, "t.csv")
    assert not result.problems
    read = [canonical(series, column).to_list()
            for series, column in zip(frame.data, result.columns, strict=True)]
    assert read == expected


@pytest.mark.parametrize(("text", "message"), [
    (b"a,b\n1,2\n3\n", "line 3 has 1 values"),
    (b"name,v\ncaf\xe9,1\n", "encoding=cp1252"),
    (b"a\x00,\x00b\x00", "encoding=utf-16"),
    (b'a,b\n"x"y,1\n', "line 2"),
    (b"", "has no rows"),
    (b"a,b\n", "has no rows"),
])
def test_what_cannot_be_told_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        read_frame(io.BytesIO(text), "t.csv")


@pytest.mark.parametrize(("text", "message"), [
    ('v\n"1,234"\n"2,345"\n', "thousand or a fraction"),
    ("d,v\n3/4/2020,1\n5/6/2021,2\n", "dates=dmy"),
    ("v,w\n" + "".join(f"{i + 0.5},1\n" for i in range(60)) + "many,2\n", "look like numbers"),
    ("v,w\n,1\n,2\n", "empty"),
])
def test_problems_name_the_option(text, message):
    frame = read_frame(io.BytesIO(text.encode()), "t.csv")
    problems = interpret(frame, "t.csv").problems
    assert len(problems) == 1 and message in problems[0]


def column_of(words, name="v", others=True):
    """A CSV of one column of words, quoted, and one of numbers, as its Column and what was said."""
    lines = [f'a;{name}', *(f'{i}.5;"{word}"' for i, word in enumerate(words))]
    frame = read_frame(io.BytesIO("\n".join(lines).encode()), "t.csv")
    found = interpret(frame, "t.csv")
    return found, canonical(frame.data[name], found.columns[1]).to_list()


@pytest.mark.parametrize(("words", "values"), [
    (["8 733 040", "1 411 409", "12"], [8733040, 1411409, 12]),
    (["8'733.5", "1'411.5", "12"], [8733.5, 1411.5, 12.0]),
    (["87,33,040", "1,41,409", "12"], [8733040, 141409, 12]),
    (["−0.5", "0.5", "1"], [-0.5, 0.5, 1.0]),
    (["€ 78.987,29", "€ 1.000,10", "€ 3,00"], [78987.29, 1000.1, 3.0]),
])
def test_numbers_of_many_countries(words, values):
    assert column_of(words)[1] == values


@pytest.mark.parametrize("words", [
    [f"+1 555 {i:07d}" for i in range(12)], [f"10.0.{i}.{i * 7}" for i in range(12)],
    [f"55 12 3{i}" for i in range(10, 22)]])
def test_codes_that_look_like_numbers_are_text(words):
    found, values = column_of(words)
    assert found.columns[1].kind == "text" and values == words
    assert "is text" in "".join(found.notes) and not found.problems


@pytest.mark.parametrize(("words", "first"), [
    (["14.6.19", "28.4.20"], "2019-06-14 00:00:00"),
    (["14-Jun-19", "28-Apr-20"], "2019-06-14 00:00:00"),
    (["June 14 2019", "April 28 2020"], "2019-06-14 00:00:00"),
    (["06/14/2019 07:47 PM", "04/28/2020 01:00 AM"], "2019-06-14 19:47:00"),
    (["2019-06-14T07:47:09+02:00", "2020-04-28T01:00:00+02:00"], "2019-06-14 05:47:09"),
    (["2019-06-14T07:47:09-0330", "2020-04-28T01:00:00Z"], "2019-06-14 11:17:09"),
    (["2019-06-14 07:47:09 UTC", "2020-04-28 01:00:00 UTC"], "2019-06-14 07:47:09"),
])
def test_dates_as_people_write_them(words, first):
    found, values = column_of(words)
    assert found.columns[1].kind == "date" and str(values[0]) == first
    zoned = any(mark in words[0] for mark in ("+02", "-0330", "UTC"))
    assert zoned == any("in UTC" in note for note in found.notes)


@pytest.mark.parametrize("gap", ["NaT", "0000-00-00", "#REF!", "N.A."])
def test_more_gaps(gap):
    found, values = column_of([gap, "2020-01-05", "2021-02-03"])
    assert found.columns[1].kind == "date" and values[0] is None


def test_a_word_among_dates_is_said():
    found, _ = column_of(["never", *(f"2020-01-{i:02d}" for i in range(1, 20))])
    assert any("'never' is no date; missing=never" in note for note in found.notes)


@pytest.mark.parametrize(("text", "names"), [
    ("a    b  kind\n 1.5    2 x\n-2.5   10 y\n", ["a", "b", "kind"]),
    ("  1.5E+00  2.0E+00  1\n -1.5E+00  2.5E+00  2\n", ["x0", "x1", "x2"]),
    ('18.0   8   307.0\t"car a"\n15.0   4   350.0\t"car b"\n', ["x0", "x1", "x2", "x3"]),
])
def test_values_between_blanks(text, names):
    frame = read_frame(io.BytesIO(text.encode()), "t.data")
    assert frame.data.columns == names and len(frame.data) == 2
    assert any("separated by blanks" in note for note in frame.notes)


def test_a_tsv_with_commas_and_names_that_recur():
    assert read_frame(io.BytesIO(b"a,b\n1,2\n3,4\n"), "t.tsv").data.columns == ["a", "b"]
    frame = read_frame(io.BytesIO(b"n,male\n1,male\n2,female\n"), "t.csv")
    assert frame.data.columns == ["n", "male"] and "header=no" in frame.notes[0]


@pytest.mark.parametrize("text", [
    "a,b\n1,2\n3\n4,5,6\n", "a,b\n1,2\n\n3,4,5\n", "a,b\n" + "1,2\n" * 1500 + "1,2,3\n4\n"])
def test_rows_of_other_widths_that_make_up_for_each_other_are_refused(text):
    with pytest.raises(DataError, match=r"line \d+ has \d values, the first row has 2"):
        read_frame(io.BytesIO(text.encode()), "t.csv")


def test_a_quote_far_down_a_file():
    lines = [f"{i},w{i % 5}" for i in range(3000)]
    lines[2500] = '2500,"a, b\nc"'
    frame = read_frame(io.BytesIO("\n".join(["n,word", *lines]).encode()), "t.csv")
    assert frame.data["n"].to_list() == [str(i) for i in range(3000)]
    assert frame.data["word"][2500] == "a, b\nc"
