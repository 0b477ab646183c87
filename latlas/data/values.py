"""Values of a table's columns as numbers, and numbers as values of the columns' own types.

Between a file and the numbers that a model sees a column is a polars Series of one of five types:
Float64, Int64, Boolean, Datetime in microseconds, or String. What each column is was decided by
:mod:`latlas.data.columns`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from latlas.core.mixed import GAP, MixedRows
from latlas.core.space import ABSENT, OTHER, PERIODS, Column, Table
from latlas.data.splits import hash_of, mix
from latlas.data.words import ORDERS, SYMBOLS, date_formats, to_dates, to_numbers

DAY = 86_400_000_000  # microseconds
TYPES: dict[str, Any] = {"real": pl.Float64, "integer": pl.Int64, "boolean": pl.Boolean,
                         "date": pl.Datetime("us")}
TRUTH = {"true": True, "false": False, "t": True, "f": False}


def canonical(series: pl.Series, column: Column) -> pl.Series:
    """A column's values in the type of its kind, null where they do not fit."""
    dtype, kind = series.dtype, column.kind
    number = dtype.is_numeric() or dtype == pl.Boolean
    fits = {"real": number, "boolean": number, "integer": number or dtype in (pl.Time, pl.Duration),
            "date": dtype in (pl.Date, pl.Datetime, pl.Time)}.get(kind, True)
    if not fits and dtype != pl.String:
        result = pl.repeat(None, len(series), dtype=TYPES[kind], eager=True)
    elif kind == "real":
        result = _reals(series, column)
    elif kind == "integer":
        result = _integers(series, column)
    elif kind == "date":
        result = _dates(series, column)
    elif kind == "boolean":
        result = series.str.to_lowercase().replace_strict(
            TRUTH | {"1": True, "0": False, "1.0": True, "0.0": False}, default=None,
            return_dtype=pl.Boolean) if dtype == pl.String else series.cast(pl.Boolean)
    else:
        result = as_words(series)
    return result.alias(column.name)


def _reals(series: pl.Series, column: Column) -> pl.Series:
    text = series.dtype == pl.String
    return to_numbers(series, column.form) if text else series.cast(pl.Float64).fill_nan(None)


def _integers(series: pl.Series, column: Column) -> pl.Series:
    """Int64, exact; Float64 where some value is a fraction or too large."""
    whole = series.cast(pl.Int64, strict=False)
    if whole.null_count() == series.null_count() and not (
            series.dtype.is_float() or series.dtype.is_decimal()):
        return whole
    numbers = _reals(series, column)
    whole = numbers.cast(pl.Int64, strict=False)
    if series.dtype.is_integer() or not whole.cast(pl.Float64).eq_missing(numbers).all():
        return numbers
    if series.dtype == pl.String:  # digits beyond those of float64
        exact = series.str.replace_all(SYMBOLS, "").cast(pl.Int64, strict=False)
        whole = pl.select(pl.coalesce(exact, whole)).to_series()
    return whole


def _dates(series: pl.Series, column: Column) -> pl.Series:
    """Dates as they were written in training, else in a way that cannot be meant otherwise."""
    if series.dtype == pl.String:
        own = to_dates(series, column.form or "%Y-%m-%d")
        if own.null_count() == series.null_count():
            return own
        ambiguous = tuple(start for starts in ORDERS.values() for start in starts)
        others = (f for f in date_formats(series.drop_nulls()) if not f.startswith(ambiguous))
        return next((to_dates(series, form) for form in others), own)
    if series.dtype == pl.Time:
        series = series.cast(pl.Int64) // 1000
    elif getattr(series.dtype, "time_zone", None):
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return series.cast(pl.Datetime("us"))


def as_words(series: pl.Series) -> pl.Series:
    """Values as words: whole numbers without decimals, truth values in small letters."""
    if series.dtype.is_float():
        whole = series.cast(pl.Int64, strict=False)
        series = whole if (whole.cast(pl.Float64) == series).fill_null(True).all() else series
    return series.cast(pl.String, strict=False)


def places(columns: Sequence[Column]) -> Iterator[tuple[Column, slice]]:
    """Each column that is learnt, and where its numbers stand in a row."""
    start = 0
    for column in columns:
        if column.learnt:
            stop = start + len(column.features)
            yield column, slice(start, stop)
            start = stop


def features(series: pl.Series, column: Column, out: NDArray[np.float64], *,
             fill: bool = True) -> None:
    """Writes the numbers of a canonical column to zeros (n, k), NaN for gaps that are to be filled;
    without ``fill`` also for those of a category that had none in training.

    Whole numbers are less ``column.offset``; days are counted since 1970. A word that a category
    has not is 0 everywhere.
    """
    if column.kind == "category":
        levels = {level: i for i, level in enumerate(column.levels)}
        gap: Any = ABSENT if column.gaps else column.fill if fill else None
        place = series.replace_strict({**levels, None: levels.get(gap, -2)}, default=levels.get(
            OTHER, -1), return_dtype=pl.Int32).to_numpy()
        rows = np.flatnonzero(place >= 0)
        out[rows, place[rows]] = 1.0
        if not fill:
            out[place == -2] = np.nan
        return
    if column.kind == "date":
        series = series.cast(pl.Int64).cast(pl.Float64) / DAY
        out[:, 0] = series.to_numpy()
        date_waves(out, column)
    numbers = shifted(series, -column.offset) if column.offset else series
    out[:, 0] = numbers.cast(pl.Float64).to_numpy()
    if column.gaps:
        out[:, -1] = series.is_null().to_numpy()


def date_waves(block: NDArray[np.float64], column: Column) -> None:
    """Of a date's numbers (n, k), writes the sines and cosines of the days in the first."""
    for i, part in enumerate(column.parts):
        angle = 2 * np.pi * (block[:, 0] % PERIODS[part]) / PERIODS[part]
        block[:, 1 + 2 * i], block[:, 2 + 2 * i] = np.sin(angle), np.cos(angle)


def shifted(series: pl.Series, by: int) -> pl.Series:
    """Int128, exact for whole numbers of any type."""
    wide = pl.lit(series).cast(pl.Int128, strict=False)
    return pl.select(wide + pl.lit(by, dtype=pl.Int128)).to_series().alias(series.name)


def content_hash(columns: Mapping[str, pl.Series]) -> NDArray[np.uint64]:
    """(n,) one number for the values of each row, whatever the order of columns and the file."""
    total = np.zeros(len(next(iter(columns.values()))), np.uint64)
    for name, series in columns.items():
        if series.dtype == pl.String:
            words = series.fill_null(ABSENT)
            levels = words.unique()
            hashes = pl.Series([hash_of(word) for word in levels.to_list()], dtype=pl.UInt64)
            bits = words.replace_strict(levels, hashes, return_dtype=pl.UInt64).to_numpy()
        else:
            values = series.cast(pl.Int64) if series.dtype == pl.Datetime else series
            numbers = values.cast(pl.Float64).fill_null(float("nan")).to_numpy() + 0.0
            numbers[np.isnan(numbers)] = np.nan
            bits = numbers.view(np.uint64)
            if values.dtype == pl.Int64:  # exact where float64 is not
                low = values.fill_null(0).to_numpy().astype(np.uint64) & np.uint64(0x7FF)
                bits = bits ^ np.where(np.abs(numbers) > 2.0**53, low, np.uint64(0))
        total += mix(bits ^ np.uint64(hash_of(name)))
    return mix(total)


# ------------------------------------------------------------------ gaps

def with_fills(columns: Sequence[Column], x: NDArray[Any],
               train: NDArray[np.int64]) -> tuple[Column, ...]:
    """The columns with what stands in the place of a gap: the median, the most frequent word or
    truth value, of the train rows of ``x`` (n, d), in which gaps are NaN."""
    fills: dict[str, Any] = {}
    for column, place in places(columns):
        block = x[train, place]
        if column.kind == "category":
            fills[column.name] = column.levels[int(block.sum(axis=0).argmax())]
            continue
        present = block[~np.isnan(block[:, 0]), 0]
        middle = float(np.median(present)) if len(present) else 0.0
        fills[column.name] = (
            middle > 0.5 if column.kind == "boolean" else round(middle * DAY) if (
                column.kind == "date") else round(middle) + column.offset if column.offset
            else middle)
    return tuple(c.replace(fill=fills.get(c.name, c.fill)) for c in columns)


def fill_gaps(x: NDArray[Any], columns: Sequence[Column]) -> NDArray[Any]:
    """Rows (n, d) with each NaN replaced by what stands in its place."""
    if not np.isnan(x).any():
        return x
    x = x.copy()
    for column, place in places(columns):
        fill_block(x[:, place], column)
    return x


def fill_block(block: NDArray[Any], column: Column) -> None:
    """Replaces each NaN of a column's numbers (n, k) by what stands in its place."""
    np.copyto(block, _fill_row(column), where=np.isnan(block))


def fill_text(column: Column) -> str:
    """What stands in the place of a gap, as it is written in the file."""
    return str(_series(_fill_row(column), column)[0])


def _fill_row(column: Column) -> NDArray[np.float64]:
    exact = column.kind == "date" or column.offset
    series = pl.Series([column.fill], dtype=pl.String if column.kind == "category" else (
        pl.Int128 if exact else pl.Float64))
    row = np.zeros((1, len(column.features)))
    features(series, column, row)
    return row


# ------------------------------------------------------------------ kinds of columns

def mixed_rows(x: NDArray[Any], columns: Sequence[Column]) -> MixedRows:
    """Rows (n, d) in data units by kinds of columns; gaps are NaN, or what a column's own number or
    word for them says."""
    numbers, codes, sizes, names = [], [], [], ([], [])  # type: ignore[var-annotated]
    for column, place in places(columns):
        block = np.asarray(x[:, place], np.float64)
        if column.kind == "category":
            size = len(column.categories)
            code = np.where(block[:, :size].any(1), block[:, :size].argmax(1), size)
            gap = np.isnan(block).any(1) | (block[:, size:] > 0.5).any(1)
        else:
            gap = np.isnan(block[:, 0]) | (column.gaps and block[:, -1] > 0.5)
            code, size = (block[:, 0] > 0.5).astype(np.int64), 2
        words = column.kind in ("category", "boolean")
        names[words].append(column.name)
        if words:
            codes.append(np.where(gap, GAP, code))
            sizes.append(size)
        else:
            numbers.append(np.where(gap, np.nan, block[:, 0]))
    n = len(x)
    return MixedRows(np.stack(numbers, 1) if numbers else np.zeros((n, 0)),
                     np.stack(codes, 1) if codes else np.zeros((n, 0), np.int64),
                     tuple(sizes), (*names[0], *names[1]))


def feature_rows(rows: MixedRows, columns: Sequence[Column], *, fill: bool) -> NDArray[np.float64]:
    """The inverse of :func:`mixed_rows`: (n, d) in data units. A gap is filled, and said by the
    column's own number or word where it has one; without ``fill`` it is NaN where it has none."""
    x = np.zeros((len(rows), sum(len(c.features) for c in columns if c.learnt)))
    place_of = {name: i for i, name in enumerate(rows.names)}
    p = rows.numbers.shape[1]
    for column, place in places(columns):
        block, i = x[:, place], place_of[column.name]
        values = rows.numbers[:, i] if i < p else rows.codes[:, i - p]
        gap = np.isnan(values) if i < p else values == GAP
        if column.kind == "category":
            usual = ~gap & (values < len(column.categories))
            block[usual, values[usual]] = 1.0
            if column.gaps:
                block[gap, -1] = 1.0
        else:
            block[:, 0] = np.where(gap, np.nan, values)
            date_waves(block, column)
            if column.gaps:
                block[:, -1] = gap
        if gap.any() and (fill or column.gaps):
            if column.kind != "category":
                fill_block(block, column)
            elif not column.gaps:
                block[gap] = _fill_row(column)
        elif gap.any():
            block[gap] = np.nan
    return x


# ------------------------------------------------------------------ back to values

def frame_of(values: NDArray[Any], space: Table) -> pl.DataFrame:
    """Rows (n, d) in data units as the training table had them: its columns and types.

    Of a category the word with the greatest number; null where a value is likelier missing than
    not. Whole numbers are rounded and kept within their type's range.
    """
    values = np.asarray(values, np.float64)
    return pl.DataFrame([_series(values[:, place], column)
                         for column, place in places(space.fields)])


def _series(block: NDArray[np.float64], column: Column) -> pl.Series:
    if column.kind == "category":
        words = np.array([None if w == ABSENT else w for w in column.levels], object)
        return pl.Series(column.name, words[block.argmax(axis=1)].tolist(), dtype=pl.String)
    dtype, numbers = getattr(pl, column.dtype.partition("(")[0]), block[:, 0]
    if column.kind == "boolean":
        series = pl.Series(numbers > 0.5)
    elif column.kind == "date":
        seconds = np.rint(np.clip(numbers, -7e5, 3e6) * 86_400).astype(np.int64)
        if dtype == pl.Time:
            series = pl.Series(seconds % 86_400 * 10**9).cast(pl.Time)
        else:
            series = pl.Series(seconds * 10**6).cast(pl.Datetime("us"))
            series = series.dt.round("1d").cast(pl.Date) if dtype == pl.Date else series
    elif column.kind == "integer":
        series = shifted(pl.Series(np.rint(numbers)), column.offset)
        if dtype.is_integer():
            series = series.clip(*pl.select(low=dtype.min(), high=dtype.max()).row(0))
        series = series.cast(dtype if dtype.is_integer() else pl.Int64).cast(dtype)
    else:
        numbers = numbers if column.decimals is None else numbers.round(column.decimals)
        series = pl.Series(numbers).cast(dtype if dtype.is_float() else pl.Float64)
    if column.gaps:
        series = series.set(pl.Series(block[:, -1] > 0.5), None)
    return series.alias(column.name)
