"""Values of a table's columns as numbers, and numbers as values of the columns' own types.

Between a file and the numbers that a model sees a column is a polars Series of one of five types:
Float64, Int64, Boolean, Datetime in microseconds, or String. What each column is was decided by
:mod:`latlas.data.columns`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.core.space import ABSENT, OTHER, Column, Table
from latlas.data.frames import Frame
from latlas.data.splits import hash_of, mix
from latlas.data.words import ORDERS, SYMBOLS, date_formats, to_dates, to_numbers

DAY = 86_400_000_000  # microseconds
YEAR, WEEK = 365.2425, 7.0
TRUTH = {"true": True, "false": False, "t": True, "f": False}


def canonical(series: pl.Series, column: Column, problems: list[str] | None = None) -> pl.Series:
    """A column's values in the type of its kind; what does not fit is a problem with its count."""
    convert = {"real": _reals, "integer": _integers, "boolean": _booleans, "date": _dates}.get(
        column.kind)
    result = (convert(series, column) if convert else _words(series)).alias(column.name)
    lost = result.null_count() - series.null_count()
    if lost and problems is not None:
        bad = series.filter(result.is_null() & series.is_not_null())
        what = {"date": "dates", "boolean": "true or false"}.get(column.kind, "numbers")
        problems.append(f"column {column.name}: {lost:,} values are no {what} (as {str(bad[0])!r})")
    return result


def _nothing(series: pl.Series, dtype: Any) -> pl.Series:
    """Values of another kind, none of which fits."""
    return pl.Series(series.name, [None] * len(series), dtype=dtype)


def _reals(series: pl.Series, column: Column) -> pl.Series:
    if series.dtype == pl.String:
        return to_numbers(series, column.form)
    if series.dtype.is_numeric() or series.dtype == pl.Boolean:
        return series.cast(pl.Float64).fill_nan(None)
    return _nothing(series, pl.Float64)


def _integers(series: pl.Series, column: Column) -> pl.Series:
    """Int64, exact; Float64 where some value is a fraction or too large."""
    if series.dtype in (pl.Time, pl.Duration):
        return series.cast(pl.Int64)
    if series.dtype.is_integer():
        largest: Any = series.max() or 0
        return series.cast(pl.Int64 if largest < 2**63 else pl.Float64)
    numbers = _reals(series, column)
    whole = numbers.cast(pl.Int64, strict=False)
    if not (whole.cast(pl.Float64) == numbers).fill_null(numbers.is_null()).all():
        return numbers
    if series.dtype == pl.String:  # digits beyond those of float64
        exact = series.str.replace_all(SYMBOLS, "").cast(pl.Int64, strict=False)
        whole = pl.select(pl.coalesce(exact, whole)).to_series()
    return whole


def _booleans(series: pl.Series, _: Column) -> pl.Series:
    if series.dtype == pl.String:
        return series.str.to_lowercase().replace_strict(
            {**TRUTH, "1": True, "0": False, "1.0": True, "0.0": False}, default=None,
            return_dtype=pl.Boolean)
    numeric = series.dtype == pl.Boolean or series.dtype.is_numeric()
    return series.cast(pl.Boolean) if numeric else _nothing(series, pl.Boolean)


def _dates(series: pl.Series, column: Column) -> pl.Series:
    """Dates as they were written in training, else in a way that cannot be meant otherwise."""
    if series.dtype == pl.String:
        ordered = tuple(start for starts in ORDERS.values() for start in starts)
        for form in (column.form or "%Y-%m-%d", *date_formats(series.drop_nulls())):
            dates = to_dates(series, form)
            if dates.null_count() == series.null_count() and (
                    form == column.form or not form.startswith(ordered)):
                return dates
        return to_dates(series, column.form or "%Y-%m-%d")
    if series.dtype in (pl.Date, pl.Datetime):
        zoned = getattr(series.dtype, "time_zone", None)
        utc = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if zoned else series
        return utc.cast(pl.Datetime("us"))
    return _nothing(series, pl.Datetime("us"))


def _words(series: pl.Series) -> pl.Series:
    """Values as words: whole numbers without decimals, truth values in small letters."""
    if series.dtype.is_float():
        whole = series.cast(pl.Int64, strict=False)
        if (whole.cast(pl.Float64) == series).fill_null(True).all():
            series = whole
    return series.cast(pl.String, strict=False)


def features(series: pl.Series, column: Column, out: NDArray[np.float64]) -> None:
    """Writes the numbers of a canonical column to zeros (n, k), NaN for gaps that are to be filled.

    Whole numbers are less ``column.offset``; days are counted since 1970.
    """
    if column.kind == "category":
        levels = {level: i for i, level in enumerate(column.levels)}
        in_place = ABSENT if column.gaps else column.fill
        filled = series if in_place is None else series.fill_null(in_place)
        place = filled.replace_strict(levels, default=levels.get(OTHER, -1),
                                      return_dtype=pl.Int64).to_numpy()
        rows = np.flatnonzero(place >= 0)
        out[rows, place[rows]] = 1.0
        return
    if column.kind == "date":
        days = series.cast(pl.Int64).cast(pl.Float64).to_numpy() / DAY
        out[:, 0] = days
        for i, part in enumerate(column.parts):
            period = {"year": YEAR, "week": WEEK, "day": 1.0}[part]
            angle = 2 * np.pi * (days % period) / period
            out[:, 1 + 2 * i], out[:, 2 + 2 * i] = np.sin(angle), np.cos(angle)
    elif column.offset:
        out[:, 0] = shifted(series, -column.offset).cast(pl.Float64).to_numpy()
    else:
        out[:, 0] = series.cast(pl.Float64).to_numpy()
    if column.gaps:
        out[:, -1] = series.is_null().to_numpy()


def shifted(series: pl.Series, by: int) -> pl.Series:
    """Int128, exact for whole numbers of any type."""
    wide = pl.lit(series).cast(pl.Int128, strict=False)
    return pl.select(wide + pl.lit(by, dtype=pl.Int128)).to_series().alias(series.name)


def content_hash(columns: Mapping[str, pl.Series]) -> NDArray[np.uint64]:
    """(n,) one number for the values of each row, whatever the order of columns and the file."""
    n = len(next(iter(columns.values())))
    total = np.zeros(n, np.uint64)
    for name, series in columns.items():
        if series.dtype == pl.String:
            words = series.fill_null(ABSENT)
            levels = words.unique()
            hashes = np.array([hash_of(word) for word in levels.to_list()], np.uint64)
            place = words.replace_strict(levels, pl.Series(range(len(levels)), dtype=pl.Int64),
                                         return_dtype=pl.Int64).to_numpy()
            bits = hashes[place]
        else:
            values = series.cast(pl.Int64) if series.dtype == pl.Datetime else series
            numbers = values.cast(pl.Float64).fill_null(float("nan")).to_numpy() + 0.0
            if values.dtype == pl.Int64:  # exact where float64 is not
                numbers = numbers + 0.0
                low = values.fill_null(0).to_numpy().astype(np.uint64) & np.uint64(0x7FF)
            else:
                low = np.zeros(n, np.uint64)
            numbers[np.isnan(numbers)] = np.nan
            low = np.where(np.abs(numbers) > 2.0**53, low, 0).astype(np.uint64)
            bits = numbers.view(np.uint64) ^ low
        total += mix(bits ^ np.uint64(hash_of(name)))
    return mix(total)


# ------------------------------------------------------------------ for a run

@dataclass(frozen=True)
class RowsRead:
    """Rows of a frame in a run's columns.

    Attributes:
        x: (n, d) float64 in the order of ``space.columns``, gaps filled.
        label: (n,) words of the label's column; ``None`` without.
        names: (n,) words of the column that names rows; ``None`` without.
        group: (n,) int64 hashes of the words of the column of related rows.
        key: (n,) hash of each row's content.
        notes: what was filled, ignored or taken by position.
    """

    x: NDArray[np.float64]
    label: pl.Series | None
    names: NDArray[np.str_] | None
    group: NDArray[np.int64] | None
    key: NDArray[np.uint64]
    notes: tuple[str, ...]


def numbers_of(frame: Frame, columns: Sequence[Column], name: str, *,
               fill: bool = True) -> RowsRead:
    """Brings a frame into columns that were interpreted before.

    Columns are found by name; those of a frame without names by position, which is said. Others
    are ignored, which is said too. Without ``fill`` numbers that are missing stay NaN.

    Raises:
        DataError: columns that are missing, values that do not fit, words never seen; all of them
            in one line.
    """
    data, notes = frame.data, list(frame.notes)
    learnt = [c for c in columns if c.learnt]
    if not frame.named:
        data = _by_position(data, columns, learnt, name, notes)
    absent = [c.name for c in learnt if c.name not in data.columns]
    if absent:
        raise DataError(f"{name} has no column {', '.join(map(repr, absent[:5]))}"
                        f"{', …' * (len(absent) > 5)}, which the run was trained on"
                        + _alike(absent, data.columns))
    extra = [c for c in data.columns if c not in {c.name for c in columns}]
    if extra:
        notes.append(f"{len(extra)} columns that the run does not know are ignored "
                     f"({', '.join(extra[:5])}{', …' * (len(extra) > 5)})")
    problems: list[str] = []
    values: dict[str, pl.Series] = {}
    for column in learnt:
        number = frame.decimal and column.kind in ("real", "integer")
        values[column.name] = canonical(
            data[column.name], column.replace(form=frame.decimal) if number else column, problems)
        _check_values(values[column.name], column, fill, problems)
    if problems:
        raise DataError(f"{name}: " + "; ".join(problems))
    x, start = np.zeros((len(data), sum(len(c.features) for c in learnt))), 0
    for column in learnt:
        read, block = values[column.name], x[:, start:start + len(column.features)]
        start += len(column.features)
        features(read, column, block)
        if fill and read.null_count():
            block[read.is_null().to_numpy()] = filling(column)
            if not column.gaps:
                notes.append(f"column {column.name}: {read.null_count():,} gaps, of which training "
                             f"had none, are filled with {fill_text(column)}")
    own = {c.kind: _words(data[c.name]) for c in reversed(columns)
           if c.kind in ("label", "id", "group") and c.name in data.columns}
    ids, group = own.get("id"), own.get("group")
    return RowsRead(x, own.get("label"),
                    None if ids is None else ids.fill_null("").to_numpy().astype(str),
                    None if group is None else content_hash({"": group}).view(np.int64),
                    content_hash(values) if values else np.zeros(len(data), np.uint64),
                    tuple(notes))


def _alike(absent: Sequence[str], known: Sequence[str]) -> str:
    """Columns of almost the same names, for an error."""
    bare = {re.sub(r"[\W_]", "", c).lower(): c for c in known}
    pairs = [(bare[b], c) for c in absent if (b := re.sub(r"[\W_]", "", c).lower()) in bare]
    return "".join(f"; rename {old!r} to {new!r}" for old, new in pairs[:3])


def fill_gaps(x: NDArray[Any], columns: Sequence[Column]) -> NDArray[Any]:
    """Rows (n, d) with each NaN replaced by what stands in its place."""
    missing = np.isnan(x)
    if not missing.any():
        return x
    fills = np.concatenate([np.zeros(len(c.features)) if c.kind == "category" else filling(c)
                            for c in columns if c.learnt])
    return np.where(missing, fills, x)


def fill_text(column: Column) -> str:
    if column.kind == "date":
        return str(pl.Series([column.fill], dtype=pl.Int64).cast(pl.Datetime("us"))[0])
    return f"{column.fill:g}" if isinstance(column.fill, float) else str(column.fill)


def with_fills(columns: Sequence[Column], x: NDArray[Any],
               train: NDArray[np.int64]) -> tuple[Column, ...]:
    """The columns with what stands in the place of a gap: the median, the most frequent word or
    truth value, of the train rows of ``x`` (n, d), in which gaps are NaN."""
    result, start = [], 0
    for column in columns:
        if not column.learnt:
            result.append(column)
            continue
        width = len(column.features)
        block = x[train, start:start + width]
        start += width
        fill: Any
        if column.kind == "category":
            fill = column.levels[int(block.sum(axis=0).argmax())]
        else:
            present = block[:, 0][~np.isnan(block[:, 0])]
            middle = float(np.median(present)) if len(present) else 0.0
            fill = middle
            if column.kind == "boolean":
                fill = middle > 0.5
            elif column.kind == "date":
                fill = round(middle * DAY)
            elif column.offset:
                fill = round(middle) + column.offset
        result.append(column.replace(fill=fill))
    return tuple(result)


def filling(column: Column) -> NDArray[np.float64]:
    """(k,) what stands in the place of a gap."""
    if column.kind == "category":
        word = ABSENT if column.gaps else column.fill
        return np.array([level == word for level in column.levels], np.float64)
    series = pl.Series(column.name, [column.fill], dtype=pl.Int64 if (
        column.kind == "date" or column.offset) else pl.Float64)
    if column.kind == "date":
        series = series.cast(pl.Datetime("us"))
    row = np.zeros((1, len(column.features)))
    features(series, column, row)
    if column.gaps:
        row[0, -1] = 1.0
    return row[0]


def _by_position(data: pl.DataFrame, columns: Sequence[Column], learnt: Sequence[Column],
                 name: str, notes: list[str]) -> pl.DataFrame:
    for some in (columns, learnt):
        if data.width == len(some):
            if any(old != new.name for old, new in zip(data.columns, some, strict=True)):
                notes.append(f"columns without names are taken by their position: "
                             f"{', '.join(c.name for c in some[:4])}"
                             f"{', …' * (len(some) > 4)}")
            return data.rename(dict(zip(data.columns, [c.name for c in some], strict=True)))
    raise DataError(f"{name} has {data.width} columns without names, the run learnt "
                    f"{len(learnt)} ({', '.join(c.name for c in learnt[:5])}"
                    f"{', …' * (len(learnt) > 5)})")


def _check_values(read: pl.Series, column: Column, fill: bool, problems: list[str]) -> None:
    if column.kind == "category" and OTHER not in column.categories:
        strange = read.filter(~read.is_in(list(column.categories)) & read.is_not_null())
        if len(strange):
            problems.append(
                f"column {column.name} holds {strange[0]!r}, which the run has not seen "
                f"({len(strange):,} rows); it knows {', '.join(column.categories)}")
    elif read.dtype == pl.Float64 and read.is_infinite().any():
        problems.append(f"column {column.name} holds infinite numbers; repair or remove them")
    if fill and column.fill is None and read.null_count():
        problems.append(f"column {column.name}: {read.null_count():,} gaps, for which the run has "
                        "no value")


def frame_of(values: NDArray[Any], space: Table) -> pl.DataFrame:
    """Rows (n, d) in data units as the training table had them: its columns and types.

    Of a category the word with the greatest number; null where a value is likelier missing than
    not. Whole numbers are rounded and kept within their type's range.
    """
    values = np.asarray(values, np.float64)
    table: dict[str, pl.Series] = {}
    start = 0
    for column in (c for c in space.fields if c.learnt):
        width = len(column.features)
        block = values[:, start:start + width]
        start += width
        table[column.name] = _as_series(block, column)
    return pl.DataFrame(table)


def _as_series(block: NDArray[np.float64], column: Column) -> pl.Series:
    name = column.name
    if column.kind == "category":
        words = np.array([None if w == ABSENT else w for w in column.levels], object)
        return pl.Series(name, words[block.argmax(axis=1)].tolist(), dtype=pl.String)
    dtype = getattr(pl, column.dtype.partition("(")[0])
    first = block[:, 0]
    if column.kind == "boolean":
        series = pl.Series(name, first > 0.5)
    elif column.kind == "date":
        micro = np.rint(np.clip(first, -7e5, 3e6) * DAY).astype(np.int64)
        series = pl.Series(name, micro).cast(pl.Datetime("us"))
        series = series.dt.round("1d").cast(pl.Date) if dtype == pl.Date else series.dt.round("1s")
    elif column.kind == "integer":
        whole = shifted(pl.Series(name, np.rint(first)), column.offset)
        if dtype.is_integer():
            bits = int("".join(c for c in column.dtype if c.isdigit()))
            low, high = (0, 2**bits - 1) if column.dtype[0] == "U" else (-2**(bits - 1),
                                                                         2**(bits - 1) - 1)
            series = whole.clip(low, high).cast(dtype)
        else:
            series = whole.cast(pl.Int64).cast(dtype)
    else:
        first = first if column.decimals is None else first.round(column.decimals)
        series = pl.Series(name, first).cast(dtype if dtype.is_float() else pl.Float64)
    if column.gaps:
        series = series.set(pl.Series(block[:, -1] > 0.5), None)
    return series
