"""CSV, TSV and Parquet tables, by polars.

Numeric columns stay as they are. Columns of words, booleans or categories with at most 50 distinct
values become one column of 0 and 1 per value, ``NAME=VALUE``. A missing number becomes the median
of its column in the train split, with a column ``NAME (missing)`` of 0 and 1 beside it; a missing
word is a value of its own, ``NAME=(missing)``.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, unknown
from latlas.core.space import Space
from latlas.data.dataset import Dataset
from latlas.data.labels import encode_labels
from latlas.data.source import Rows, Source, make

if TYPE_CHECKING:
    from polars import DataFrame, Series

MOST_LEVELS = 50
#: rows from which words that hardly repeat are free text
TELLING = 10
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")
ABSENT = "(missing)"
USUAL_LABELS = ("label", "class", "target")
Columns = dict[str, NDArray[np.float32]]


def open_table(path: Any, *, name: str = "", label: str | None = None,
               drop: str | None = None, group: str | None = None) -> Source:
    """A table with a header; a first line of numbers alone counts as data.

    Args:
        path: a path, a binary stream, or a polars DataFrame.
        label: the label's column; by default one called label, class or target; ``none`` for none.
        drop: columns to leave out, separated by commas.
        group: a column whose equal values mark related rows, which stay in one split.
    """
    name = name or (str(path) if isinstance(path, Path) else "table")
    table = _read(path, name)
    for column in _names(drop):
        table = table.drop(_found(table, column, "drop", name))
    codes, classes, table, notes = _label(table, label, name)
    related = None
    if group is not None:
        column = _found(table, group, "group", name)
        related = np.unique(table[column].cast(str).fill_null("").to_numpy().astype(str),
                            return_inverse=True)[1].astype(np.int64)
        table = table.drop(column)
    columns, more = _encoded(table, name)
    x = np.stack(list(columns.values()), axis=1)
    words = tuple(c.name for c in table if c.name not in columns)
    space = Space("table", x.shape[1:], columns=tuple(columns), classes=classes, categories=words)
    data = Dataset(x, space, codes, group=related)
    return make(Path(name).stem, data, notes=(*notes, *more))


def as_read(values: NDArray[Any], space: Space) -> dict[str, NDArray[Any]]:
    """Rows (n, d) in data units as the columns the file had: the inverse of how a table is read.

    Of a category the word with the greatest number; ``None`` where a value is likelier missing
    than not.
    """
    by_name = {column: values[:, i] for i, column in enumerate(space.columns)}
    read: dict[str, NDArray[Any]] = {}
    for column in space.columns:
        category = category_of(column, space)
        if not category and not _is_flag(column, by_name):
            read[column] = _numbers(column, by_name)
        elif category and category not in read:
            read[category] = _words(category, by_name)
    return read


def category_of(column: str, space: Space) -> str:
    """The column of words that a column of zeros and ones is of, or nothing."""
    return max((c for c in space.categories if column.startswith(f"{c}=")), key=len, default="")


def _is_flag(column: str, by_name: Columns) -> bool:
    """``NAME (missing)`` beside NAME."""
    return column.endswith(f" {ABSENT}") and column.removesuffix(f" {ABSENT}") in by_name


def _numbers(column: str, by_name: Columns) -> NDArray[Any]:
    flag = by_name.get(f"{column} {ABSENT}")
    if flag is None:
        return by_name[column]
    values = by_name[column].astype(object)
    values[flag > 0.5] = None
    return values


def _words(category: str, by_name: Columns) -> NDArray[Any]:
    levels = {c.removeprefix(f"{category}="): v for c, v in by_name.items()
              if c.startswith(f"{category}=")}
    words = np.array(list(levels), object)
    words[words == ABSENT] = None
    most: NDArray[Any] = words[np.stack(list(levels.values())).argmax(0)]
    return most


def _names(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _found(table: DataFrame, column: str, option: str, name: str) -> str:
    if column not in table.columns:
        raise DataError(f"{name}: {option}={column}: "
                        + unknown("column", column, table.columns))
    return column


def _read(path: Any, name: str) -> DataFrame:
    import polars as pl

    if isinstance(path, pl.DataFrame):
        table = path
    else:
        try:
            table = pl.read_parquet(path) if name.endswith(".parquet") else _read_csv(path, name)
        except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None
    if not len(table) or not table.width:
        raise DataError(f"{name} has no rows")
    return table


def _read_csv(path: Path | IO[bytes], name: str) -> DataFrame:
    import polars as pl

    head = _first_line(path)
    separator = "\t" if name.endswith(".tsv") else max(",;\t|", key=head.count)
    bare = all(_is_number(part) for part in head.split(separator))
    table = pl.read_csv(path, separator=separator, has_header=not bare, null_values=list(MISSING),
                        infer_schema_length=None)
    if not bare:
        return table.rename(lambda column: column.strip())
    return table.rename({c: f"x{i}" for i, c in enumerate(table.columns)})


def _first_line(path: Path | IO[bytes]) -> str:
    if isinstance(path, Path):
        with path.open("rb") as file:
            return file.readline().decode("utf-8", "replace").strip()
    line = path.readline().decode("utf-8", "replace").strip()
    path.seek(0)
    return line


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _label(table: DataFrame, label: str | None, name: str) -> tuple[
        Rows | None, tuple[str, ...], DataFrame, tuple[str, ...]]:
    """Codes, class names, the table without the label's column, and notes."""
    if label == "none":
        return None, (), table, ()
    if label is None:
        return _usual_label(table, name)
    column = table[_found(table, label, "label", name)]
    return *_codes(column, name), table.drop(column.name), ()


def _usual_label(table: DataFrame, name: str) -> tuple[
        Rows | None, tuple[str, ...], DataFrame, tuple[str, ...]]:
    found = [c for c in table.columns if c.lower() in USUAL_LABELS]
    if len(found) != 1 or table[found[0]].n_unique() > MOST_LEVELS:
        return None, (), table, ()
    try:
        codes, classes = _codes(table[found[0]], name)
    except DataError:
        return None, (), table, ()
    note = f"column {found[0]} is the label; label=none keeps it as a column"
    return codes, classes, table.drop(found[0]), (note,)


def _codes(column: Series, name: str) -> tuple[Rows, tuple[str, ...]]:
    if column.null_count():
        raise DataError(f"{name}: label column {column.name} has {column.null_count():,} missing "
                        "values; fill them or choose another label")
    values = column.to_numpy() if column.dtype.is_numeric() else column.cast(str).to_numpy()
    values = values.astype(str) if values.dtype.kind == "O" else values
    return encode_labels(values, f"{name}: label column {column.name}")


def _encoded(table: DataFrame, name: str) -> tuple[Columns, tuple[str, ...]]:
    """Every column as one or more columns of numbers, and notes."""
    columns: Columns = {}
    notes: list[str] = []
    for column in table:
        columns.update(_column(column, name))
        if column.dtype.is_numeric() and f"{column.name} {ABSENT}" in columns:
            count = int(columns[f"{column.name} {ABSENT}"].sum())
            notes.append(f"column {column.name}: {count:,} missing, filled with train's median")
    if not columns:
        raise DataError(f"{name} has no columns left to learn from")
    return columns, tuple(notes)


def _column(column: Series, name: str) -> Columns:
    import polars as pl

    if column.null_count() == len(column):
        raise DataError(f"{name}: column {column.name} is empty; leave it out with "
                        f"drop={column.name}")
    if column.dtype.is_numeric():
        return _numeric(column, name)
    if column.dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum):
        return _one_hot(column, name)
    raise DataError(f"{name}: column {column.name} holds {column.dtype}, which is neither numbers "
                    f"nor categories; leave it out with drop={column.name}")


def _numeric(column: Series, name: str) -> Columns:
    with np.errstate(over="ignore"):  # becomes infinite, and is named below
        values = column.cast(float).to_numpy().astype(np.float32)
    if np.isinf(values).any():
        raise DataError(f"{name}: column {column.name} holds infinite (or larger than float32) "
                        f"numbers; repair it or leave it out with drop={column.name}")
    missing = np.isnan(values)
    if not missing.any():
        return {column.name: values}
    return {column.name: values, f"{column.name} {ABSENT}": missing.astype(np.float32)}


def _one_hot(column: Series, name: str) -> Columns:
    import polars as pl

    words = column.cast(pl.String).fill_null(ABSENT).to_numpy().astype(str)
    levels, codes = np.unique(words, return_inverse=True)
    rare = len(words) >= TELLING and len(levels) > len(words) / 2
    free = column.dtype == pl.String and rare
    if free or len(levels) > MOST_LEVELS:
        raise DataError(f"{name}: column {column.name} is free text ({len(levels):,} distinct "
                        f"values in {len(words):,} rows); leave it out with drop={column.name}, "
                        f"or make it the label with label={column.name}")
    return {f"{column.name}={v}": (codes == i).astype(np.float32) for i, v in enumerate(levels)}
