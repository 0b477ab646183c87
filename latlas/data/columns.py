"""What each column of a table is: decided once, at training, and then part of the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import OTHER, Column
from latlas.data.frames import Frame
from latlas.data.text import NUMBER, UNNAMED
from latlas.data.values import DAY, TRUTH, WEEK, YEAR, canonical
from latlas.data.words import ORDERS, SYMBOLS, ZONE, date_formats, to_numbers

MOST_LEVELS = 50
#: rows from which words that hardly repeat are free text
FEW_ROWS = 10
ID_NAME = re.compile(r"(.*[_\s.-])?(id|uuid|guid|index|row[_\s]?(number|id))|.*[a-z]I[Dd]|Id|ID|#",
                     re.IGNORECASE)
#: words of a last row that sums up the others
SUMS = ("total", "totals", "sum", "grand total", "gesamt", "summe", "average", "mean")


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
    known = frame.data.columns
    for option, names in (("label", [label] if label else []), ("drop", drop), ("id", ids),
                          ("group", [group] if group else [])):
        for column in names:
            if column not in known:
                raise DataError(f"{name}: {say_option(option, column)}: "
                                + unknown("column", column, known))
    result = Interpretation([], list(frame.notes), [])
    decimal = frame.decimal or (_decimal_mark(frame) if frame.text else None)
    for series in frame.data:
        role = next((role for role, names in (
            ("dropped", drop), ("label", (label,)), ("group", (group,)), ("id", ids))
            if series.name in names), "")
        result.columns.append(_interpret(frame, series, role, decimal, dates, result))
    _say_what_is_odd(frame, result)
    return result


def _say_what_is_odd(frame: Frame, result: Interpretation) -> None:
    """Columns that say nothing, and a last row that sums up the others."""
    n = len(frame.data)
    if n < FEW_ROWS:
        return
    same = [c.name for c in result.columns if c.learnt and frame.data[c.name].n_unique() == 1]
    if same:
        some = f"{', '.join(same[:5])}{', …' * (len(same) > 5)}"
        result.notes.append(f"{len(same)} column{'s' * (len(same) > 1)} with one value in all rows "
                            f"({some}); {say_option('drop', ','.join(same[:5]))} leaves out what "
                            "tells nothing")
    last = [str(v).lower().rstrip(":") for v in frame.data.row(n - 1) if v is not None]
    if any(word in SUMS for word in last):
        result.notes.append(f"the last row ({', '.join(last[:3])}, …) looks like a sum of the "
                            "others; remove it if it is")


def _interpret(frame: Frame, series: pl.Series, role: str, decimal: str | None,
               dates: str | None, result: Interpretation) -> Column:
    name, dtype = series.name, "String" if frame.text else str(series.dtype)
    leave_out = f"leave it out with {say_option('drop', name)}"
    if role:
        return Column(name, role, dtype)  # type: ignore[arg-type]
    kind = _kind_of(series.dtype)
    if series.null_count() == len(series) or not kind:
        what = "is empty" if series.null_count() == len(series) else (
            f"holds {series.dtype}, which is neither numbers, words nor dates")
        result.problems.append(f"column {name} {what}; {leave_out}")
        return Column(name, "dropped", dtype)
    if kind in ("integer", "category") and _names_rows(series, name):
        result.notes.append(f"column {name} names rows and is not learnt; it is carried to what is "
                            "written")
        return Column(name, "id", dtype)
    if getattr(series.dtype, "time_zone", None) not in (None, "UTC"):
        result.notes.append(f"column {name}: times with a zone are read in UTC")
    column = Column(name, kind, dtype)  # type: ignore[arg-type]
    if series.dtype == pl.String:
        column = _of_words(frame, series, decimal, dates, result)
    elif kind == "category":
        column = _category(series.cast(pl.String), dtype, result)
    if column.kind == "date" and dates == "drop":
        column = Column(name, "dropped", dtype)
    if not column.learnt:
        return column
    values = canonical(series, column)
    if column.kind == "real" and values.is_infinite().any():
        result.problems.append(f"column {name} holds infinite numbers; repair it or {leave_out}")
    _say_what_collapses(series, values, name, result)
    return column.replace(gaps=bool(series.null_count()),
                          parts=_date_parts(values) if column.kind == "date" else (),
                          offset=_offset(values) if column.kind == "integer" else 0)


def _say_what_collapses(series: pl.Series, values: pl.Series, name: str,
                        result: Interpretation) -> None:
    """Whole numbers beyond those of Int64 that float64 does not tell apart."""
    largest: Any = values.abs().max() if values.dtype == pl.Float64 else 0
    if largest is not None and 2.0 ** 53 < largest < 1e40:
        kept, distinct = values.n_unique(), series.n_unique()
        if kept < distinct:
            result.notes.append(f"column {name}: {distinct:,} distinct values are {kept:,} as "
                                "float64, whose digits do not reach")


def _kind_of(dtype: pl.DataType) -> str:
    """The kind that a type alone says; nothing for lists, bytes and the like."""
    kinds = {"boolean": dtype == pl.Boolean, "date": dtype in (pl.Date, pl.Datetime),
             "integer": dtype.is_integer() or dtype in (pl.Time, pl.Duration),
             "real": dtype.is_numeric(), "category": dtype in (pl.String, pl.Categorical, pl.Enum)}
    return next((kind for kind, fits in kinds.items() if fits), "")


def _of_words(frame: Frame, series: pl.Series, decimal: str | None, dates: str | None,
              result: Interpretation) -> Column:
    """Text as numbers, truth values, dates or words."""
    name, present = series.name, series.drop_nulls().unique(maintain_order=True)
    lower = present.str.to_lowercase()
    column = _numbers_of_words(frame, name, present, decimal, result)
    if column is None and lower.is_in(list(TRUTH)).all() and lower.n_unique() <= 2 and (
            lower.str.len_chars().max() != 1 or lower.n_unique() == 2):
        column = Column(name, "boolean", "Boolean")
    return column or _dates_of_words(name, present, dates, result) or _category(
        series, "String", result)


def _numbers_of_words(frame: Frame, name: str, present: pl.Series, decimal: str | None,
                      result: Interpretation) -> Column | None:
    """Words that are all numbers: plain ones, or with thousands, currencies and percent signs."""
    codes = present.filter(present.str.contains(r"^0\d+$"))
    plain = not present.cast(pl.Float64, strict=False).null_count()
    if plain and len(codes):
        result.notes.append(f"column {name} is read as words, since {codes[0]!r} begins with a "
                            "zero")
        return None
    if plain and decimal != ",":
        return _number(name, present, not present.cast(pl.Int64, strict=False).null_count())
    if not plain and not frame.text and _share(present, _LOOKS_NUMERIC) <= 0.5:
        return None
    for form in (",",) if decimal == "," else ("", decimal or ".", *"," * (decimal is None)):
        numbers = to_numbers(present, form)
        if numbers.null_count():
            continue
        odd = present.filter(~present.str.contains(f"^{NUMBER}$"))
        if form == "." and decimal is None and _ambiguous(present):
            result.problems.append(
                f"column {name}: {odd[0]!r} is a thousand or a fraction; say which mark stands "
                f"before decimals with {say_option('decimal', '.')} or "
                f"{say_option('decimal', ',')}")
        elif form and len(odd):
            result.notes.append(f"column {name}: {odd[0]!r} is read as "
                                f"{to_numbers(odd, form)[0]:.12g}")
        largest: Any = numbers.abs().max()
        whole = bool((numbers == numbers.round()).all() and largest < 2.0 ** 63
                     and not present.str.contains(re.escape(form or ",") + r"\d+\D*$").any())
        return _number(name, present, whole, form)
    return None


def _dates_of_words(name: str, present: pl.Series, dates: str | None,
                    result: Interpretation) -> Column | None:
    """Words that are all dates written in one way; two ways that differ are a problem."""
    formats = date_formats(present)
    ordered = {order: [f for f in formats if f.startswith(starts)]
               for order, starts in ORDERS.items()}
    if all(ordered.values()) and dates not in ORDERS:
        first, second = (present.str.to_datetime(found[0], strict=False)
                         for found in ordered.values())
        if not first.equals(second):
            result.problems.append(f"column {name}: {present[0]!r} has its day first or its month "
                                   f"first; say {say_option('dates', 'dmy')} or "
                                   f"{say_option('dates', 'mdy')}")
            return Column(name, "dropped", "String")
    other = [f for order, found in ordered.items() if dates in ORDERS and order != dates
             for f in found]
    formats = [f for f in formats if f not in other]
    if not formats:
        return None
    timed = " %H" in formats[0] or " %I" in formats[0]
    if timed and present.str.contains(rf":{ZONE}").any():
        result.notes.append(f"column {name}: times with a zone are read in UTC")
    return Column(name, "date", "Datetime(time_unit='us', time_zone=None)" if timed else "Date",
                  form=formats[0])


def _number(name: str, words: pl.Series, whole: bool, form: str = "") -> Column:
    """A column of numbers, with how many decimals its words have."""
    if whole:
        return Column(name, "integer", "Int64", form=form)
    most: Any = words.str.extract(rf"\{form or '.'}(\d+)\D*$").str.len_chars().max()
    exact = not words.str.contains(r"[eE]").any()
    return Column(name, "real", "Float64", form=form, decimals=(most or 0) if exact else None)


def _category(series: pl.Series, dtype: str, result: Interpretation) -> Column:
    """Words as a category, or as text that is not learnt where they hardly repeat."""
    name = series.name
    counts = series.drop_nulls().value_counts(sort=False)
    words, levels, count = counts.to_series(0), counts.rows(), len(series) - series.null_count()
    looks_numeric = words.str.contains(_LOOKS_NUMERIC)
    codes = words.str.contains(r"^0\d+$").any()
    looks_numeric &= ~words.str.contains(r"\.\d+\.(\d{1,2}|\d{4,})$|\.(\d{1,2}|\d{4,})\.")
    numeric = 0.0 if codes else counts.to_series(1).filter(looks_numeric).sum() / count
    others = sorted(words.filter(~looks_numeric).to_list()) or [words[0]]
    if numeric >= 0.5 and len(levels) > MOST_LEVELS:
        result.problems.append(
            f"column {name}: {numeric:.0%} of its values look like numbers, but not "
            f"{', '.join(map(repr, others[:3]))}; say what is a gap with "
            f"{say_option('missing', 'WORD')}, or leave it out with {say_option('drop', name)}")
        return Column(name, "dropped", dtype)
    if 0.5 <= numeric < 1:
        result.notes.append(f"column {name} is read as words, since {others[0]!r} is no number; "
                            f"{say_option('missing', others[0])} makes that a gap")
    dates = words.str.contains(_LOOKS_DATED)
    if dates.mean() >= 0.5 and not dates.all():  # type: ignore[operator]
        odd = words.filter(~dates).sort()[0]
        result.notes.append(f"column {name} is read as words, since {odd!r} is no date; "
                            f"{say_option('missing', odd)} makes that a gap")
    if count >= FEW_ROWS and len(levels) > max(count / 2, 2):
        result.notes.append(f"column {name} is text ({len(levels):,} distinct values in {count:,} "
                            f"rows) and is not learnt; {say_option('label', name)} makes it the "
                            "label")
        return Column(name, "text", dtype)
    if len(levels) > MOST_LEVELS:
        levels.sort(key=lambda level: (-level[1], level[0]))
        shared = len(levels) - (MOST_LEVELS - 1)
        result.notes.append(f"column {name} has {len(levels):,} distinct words; the "
                            f"{shared:,} rarest share one column")
        return Column(name, "category", dtype, categories=(
            *sorted(word for word, _ in levels[:MOST_LEVELS - 1]), OTHER))
    return Column(name, "category", dtype, categories=tuple(sorted(word for word, _ in levels)))


_LOOKS_NUMERIC = rf"^[+-]?\s*{SYMBOLS}*[+-]?[\d.,]*\d[\d.,]*([eE][+-]?\d+)?{SYMBOLS}*$"


_LOOKS_DATED = r"^(\d{4}([-/.])\d{1,2}[-/.]\d{1,2}|\d{1,2}([-/.])\d{1,2}[-/.]\d{2,4})([ T]\d.*)?$"


def _share(present: pl.Series, pattern: str) -> float:
    return float(present.str.contains(pattern).mean() or 0)  # type: ignore[arg-type]


def _ambiguous(present: pl.Series) -> bool:
    """All that has a comma has it where a thousand and a fraction look the same."""
    commas = present.filter(present.str.contains(",", literal=True))
    return len(commas) > 0 and not commas.str.contains(
        r"[$€£¥₹%]|,\d{3},|,\d{3}\.\d|^[+-]?0,").any() and commas.str.contains(
            r"^[+-]?\d{1,3},\d{3}$").all()


def _decimal_mark(frame: Frame) -> str | None:
    """The mark before decimals by what only one of the two marks can mean; ``None``: not told."""
    comma = point = False
    for words in frame.data:
        plain = words.cast(pl.Float64, strict=False)
        if plain.null_count() == words.null_count():
            point = point or bool(words.str.contains(".", literal=True).any())
            continue
        comma = comma or bool(words.str.contains(
            r"^[+-]?[$€£¥]?\s?(\d{1,3}(\.\d{3})+|\d*),(\d{1,2}|\d{4,})\s?[€%]?$|^[+-]?0,\d+$").any())
        point = point or bool(words.str.contains(
            r"^[+-]?[$€£¥]?\s?(\d{1,3}(,\d{3})+|\d*)\.(\d{1,2}|\d{4,})\s?[€%]?$|^[+-]?0\.\d+$").any())
    return "," if comma and not point else "." if point and not comma else None


def _names_rows(series: pl.Series, name: str) -> bool:
    """A column without a name that counts rows, or one called id whose values are all different."""
    if name.startswith(UNNAMED) and (series.dtype == pl.String or series.dtype.is_integer()):
        try:
            numbers = series.cast(pl.Int64)
        except pl.exceptions.PolarsError:
            return False
        return numbers.null_count() == 0 and bool((numbers.diff().drop_nulls() == 1).all())
    return bool(ID_NAME.fullmatch(name)) and series.null_count() == 0 and (
        series.n_unique() == len(series)) and len(series) > 1


def _offset(series: pl.Series) -> int:
    """What is subtracted from integers too large for float64 to tell apart."""
    low: Any = series.min()
    high: Any = series.max()
    middle: Any = series.median()
    return 0 if low is None or max(abs(low), abs(high)) <= 2**53 else int(middle)


def _date_parts(dates: pl.Series) -> tuple[str, ...]:
    """A date is the number of days since 1970, and where the dates span it, its place in the
    year (two years and more), in the week (four weeks, on several days) and in the day."""
    days = dates.drop_nulls().cast(pl.Int64).to_numpy() / DAY
    parts = {"year": np.ptp(days) >= 2 * YEAR,
             "week": np.ptp(days) >= 4 * WEEK and len(np.unique(np.floor(days) % 7)) > 1,
             "day": len(np.unique(days % 1)) > 1}
    return tuple(part for part, spanned in parts.items() if spanned)
