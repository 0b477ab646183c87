"""CSV, TSV and Parquet: kinds of columns, missing values, labels, bad columns."""

import numpy as np
import polars as pl
import pytest

from latlas.core.errors import DataError
from latlas.core.space import Column, Table
from latlas.data import info, open_source, split
from latlas.data.dataset import partition
from latlas.data.tables import as_read
from latlas.verbs.write import write_examples

N = 40
FRAME = pl.DataFrame({
    "age": [None if i % 8 == 0 else float(i) for i in range(N)],
    "colour": [None if i % 10 == 0 else ("red", "blue")[i % 2] for i in range(N)],
    "happy": [i % 3 == 0 for i in range(N)],
    "count": list(range(N)),
    "kind": [("a", "b", "c")[i % 3] for i in range(N)],
})


def write(folder, ending, frame=FRAME):
    path = folder / f"t{ending}"
    if ending == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if ending == ".tsv" else ",")
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_kinds_of_columns(tmp_path, ending):
    source = open_source(write(tmp_path, ending), label="kind")
    assert source.space.columns == (
        "age", "age (missing)", "colour=blue", "colour=red", "colour=(missing)", "happy", "count")
    x = dict(zip(source.space.columns, split(source, "all").x.T, strict=True))
    np.testing.assert_array_equal(x["age (missing)"], np.arange(N) % 8 == 0)
    np.testing.assert_array_equal(x["colour=(missing)"], np.arange(N) % 10 == 0)
    np.testing.assert_array_equal(x["happy"], np.arange(N) % 3 == 0)
    ages = np.array([a for a in FRAME["age"].to_numpy()[partition(source)["train"]]
                     if not np.isnan(a)])
    assert (x["age"][::8] == np.median(ages)).all()
    assert source.space.classes == ("a", "b", "c")
    assert source.base.label.tolist() == [i % 3 for i in range(N)]
    assert any("age: 5 missing, filled with train's median" in note for note in source.notes)


def test_info_counts_what_is_missing(tmp_path):
    report = info(open_source(write(tmp_path, ".csv"), label="kind"))
    age = report["columns"][0]
    assert age["name"] == "age" and age["missing"] == 5 and report["kind"] == "table"
    np.testing.assert_allclose(age["mean"], FRAME["age"].mean())
    assert report["classes"] == {"a": 14, "b": 13, "c": 13}


def test_a_data_frame_in_memory():
    source = open_source(FRAME, label="happy", drop="kind, colour")
    assert source.space.classes == ("false", "true") and "count" in source.space.columns


def test_a_column_called_class_is_the_label(tmp_path):
    path = write(tmp_path, ".csv", FRAME.rename({"kind": "Class"}))
    source = open_source(path)
    assert source.space.classes == ("a", "b", "c") and "Class is the label" in source.notes[0]
    assert "Class=a" in open_source(path, label="none").space.columns


def test_related_rows_stay_together(tmp_path):
    source = open_source(write(tmp_path, ".csv"), group="kind", drop="age")
    assert info(source)["groups"] == 3 and "kind=a" not in source.space.columns


def test_numbers_without_a_header_and_other_separators(tmp_path):
    (tmp_path / "n.csv").write_text("1;2.5\n3;4.5\n5;6.5\n")
    source = open_source(tmp_path / "n.csv")
    assert source.space.columns == ("x0", "x1")
    np.testing.assert_array_equal(source.base.x, [[1, 2.5], [3, 4.5], [5, 6.5]])


def test_usual_words_for_missing(tmp_path):
    (tmp_path / "m.csv").write_text("a,b\n1,2\nNA,3\n?,4\n5,6\nNaN,7\n")
    assert open_source(tmp_path / "m.csv").space.columns == ("a", "a (missing)", "b")


def text(values):
    return pl.DataFrame({"note": values, "n": list(range(len(values)))})


@pytest.mark.parametrize(("frame", "options", "message"), [
    (FRAME, {"label": "knd"}, "did you mean 'kind'"),
    (FRAME, {"drop": "colur"}, "did you mean 'colour'"),
    (FRAME, {"label": "colour"}, "label column colour has 4 missing"),
    (FRAME, {"image_size": 3}, "unknown option 'image_size'"),
    (FRAME.with_columns(gone=pl.lit(None)), {}, "column gone is empty.*drop=gone"),
    (FRAME.with_columns(big=pl.lit(float("inf"))), {}, "column big holds infinite"),
    (FRAME.with_columns(list=pl.lit([1, 2])), {}, "column list holds List"),
    (FRAME.select("kind"), {"label": "kind"}, "no columns are left"),
    (FRAME.clear(), {}, "has no rows"),
])
def test_columns_that_do_not_fit(tmp_path, frame, options, message):
    with pytest.raises(DataError, match=message):
        _ = open_source(write(tmp_path, ".parquet", frame), **options).space


def test_damaged_files(tmp_path):
    for name in ("x.csv", "x.parquet"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(DataError, match=f"{name} (cannot be read|has no rows)"):
            open_source(tmp_path / name)
    (tmp_path / "x.csv").write_text("a,b\n1,2,3,4\n")
    with pytest.raises(DataError, match=r"x.csv: line 2 has 4 values, the first row has 2"):
        open_source(tmp_path / "x.csv")


def test_rows_are_written_as_they_were_read(tmp_path):
    text = ("size,colour,heavy\n1.5,red,true\n,green,false\n2.5,,true\n3.5,red,true\n"
            "0.5,green,\n4,red,true\n")
    (tmp_path / "a.csv").write_text(text)
    space, values = opened(tmp_path / "a.csv")
    read = as_read(values, space)
    assert list(read) == ["size", "colour", "heavy"]
    assert read["size"].tolist() == [1.5, None, 2.5, 3.5, 0.5, 4.0]
    assert read["colour"].tolist() == ["red", "green", None, "red", "green", "red"]
    assert read["heavy"].tolist() == [True, False, True, True, None, True]
    write_examples(tmp_path / "b.csv", values, space)
    again_space, again = opened(tmp_path / "b.csv")
    assert again_space.columns == space.columns
    assert np.array_equal(again[:, 1:], values[:, 1:])


def opened(path):
    data = split(open_source(path), "all")
    return data.space, np.array(data.take("x"))


def test_the_likeliest_word_is_written():
    space = Table(fields=(Column("x", "real", "Float64"),
                          Column("c", "category", "String", categories=("a", "a=b"))))
    read = as_read(np.array([[9.0, 0.4, 0.3], [8.0, -1.0, 0.1]]), space)
    assert read["x"].tolist() == [9.0, 8.0]
    assert read["c"].tolist() == ["a", "a=b"]


@pytest.mark.parametrize(("words", "pair"), [
    (["True", "TRUE", "no"], "'TRUE', 'True'"), (["Ulm", "Bonn", "ulm"], "'Ulm', 'ulm'"),
    (["Ulm", "Bonn", "Jena"], "")])
def test_words_that_differ_in_case_alone_are_said(tmp_path, words, pair):
    frame = text([words[i % 3] for i in range(N)])
    notes = " ".join(open_source(write(tmp_path, ".csv", frame)).notes)
    assert (f"column note: {pair} differ in the case of letters" in notes) == bool(pair)


def test_text_is_carried_not_learnt(tmp_path):
    frame = text([f"word {i}" for i in range(N)])
    source = open_source(write(tmp_path, ".csv", frame))
    assert source.space.columns == ("n",)
    assert "column note is text (40 distinct values in 40 rows)" in " ".join(source.notes)
