"""Files, data frames and arrays of rows as one polars DataFrame, exactly as they say it.

Text files (CSV and its relatives) keep every value as text: what a column means is decided in
:mod:`latlas.data.columns`, once, at training.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from latlas.core.errors import DataError, say_option, unknown
from latlas.data.streams import COMPRESSED, readable
from latlas.data.text import MISSING, UNNAMED, HowToRead, is_number, names_of, read_text

if TYPE_CHECKING:
    from polars import DataFrame, Series


@dataclass(frozen=True)
class Frame:
    """Rows as they stand in a file or in memory.

    Attributes:
        data: columns by name; text has no blanks around it, and every gap is null.
        text: values are text of which nothing is known yet.
        named: the columns have names of their own; otherwise they are x0, x1, ….
        notes: what was taken for what, for people to read.
        decimal: the mark before decimals, where it was said.
    """

    data: DataFrame
    text: bool = False
    named: bool = True
    notes: tuple[str, ...] = ()
    decimal: str | None = None


def read_frame(source: Any, name: str, how: HowToRead | None = None) -> Frame:
    """The rows of a path, a binary stream, a frame of any library, or an array (n, d).

    Raises:
        DataError: one line with the name, and the line of the file or the option to use.
    """
    how = how or HowToRead()
    with readable(name):
        file = isinstance(source, Path) or hasattr(source, "read")
        frame = _of_file(source, name, how) if file else _in_memory(source, name)
        data, notes = _with_gaps(frame.data, how.missing), frame.notes
        empty = [c for c in data.columns if c.startswith(UNNAMED)
                 and data[c].null_count() == len(data)]
    if not len(data) or not data.width:
        raise DataError(f"{name} has no rows")
    if empty:
        notes += f"{len(empty)} empty column{'s' * (len(empty) > 1)} without a name left out",
    return Frame(data.drop(empty), frame.text, frame.named, notes, how.decimal)


def _with_gaps(data: DataFrame, more: str | None) -> DataFrame:
    """NaN, and what stands for a gap, as null: words in any letter case, and numbers of
    ``missing`` as numbers, too."""
    import polars as pl

    own = [w.strip() for w in (more or "").split(",")]
    words = {form(w) for w in (*own, *MISSING) for form in (
        str, str.lower, str.upper, str.title, str.capitalize,
        lambda w: w.replace("nan", "NaN").replace("nat", "NaT"))}
    numbers = [float(w) for w in own if is_number(w)]
    text, number = pl.col(pl.String), pl.selectors.numeric()
    data = data.with_columns(text.str.strip_chars(), pl.selectors.float().fill_nan(None))
    data = data.with_columns(pl.when(~text.is_in(sorted(words))).then(text).name.keep())
    return data.with_columns(pl.when(~number.cast(pl.Float64).is_in(numbers)).then(
        number).name.keep()) if numbers else data


def is_frame(source: Any) -> bool:
    """A data frame of any library: polars, pandas, pyarrow, …"""
    import narwhals as nw

    return (isinstance(source, nw.DataFrame | nw.LazyFrame) or type(source).__name__ == "LazyFrame"
            or nw.dependencies.is_into_dataframe(source) or hasattr(source, "__arrow_c_stream__"))


def _of_file(source: Any, name: str, how: HowToRead) -> Frame:
    import polars as pl

    path = Path(name.lower())
    opener = COMPRESSED.get(path.suffix)
    suffix = Path(path.stem).suffix if opener else path.suffix
    if isinstance(source, Path) and source.is_dir():
        parts = [p for p in sorted(source.rglob("*")) if p.suffix.lower() in (".parquet", ".pq")
                 and not p.name.startswith((".", "_"))]
        frames = [pl.read_parquet(part) for part in parts]
        for part, frame in zip(parts, frames, strict=True):
            if frame.schema != frames[0].schema:
                raise DataError(f"{part} has other columns or types than {parts[0].name}")
        return Frame(pl.concat(frames))
    if suffix in (".db", ".sqlite", ".sqlite3"):
        return Frame(_of_columns(_read_sqlite(source, name, how)))
    if opener:
        with opener(source, "rb") as stream:
            data = stream.read()
    else:
        data = source.read_bytes() if isinstance(source, Path) else source.read()
    if suffix in (".parquet", ".pq"):
        return Frame(pl.read_parquet(data))
    if suffix in (".arrow", ".feather", ".ipc"):
        return Frame((pl.read_ipc if data[:6] == b"ARROW1" else pl.read_ipc_stream)(data))
    if suffix in (".jsonl", ".ndjson"):
        return Frame(pl.read_ndjson(data, infer_schema_length=None))
    if suffix in (".csv", ".tsv", ".tab", ".txt", ".dat", ".data", ""):
        table, header, notes = read_text(data, name, suffix, how)
        return Frame(table, True, header, notes)
    raise DataError(f"{name} is not a kind of table latlas reads")


def _read_sqlite(source: Any, name: str, how: HowToRead) -> dict[str, list[Any]]:
    """One table or query of an SQLite file, which is opened read-only."""
    if not isinstance(source, Path):
        raise DataError(f"{name}: an SQLite file is read from a path, not from a stream")
    with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as base:
        query = how.query
        if query is None:
            tables = [row[0] for row in base.execute(
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
                "AND name NOT LIKE 'sqlite_%' ORDER BY name")]
            table = how.table or (tables[0] if len(tables) == 1 else None)
            if table not in tables:
                raise DataError(f"{name}: " + (unknown("table", table, tables) if table else (
                    f"holds {len(tables)} tables ({', '.join(tables)}); choose one with "
                    f"{say_option('table', 'NAME')}")))
            query = 'SELECT * FROM "{}"'.format(str(table).replace('"', '""'))
        cursor = base.execute(query)
        rows = cursor.fetchall()
    return {column[0]: [row[i] for row in rows]
            for i, column in enumerate(cursor.description or ())}


def _in_memory(source: Any, name: str) -> Frame:
    import narwhals as nw
    import polars as pl

    notes: list[str] = []
    if nw.dependencies.is_pandas_series(source):
        source = source.to_frame()
    if nw.dependencies.is_pandas_dataframe(source):
        return _of_pandas(source)
    if nw.dependencies.is_pyarrow_table(source):
        source = source.rename_columns(names_of(source.column_names, notes))
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if isinstance(source, pl.DataFrame) or hasattr(source, "__arrow_c_stream__"):
        return Frame(pl.DataFrame(source), notes=tuple(notes))
    frame: Any = nw.from_native(source, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        source = {column: frame[column].to_list() for column in frame.columns}
    if isinstance(source, dict):
        return Frame(_of_columns({str(k): np.asarray(v).tolist() for k, v in source.items()}))
    array = np.asarray(source)
    if array.dtype.names:
        return Frame(_of_columns({n: array[n].tolist() for n in array.dtype.names}))
    if array.ndim != 2 or array.dtype.kind not in "buif":
        raise DataError(f"{name}: rows must be numbers of shape (n, d), not {array.dtype} of "
                        f"shape {array.shape}")
    return Frame(pl.DataFrame({f"x{i}": array[:, i] for i in range(array.shape[1])}), named=False)


def _of_pandas(source: Any) -> Frame:
    """Columns by their place, whatever their labels are: numbers, tuples, the same twice."""
    import polars as pl

    labels, notes = list(source.columns), list[str]()
    named = labels != list(range(len(labels)))  # pandas numbers columns without names
    names = names_of(["_".join(str(part) for part in label if str(part)) if isinstance(
        label, tuple) else str(label) for label in labels], notes) if named else [
            f"x{i}" for i in labels]
    index = [str(n) for n in source.index.names if n is not None]
    if index or source.index.dtype.kind not in "iu":
        notes.append(f"the index {', '.join(index) or 'of the frame'} is not read; reset_index() "
                     "makes it a column")
    columns: dict[str, Any] = {}
    for i, column in enumerate(names):
        values = source.iloc[:, i]
        if str(values.dtype).startswith("period"):
            values = values.dt.to_timestamp()
        if isinstance(values.dtype, np.dtype) and values.dtype.kind in "iufb" and (
                values.dtype != np.float16):
            columns[column] = pl.Series(column, values.to_numpy())
        else:
            values = values.astype(object)
            columns[column] = values.where(values.notna(), None).tolist()
    return Frame(_of_columns(columns), named=named, notes=tuple(notes))


def _of_columns(columns: Mapping[str, Sequence[Any] | Series]) -> DataFrame:
    """Lists of values of one type as they are; words and numbers mixed become words."""
    import polars as pl

    def series(name: str, values: Any) -> Series:
        if isinstance(values, pl.Series):
            return values
        values = [None if v is None or v != v else v for v in values]
        types = {type(v) for v in values if v is not None}
        if bytes in types:
            raise DataError(f"column {name} holds binary values; leave it out with "
                            f"{say_option('drop', name)}")
        if "Interval" in {t.__name__ for t in types} or (str in types and len(types) > 1):
            values = [None if v is None else str(v) for v in values]  # Interval is of pandas.cut
        return pl.Series(name, values, strict=False)

    return pl.DataFrame({name: series(name, values) for name, values in columns.items()})
