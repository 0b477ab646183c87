"""Files, data frames and arrays of rows as one polars DataFrame, exactly as they say it.

Text files (CSV and its relatives) keep every value as text: what a column means is decided in
:mod:`latlas.data.columns`, once, at training.
"""

from __future__ import annotations

import csv
import io
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.data.text import BROKEN, COMPRESSED, MISSING, HowToRead, names_of, opened, read_text

if TYPE_CHECKING:
    from polars import DataFrame

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
    import polars as pl

    how = how or HowToRead()
    if isinstance(source, Path) or hasattr(source, "read"):
        suffix = _suffix(name)
        try:
            folder = isinstance(source, Path) and source.is_dir()
            if suffix in (".csv", ".tsv", ".tab", ".txt", ".dat", ".data", "") and not folder:
                table, header, notes = read_text(source, name, suffix, how)
                frame = Frame(table, True, header, notes)
            else:
                frame = Frame(_read_typed(source, name, suffix, how))
        except pl.exceptions.PolarsError as error:
            raise DataError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None
        except (*BROKEN, sqlite3.Error, csv.Error) as error:
            raise DataError(f"{name} cannot be read: {error}") from None
    else:
        frame = _in_memory(source, name)
    if not len(frame.data) or not frame.data.width:
        raise DataError(f"{name} has no rows")
    data = _with_gaps(frame.data, how.missing)
    return Frame(data, frame.text, frame.named, frame.notes, how.decimal)


def _with_gaps(data: DataFrame, more: str | None) -> DataFrame:
    """NaN, and the words that stand for a gap in any letter case, as null."""
    import polars as pl

    words = {w.strip().lower() for w in (more or "").split(",")} | set(MISSING)
    variants = pl.Series(sorted({form(w) for w in words for form in (
        str, str.upper, str.title, str.capitalize, lambda w: w.replace("nan", "NaN"),
        lambda w: w.replace("nat", "NaT"))}))
    text, real = pl.col(pl.String), pl.selectors.float()
    return data.with_columns(text.str.strip_chars()).with_columns(
        pl.when(text.is_in(variants.implode())).then(None).otherwise(text).name.keep(),
        real.fill_nan(None))


def is_frame(source: Any) -> bool:
    """A data frame of any library: polars, pandas, pyarrow, …"""
    import narwhals as nw

    if isinstance(source, nw.DataFrame | nw.LazyFrame) or nw.dependencies.is_into_dataframe(source):
        return True
    return hasattr(source, "__arrow_c_stream__") or type(source).__name__ == "LazyFrame"


def _suffix(name: str) -> str:
    """The ending that says what a file is, less the one that says how it is compressed."""
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


# ------------------------------------------------------------------ typed files and frames

def _read_typed(source: Any, name: str, suffix: str, how: HowToRead) -> DataFrame:
    import polars as pl

    if isinstance(source, Path) and source.is_dir():
        parts = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".parquet", ".pq")
                       and not p.name.startswith((".", "_")))
        frames = [pl.read_parquet(part, use_pyarrow=False) for part in parts]
        for part, frame in zip(parts, frames, strict=True):
            if frame.schema != frames[0].schema:
                raise DataError(f"{part} has other columns or types than {parts[0].name}")
        return pl.concat(frames)
    if suffix in (".db", ".sqlite", ".sqlite3"):
        return _read_sqlite(source, name, how)
    with opened(source, name) as stream:
        data = stream.read()
    if suffix in (".parquet", ".pq"):
        return pl.read_parquet(io.BytesIO(data))
    if suffix in (".arrow", ".feather", ".ipc"):
        return pl.read_ipc(io.BytesIO(data)) if data[:6] == b"ARROW1" else pl.read_ipc_stream(
            io.BytesIO(data))
    if suffix in (".jsonl", ".ndjson"):
        return pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)
    raise DataError(f"{name} is not a kind of table latlas reads")


def _read_sqlite(source: Any, name: str, how: HowToRead) -> DataFrame:
    """One table or query of an SQLite file, which is opened read-only."""
    import polars as pl

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
                raise DataError(f"{name}: " + (unknown("table", how.table, tables) if how.table
                                               else f"holds {len(tables)} tables "
                                               f"({', '.join(tables)}); choose one with "
                                               f"{say_option('table', 'NAME')}"))
            query = 'SELECT * FROM "{}"'.format(str(table).replace('"', '""'))
        cursor = base.execute(query)
        columns = [d[0] for d in cursor.description or ()]
        rows = cursor.fetchall()
    return pl.DataFrame({c: _series(c, [row[i] for row in rows]) for i, c in enumerate(columns)})


def _series(name: str, values: list[Any]) -> Any:
    """Values of one type as they are; words and numbers mixed become words."""
    import polars as pl

    present = {type(v) for v in values if v is not None and v == v}
    if bytes in present:
        raise DataError(f"column {name} holds binary values; leave it out with "
                        f"{say_option('drop', name)}")
    intervals = "Interval" in {t.__name__ for t in present}  # of pandas.cut
    if intervals or (str in present and len(present) > 1):
        values = [None if v is None or v != v else str(v) for v in values]
    return pl.Series(name, [None if v is None or v != v else v for v in values], strict=False)


def _in_memory(source: Any, name: str) -> Frame:
    import narwhals as nw
    import polars as pl

    try:
        if nw.dependencies.is_pandas_series(source):
            source = source.to_frame()
        if nw.dependencies.is_pandas_dataframe(source):
            return _of_pandas(source)
        if nw.dependencies.is_pyarrow_table(source):
            notes: list[str] = []
            names = names_of(source.column_names, notes)
            return Frame(pl.DataFrame(source.rename_columns(names)), notes=tuple(notes))
        if isinstance(source, pl.LazyFrame):
            source = source.collect()
        if isinstance(source, pl.DataFrame) or hasattr(source, "__arrow_c_stream__"):
            return Frame(pl.DataFrame(source))
        frame: Any = nw.from_native(source, eager_only=True, pass_through=True)
        if isinstance(frame, nw.DataFrame):
            source = {c: frame[c].to_list() for c in frame.columns}
        if isinstance(source, dict):
            return Frame(pl.DataFrame({str(k): _series(str(k), np.asarray(v).tolist())
                                       for k, v in source.items()}))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None
    return _of_array(np.asarray(source), name)


def _of_array(array: NDArray[Any], name: str) -> Frame:
    import polars as pl

    if array.dtype.names:
        return Frame(pl.DataFrame({n: _series(n, array[n].tolist()) for n in array.dtype.names}))
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
    columns = {}
    for i, column in enumerate(names):
        values = source.iloc[:, i]
        kind = values.dtype.kind if isinstance(values.dtype, np.dtype) else ""
        if str(values.dtype).startswith("period"):
            values = values.dt.to_timestamp()
        if kind in tuple("iufb") and values.dtype != np.float16:
            columns[column] = pl.Series(column, values.to_numpy())
        else:
            values = values.astype(object)
            columns[column] = _series(column, values.where(values.notna(), None).tolist())
    return Frame(pl.DataFrame(columns), named=named, notes=tuple(notes))
