"""What each column of a table is: decided once, at training, and then part of the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import OTHER, PERIODS, Column
from latlas.data.frames import Frame
from latlas.data.text import NUMBER, UNNAMED
from latlas.data.values import DAY, TRUTH, canonical
from latlas.data.words import (
    MONTH_FORMATS,
    ORDERS,
    SYMBOLS,
    ZONE,
    date_formats,
    to_dates,
    to_numbers,
)

MOST_LEVELS = 50
#: rows from which words that hardly repeat are free text
FEW_ROWS = 10
#: the largest count; whole numbers that are levels, at most
MOST_COUNT, MOST_ORDINAL = 1000, 12
#: rows by which the mark before decimals is told
SAMPLE = 100_000
ID_NAME = re.compile(r"(.*[_\s.-])?(id|uuid|guid|index|row[_\s]?(number|id))|.*[a-z]I[Dd]|Id|ID|#",
                     re.IGNORECASE)
#: words of a last row that sums up the others
SUMS = ("total", "totals", "sum", "grand total", "gesamt", "summe", "average", "mean")
UNIT = r"^[+-]?[\d.,]*\d([eE][+-]?\d+)?\s*([\p{L}°][\p{L}°/²³]*)$"
LOOKS_NUMERIC = rf"^[+-]?\s*{SYMBOLS}*[+-]?[\d.,]*\d[\d.,]*([eE][+-]?\d+)?{SYMBOLS}*$"
LOOKS_DATED = r"^(\d{4}([-/.])\d{1,2}[-/.]\d{1,2}|\d{1,2}([-/.])\d{1,2}[-/.]\d{2,4})([ T]\d.*)?$"
#: what can only be a comma before decimals, and what can only be a point
COMMA = r"^[+-]?[$€£¥]?\s?(\d{1,3}(\.\d{3})+|\d*),(\d{1,2}|\d{4,})\s?[€%]?$|^[+-]?0,\d+$"
POINT = r"^[+-]?[$€£¥]?\s?(\d{1,3}(,\d{3})+|\d*)\.(\d{1,2}|\d{4,})\s?[€%]?$|^[+-]?0\.\d+$"


@dataclass
class Interpretation:
    """Columns, and what was decided that a person should know.

    Attributes:
        columns: in the file's order.
        notes: one line for each decision that is not plain.
        problems: one line for each column that cannot be read, with the option that solves it.
    """

    columns: list[Column]
    notes: list[str]
    problems: list[str]


def interpret(frame: Frame, name: str, *, label: str | None = None, drop: Sequence[str] = (),
              group: str | None = None, ids: Sequence[str] = (),
              dates: str | None = None) -> Interpretation:
    """What each column is.

    Args:
        label, group, ids: columns that are the label, say which rows are related, or name rows.
        drop: columns to leave out.
        dates: ``drop`` leaves dates out; ``dmy`` or ``mdy`` says which number of 3/4/2020 is the
            day.

    Raises:
        DataError: a name that no column has.
    """
    roles: dict[str, Any] = {}
    for role, option, names in (("id", "id", ids), ("group", "group", [group]),
                                ("label", "label", [label]), ("dropped", "drop", drop)):
        for column in filter(None, names):
            if column not in frame.data.columns:
                raise DataError(f"{name}: {say_option(option, column)}: "
                                + unknown("column", column, frame.data.columns))
            roles[column] = role
    result = Interpretation([], list(frame.notes), [])
    decimal = frame.decimal or (_decimal_mark(frame.data) if frame.text else None)
    for series in frame.data:
        dtype = "String" if frame.text else str(series.dtype)
        what = Column(series.name, roles.get(series.name, "dropped"), dtype)
        if series.name not in roles:
            try:
                what = _interpret(series, dtype, decimal, dates, result.notes)
            except DataError as error:
                result.problems.append(str(error))
        result.columns.append(what)
    _say_what_is_odd(frame.data, result)
    return result


def _decimal_mark(data: pl.DataFrame) -> str | None:
    """The mark before decimals by what only one of the two marks can mean; ``None``: not told."""
    comma = point = False
    for words in data.head(SAMPLE):
        plain = words.cast(pl.Float64, strict=False)
        if plain.null_count() == words.null_count():
            point = point or bool(words.str.contains(".", literal=True).any())
        else:
            comma = comma or bool(words.str.contains(COMMA).any())
            point = point or bool(words.str.contains(POINT).any())
    return None if comma == point else "," if comma else "."


def _say_what_is_odd(data: pl.DataFrame, result: Interpretation) -> None:
    """Columns that say nothing, and a last row that sums up the others."""
    if len(data) < FEW_ROWS:
        return
    same = [c.name for c in result.columns if c.learnt and (
        data[c.name][:FEW_ROWS].n_unique() == data[c.name].n_unique() == 1)]
    if same:
        some = f"{', '.join(same[:5])}{', …' * (len(same) > 5)}"
        result.notes.append(f"{len(same)} column{'s' * (len(same) > 1)} with one value in all rows "
                            f"({some}); {say_option('drop', ','.join(same[:5]))} leaves out what "
                            "tells nothing")
    last = [str(v).lower().rstrip(":") for v in data.row(-1) if v is not None]
    if any(word in SUMS for word in last):
        result.notes.append(f"the last row ({', '.join(last[:3])}, …) looks like a sum of the "
                            "others; remove it if it is")


def _interpret(series: pl.Series, dtype: str, decimal: str | None, dates: str | None,
               notes: list[str]) -> Column:
    """What one column is; DataError if that cannot be said."""
    name, kind = series.name, _kind_of(series.dtype)
    leave_out = f"leave it out with {say_option('drop', name)}"
    if series.null_count() == len(series):
        raise DataError(f"column {name} is empty; {leave_out}")
    if not kind:
        raise DataError(f"column {name} holds {series.dtype}, which is neither numbers, words nor "
                        f"dates; {leave_out}")
    if kind in ("integer", "category") and _names_rows(series):
        notes.append(f"column {name} names rows and is not learnt; it is carried to what is "
                     "written")
        return Column(name, "id", dtype)
    if getattr(series.dtype, "time_zone", None) not in (None, "UTC"):
        notes.append(f"column {name}: times with a zone are read in UTC")
    column = _of_words(series, dtype, decimal, dates, notes) if kind == "category" else (
        Column(name, kind, dtype))  # type: ignore[arg-type]
    if column.kind == "date" and dates == "drop" and column.dtype != "Time":
        return Column(name, "dropped", dtype)
    if not column.learnt:
        return column
    column, values = column.replace(gaps=bool(series.null_count())), canonical(series, column)
    if column.kind in ("real", "integer"):
        return _of_numbers(series, values, column, notes)
    return column.replace(parts=_date_parts(values)) if column.kind == "date" else column


def _kind_of(dtype: pl.DataType) -> str:
    """The kind that a type alone says; nothing for lists, bytes and the like."""
    kinds = {"boolean": dtype == pl.Boolean, "date": dtype in (pl.Date, pl.Datetime, pl.Time),
             "integer": dtype.is_integer() or dtype == pl.Duration, "real": dtype.is_numeric(),
             "category": dtype in (pl.String, pl.Categorical, pl.Enum)}
    return next((kind for kind, fits in kinds.items() if fits), "")


def _names_rows(series: pl.Series) -> bool:
    """A column without a name that counts rows, or one called id whose values are all different."""
    if series.name.startswith(UNNAMED):
        numbers = series.cast(pl.Int64, strict=False)
        return numbers.null_count() == 0 and bool((numbers.diff()[1:] == 1).all())
    return bool(ID_NAME.fullmatch(series.name)) and (
        series.drop_nulls().n_unique() == len(series) > 1)


def _of_numbers(series: pl.Series, values: Any, column: Column, notes: list[str]) -> Column:
    """Says what float64 does not tell apart, and a number far from all others that comes again and
    again, which may stand for a gap."""
    name, low, high = column.name, values.min(), values.max()
    largest = max(-low, high)
    if largest == float("inf"):
        raise DataError(f"column {name} holds infinite numbers; repair it or leave it out with "
                        f"{say_option('drop', name)}")
    if values.dtype == pl.Float64 and 2.0**53 < largest < 1e40:
        exact, distinct = series.n_unique(), values.n_unique()
        if distinct < exact:
            notes.append(f"column {name}: {exact:,} distinct values are {distinct:,} as float64, "
                         "whose digits do not reach")
    for extreme in (low, high) if len(values) >= FEW_ROWS else ():
        rest = values.filter(values != extreme)
        count = len(values) - values.null_count() - len(rest)
        if count >= max(3, len(values) / 1000) and rest[:100].n_unique() > 2 and (
                max(rest.min() - extreme, extreme - rest.max()) > rest.max() - rest.min()):
            word = series.filter(values == extreme)[0]
            notes.append(f"column {name}: {word} comes {count:,} times, far from all other values; "
                         f"if it stands for a gap, say {say_option('missing', word)}")
    large = column.kind == "integer" and largest > 2**53
    return column.replace(offset=int(values.median())) if large else column.replace(
        likelihood=_likelihood(values, column))


def _likelihood(values: Any, column: Column) -> Any:
    """What kind of numbers these are: 0 and 1; counts, which begin at 0 or 1 and spread at least as
    Poisson's nearly do; levels, few whole numbers side by side; else measurements."""
    low, high, mean = values.min(), values.max(), values.mean()
    if low == 0 and high == 1 and values.is_in([0, 1]).all():
        return "bernoulli"
    if column.kind != "integer" or high - low < 2 or len(values) < FEW_ROWS:
        return ""
    if low in (0, 1) and high <= MOST_COUNT and values.var() >= 0.8 * mean and (
            mean < MOST_COUNT / 20):
        return "count"
    return "ordinal" if values.n_unique() <= MOST_ORDINAL and high - low < 2 * MOST_ORDINAL else ""


def _date_parts(dates: pl.Series) -> tuple[str, ...]:
    """A date is the number of days since 1970, and where the dates span it, its place in the
    year (two years and more), in the week (four weeks, on several days) and in the day."""
    days = dates.drop_nulls().cast(pl.Int64).to_numpy() / DAY
    parts = {"year": np.ptp(days) >= 2 * PERIODS["year"],
             "week": np.ptp(days) >= 4 * PERIODS["week"] and len(np.unique(np.floor(days) % 7)) > 1,
             "day": len(np.unique(days % 1)) > 1}
    return tuple(part for part, spanned in parts.items() if spanned)


def _of_words(series: pl.Series, dtype: str, decimal: str | None, dates: str | None,
              notes: list[str]) -> Column:
    """Text as numbers, truth values, dates or words."""
    words, column = series.cast(pl.String), None
    if series.dtype == pl.String:
        present = words.drop_nulls().unique(maintain_order=True)
        column = _numbers(present, decimal, notes) or _dates(present, dates, notes)
        truth = present.str.to_lowercase().unique()
        if truth.is_in(list(TRUTH)).all() and len(truth) <= 2 and (
                len(truth) == 2 or len(truth[0]) > 1):  # a letter alone is none
            column = Column(series.name, "boolean", "Boolean")
    return column or _category(words, dtype, notes)


def _numbers(present: pl.Series, decimal: str | None, notes: list[str]) -> Column | None:
    """Words that are all numbers: plain ones, or with thousands, currencies, percent signs, or one
    unit behind all of them."""
    name, codes = present.name, present.filter(present.str.contains(r"^0\d+$"))
    if len(codes) and not present.cast(pl.Float64, strict=False).null_count():
        notes.append(f"column {name} is read as words, since {codes[0]!r} begins with a zero")
        return None
    units = present[:1000].str.extract(UNIT, 2).unique()
    unit = units[0] or "" if len(units) == 1 and len(present) > 1 else ""
    for mark in (",",) if decimal == "," else ("", decimal or ".", *"," * (decimal is None)):
        form = (mark or " " * bool(unit)) + unit
        if to_numbers(present[:1000], form).null_count():
            continue
        numbers = to_numbers(present, form)
        if numbers.null_count():
            continue
        odd = present.filter(~present.str.contains(f"^{NUMBER}$"))
        if mark == "." and decimal is None and _ambiguous(present):
            raise DataError(f"column {name}: {odd[0]!r} is a thousand or a fraction; say which "
                            f"mark stands before decimals with {say_option('decimal', '.')} or "
                            f"{say_option('decimal', ',')}")
        if form and len(odd):
            notes.append(f"column {name}: {odd[0]!r} is read as {to_numbers(odd, form)[0]:.12g}"
                         + f" (all are in {unit})" * bool(unit))
        exponents = present.str.contains(r"\d[eE][+-]?\d").any()
        decimals: Any = present.str.extract(
            rf"[{mark or '.,'}](\d+)\D*$").str.len_chars().max() or 0
        whole = numbers.cast(pl.Int64, strict=False).cast(pl.Float64).eq_missing(numbers).all()
        if whole and not exponents and not decimals:
            return Column(name, "integer", "Int64", form=form)
        return Column(name, "real", "Float64", form=form, decimals=None if exponents else decimals)
    return None


def _ambiguous(present: pl.Series) -> bool:
    """All that has a comma has it where a thousand and a fraction look the same."""
    commas = present.filter(present.str.contains(",", literal=True))
    return len(commas) > 0 and not commas.str.contains(
        r"[$€£¥₹%]|,\d{3},|,\d{3}\.\d|^[+-]?0,").any() and commas.str.contains(
            r"^[+-]?\d{1,3},\d{3}$").all()


def _dates(present: pl.Series, dates: str | None, notes: list[str]) -> Column | None:
    """Words that are all dates written in one way; two ways that differ are a problem."""
    name, formats = present.name, date_formats(present)
    ordered = {order: [f for f in formats if f.startswith(starts)]
               for order, starts in ORDERS.items()}
    if all(ordered.values()) and dates not in ORDERS:
        first, second = (present.str.to_datetime(fit[0], strict=False) for fit in ordered.values())
        if not first.equals(second):
            raise DataError(f"column {name}: {present[0]!r} has its day first or its month first; "
                            f"say {say_option('dates', 'dmy')} or {say_option('dates', 'mdy')}")
    formats = [f for f in formats if not any(
        f in fit for order, fit in ordered.items() if dates in ORDERS and order != dates)]
    if not formats:
        return None
    form, first = formats[0], to_dates(present[:1], formats[0])[0]
    clock, timed = form.startswith(("%H", "%I")), " %H" in form or " %I" in form
    if clock:
        notes.append(f"column {name}: {present[0]!r} is read as a time of day, in days, with the "
                     "sine and cosine of the day")
    if form in MONTH_FORMATS:
        notes.append(f"column {name}: {present[0]!r} is read as {first:%Y-%m-%d}")
    if (timed or clock) and present.str.contains(rf":{ZONE}").any():
        notes.append(f"column {name}: times with a zone are read in UTC")
    return Column(name, "date", "Time" if clock else "Datetime(time_unit='us', time_zone=None)" if (
        timed) else "Date", form=form)


def _category(series: pl.Series, dtype: str, notes: list[str]) -> Column:
    """Words as a category, or as text that is not learnt where they hardly repeat."""
    name, count = series.name, len(series) - series.null_count()
    words, counts = series.drop_nulls().value_counts(sort=False).sort(name).get_columns()
    numeric = words.str.contains(LOOKS_NUMERIC) & ~words.str.contains(
        r"\.\d+\.(\d{1,2}|\d{4,})$|\.(\d{1,2}|\d{4,})\.")
    codes, dated = words.str.contains(r"^0\d+$").any(), words.str.contains(LOOKS_DATED)
    share = 0.0 if codes else counts.filter(numeric).sum() / count
    if share >= 0.5 and len(words) > MOST_LEVELS:
        others = (words.filter(~numeric) if share < 1 else words)[:3]
        raise DataError(f"column {name}: {share:.0%} of its values look like numbers, but not "
                        f"{', '.join(map(repr, others))}; say what is a gap with "
                        f"{say_option('missing', 'WORD')}, or leave it out with "
                        f"{say_option('drop', name)}")
    dates = float(dated.mean() or 0)  # type: ignore[arg-type]
    for what, part, fits in (("number", share, numeric), ("date", dates, dated)):
        if 0.5 <= part < 1:
            odd = words.filter(~fits)[0]
            notes.append(f"column {name} is read as words, since {odd!r} is no {what}; "
                         f"{say_option('missing', odd)} makes that a gap")
    if count >= FEW_ROWS and len(words) > max(count / 2, 2):
        notes.append(f"column {name} is text ({len(words):,} distinct values in {count:,} rows) "
                     f"and is not learnt; {say_option('label', name)} makes it the label")
        return Column(name, "text", dtype)
    levels, bare = words.to_list(), words.str.strip_chars().str.to_lowercase()
    if len(twins := bare.filter(bare.is_duplicated())):
        alike = ", ".join(map(repr, words.filter(bare == twins[0])))
        notes.append(f"column {name}: {alike} differ in the case of letters, or in blanks, alone; "
                     "they are read as different words")
    if len(levels) > MOST_LEVELS:
        notes.append(f"column {name} has {len(levels):,} distinct words; the "
                     f"{len(levels) - MOST_LEVELS + 1:,} rarest share one column")
        frequent = counts.arg_sort(descending=True)  # words of one count stay in their order
        levels = [*words[frequent[:MOST_LEVELS - 1].sort()].to_list(), OTHER]
    return Column(name, "category", dtype, categories=tuple(levels))
