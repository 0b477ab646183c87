"""Frames come out in the kind that went in: names, types, index and columns that name rows."""

from __future__ import annotations

import numpy as np
import pytest
from test_tables_in_use import mixed

import latlas
from latlas.core.errors import ConfigError

pl = pytest.importorskip("polars")
pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
SCHEMA = {"customer_id": pl.String, "age": pl.Int16, "size": pl.Float32, "colour": pl.String,
          "happy": pl.Boolean, "day": pl.Date}


def people(n, seed=0):
    return mixed(n, seed).cast(SCHEMA)


def given(frame, kind):
    """The frame in this library; of pandas with an index of its own."""
    if kind == "pandas":
        result = frame.to_pandas()
        result["age"] = result["age"].astype("Int16")
        return result.set_axis([f"row {i}" for i in range(len(result))])
    return frame if kind == "polars" else frame.to_arrow()


def read(result):
    """A frame of any library in polars, to compare."""
    return pl.DataFrame(pa.Table.from_pandas(result, preserve_index=False)
                        if isinstance(result, pd.DataFrame) else result)


def schema(frame):
    """Its types; pandas has no dates, but times."""
    return {k: pl.Date if v == pl.Datetime else v for k, v in frame.schema.items()}


@pytest.fixture(scope="module")
def run():
    return latlas.train("beta-vae", people(120), images=2000, latent_dim=2, width=8,
                        progress=False, device="cpu")


LIBRARIES = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.Table}
ROWS = {  # verb to the columns after those that name the row
    "score": ["nats", "se", "bits_per_dim", "ess", "unreliable"],
    "encode": ["z0", "z1"],
    "reconstruct": ["age", "size", "colour", "happy", "day"],
    "project": ["error", "nearest"],
    "weights": ["weight"],
    "outliers": ["rank", "score", "flag", "control isolation forest", "control ppca"],
    "audit": ["rank", "rarity"]}


@pytest.mark.parametrize("kind", LIBRARIES)
@pytest.mark.parametrize("verb", ROWS)
def test_a_frame_gives_a_frame_of_its_kind(run, kind, verb):
    frame = people(60, seed=1)
    more = {"outliers": {"fpr": 0.2, "reference": frame, "controls": people(120)},
            "project": {"steps": 2, "starts": 1, "train": people(50, seed=2)},
            "audit": {"draws": 0}}.get(verb, {})
    result = getattr(latlas, verb)(run, given(frame, kind), **more)
    table = result.table()
    assert isinstance(table, LIBRARIES[kind])
    plain = read(table)
    assert [c for c in plain.columns if c not in ROWS[verb]][:1] == ["customer_id"]
    assert set(ROWS[verb]) <= set(plain.columns) and "example" not in plain.columns
    order = np.arange(60) if result.order is None else result.order
    assert plain["customer_id"].to_list() == frame["customer_id"][order].to_list()
    if kind == "pandas":
        assert table.index.tolist() == [f"row {i}" for i in order]
    if verb == "reconstruct":
        assert schema(plain) == SCHEMA
        if kind == "pandas":
            # of a row with a gap the model says what it expects there
            assert table.dtypes["size"] == np.float32 and table.dtypes["age"] == np.int16
            assert table.dtypes["happy"].kind == "b" and table.dtypes["day"].kind == "M"


@pytest.mark.parametrize("kind", LIBRARIES)
def test_the_numbers_are_those_without_a_frame(run, kind):
    frame = people(40, seed=3)
    expected = latlas.score(run, frame, n=9)
    np.testing.assert_array_equal(read(latlas.score(run, given(frame, kind), n=9).table())["nats"],
                                  expected.nats)
    arrays = latlas.score(run, given(frame, kind)).table("arrays")
    assert isinstance(arrays["nats"], np.ndarray) and arrays["example"][3] == "c0003"
    z = latlas.encode(run, given(frame, kind))
    decoded = latlas.decode(run, z.table()).table()
    assert isinstance(decoded, LIBRARIES[kind])
    np.testing.assert_array_equal(read(decoded)["colour"], read(
        latlas.reconstruct(run, given(frame, kind)).table())["colour"])


def test_samples_are_frames_of_any_kind_that_is_named(run):
    samples = latlas.sample(run, 7)
    assert isinstance(samples.table()["colour"], np.ndarray)
    for kind, library in LIBRARIES.items():
        table = samples.table(kind)
        assert isinstance(table, library) and len(table) == 7
        assert schema(read(table)) == {k: v for k, v in SCHEMA.items() if k != "customer_id"}
    with pytest.raises(ConfigError, match="did you mean 'pandas'"):
        samples.table("panda")


def test_metrics_are_frames_without_the_index_of_the_rows(run):
    evaluation = latlas.evaluate(run, given(people(60, seed=4), "pandas"),
                                 metrics=["likelihood"], split="all")
    table = evaluation.table()
    assert isinstance(table, pd.DataFrame) and "metric" in table
    assert table.index.tolist() == list(range(len(table)))
    both = latlas.compare([run, run], people(60, seed=4), metrics=["likelihood"])
    assert isinstance(both.table(), pl.DataFrame) and both.table().width == table.shape[1] + 1


def test_columns_of_other_kinds_come_out_as_pandas_has_them():
    """Categories, whole numbers with gaps, a frame without an id, pyarrow's own text type."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({
        "grade": pl.Series(rng.choice(["a", "b", "c"], 150), dtype=pl.Categorical),
        "count": pl.Series([None if i % 7 == 0 else int(v) for i, v in enumerate(
            rng.integers(0, 9, 150))], dtype=pl.UInt8),
        "at": pl.Series(np.datetime64("2021-01-01T10", "ms") + 3_600_000 * rng.integers(
            0, 9999, 150))})
    own = latlas.train("pca", frame, progress=False, latent_dim=2)
    table = latlas.reconstruct(own, frame.to_pandas()).table()
    assert list(table) == ["grade", "count", "at"] and table["at"].dtype.kind == "M"
    assert table["count"].dtype in ("UInt8", np.uint8) and table.index.tolist() == [*range(150)]
    arrow = latlas.reconstruct(own, frame.to_arrow()).table()
    assert pa.types.is_large_string(arrow.schema.field("grade").type) or pa.types.is_dictionary(
        arrow.schema.field("grade").type)
    assert list(latlas.score(own, frame).table().columns[:2]) == ["example", "nats"]


def test_labels_in_a_frame_are_heeded_as_those_of_a_file(run, tmp_path):
    frame = people(60, seed=5).with_columns(kind=pl.Series(["odd", "usual", "usual"] * 20))
    frame.write_parquet(tmp_path / "t.parquet")
    options = {"fpr": 0.2, "reference": people(60, seed=6), "controls": False, "label": "kind",
               "outlier_label": "odd"}
    of_file = latlas.outliers(run, str(tmp_path / "t.parquet"), **options)
    for data in (frame, given(frame, "pandas"), given(frame, "pyarrow")):
        assert latlas.outliers(run, data, **options).truth.tolist() == of_file.truth.tolist()
    groups = latlas.audit(run, given(frame, "pandas"), group="colour", draws=0).groups
    assert {g.name for g in groups} == {"red", "green", "blue"}


def test_one_label_of_its_own_for_each_row(run):
    """(frame, labels) keeps the frame's kind, and a name twice in pandas is no obstacle."""
    frame = given(people(60, seed=7), "pandas")
    frame.insert(0, "note", "x")
    frame = pd.concat([frame, frame[["note"]]], axis=1)
    truth = np.arange(60) % 2
    result = latlas.outliers(run, (frame, truth), fpr=0.2, reference=people(60), controls=False)
    table = result.table()
    assert table.index.tolist() == [f"row {i}" for i in result.order]
    assert table["label"].tolist() == (truth[result.order] == 1).tolist()
