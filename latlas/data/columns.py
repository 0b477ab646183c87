"""What each column of a table means: decided once, at training, and then part of the run.

``interpret`` decides for every column of a frame what it is (:class:`latlas.core.space.Column`);
``numbers_of`` brings any later frame into these columns, and ``frame_of`` writes numbers as
columns of the training table's own types. Between them a column is a polars Series of one of five
types: Float64, Int64, Boolean, Datetime in microseconds, or String.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import ABSENT, OTHER, Column, Table
from latlas.data.frames import NUMBER, UNNAMED, Frame
from latlas.data.splits import hash_of, mix

MOST_LEVELS = 50
#: rows from which words that hardly repeat are free text
FEW_ROWS = 10
DAY = 86_400_000_000  # microseconds
SECOND = 1_000_000
YEAR, WEEK = 365.2425, 7.0
ID_NAME = re.compile(r"(.*[_\s.-])?(id|uuid|guid|index|row[_\s]?(number|id))|.*[a-z]I[Dd]|Id|ID|#",
                     re.IGNORECASE)
DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y",
                "%m-%d-%Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%b %d, %Y", "%B %d, %Y")
TIME_FORMATS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S%.f")
ORDERS = {"dmy": ("%d/%m/%Y", "%d-%m-%Y"), "mdy": ("%m/%d/%Y", "%m-%d-%Y")}
SYMBOLS = r"[$€£¥₹%\s\u00a0\u202f'’]"
TRUTH = {"true": True, "false": False, "t": True, "f": False}
RANGE = r"^\d+\s*[-–]\s*\d+$"


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
    columns, known = [], frame.data.columns
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
        columns.append(_interpret(frame, series, role, decimal, dates, result))
    result.columns = columns
    return result


def _interpret(frame: Frame, series: pl.Series, role: str, decimal: str | None,
               dates: str | None, result: Interpretation) -> Column:
    name, dtype = series.name, str(series.dtype)
    leave_out = f"leave it out with {say_option('drop', name)}"
    if role in ("dropped", "id", "group"):
        return Column(name, role, "String" if frame.text else dtype)  # type: ignore[arg-type]
    present = series.drop_nulls()
    if not len(present):
        if role != "label":
            result.problems.append(f"column {name} is empty; {leave_out}")
        return Column(name, "label" if role else "dropped", dtype)
    if role == "label":
        return Column(name, "label", "String" if frame.text else dtype)
    if series.dtype == pl.String:
        column = _interpret_words(frame, series, decimal, dates, result)
    elif series.dtype == pl.Boolean:
        column = Column(name, "boolean", dtype)
    elif series.dtype.is_integer():
        column = Column(name, "integer", dtype)
    elif series.dtype.is_numeric():
        column = Column(name, "real", dtype)
    elif series.dtype in (pl.Date, pl.Datetime):
        column = Column(name, "date", dtype)
    elif series.dtype in (pl.Time, pl.Duration):
        column = Column(name, "integer", dtype)
    elif series.dtype in (pl.Categorical, pl.Enum):
        column = _category(series.cast(pl.String), dtype, result)
    else:
        result.problems.append(f"column {name} holds {dtype}, which is neither numbers, words nor "
                               f"dates; {leave_out}")
        return Column(name, "dropped", dtype)
    if column.kind == "date" and dates == "drop":
        return column.replace(kind="dropped")
    if column.kind in ("integer", "category", "text") and _names_rows(series, name):
        result.notes.append(f"column {name} names rows and is not learnt; "
                            f"it is carried to what is written")
        return column.replace(kind="id", categories=())
    if column.kind == "real" and np.isinf(canonical(series, column).to_numpy()).any():
        result.problems.append(f"column {name} holds infinite numbers; repair it or {leave_out}")
    if column.kind == "date":
        column = _date_parts(canonical(series, column), column)
    if column.kind == "integer":
        column = column.replace(offset=_offset(canonical(series, column)))
    gaps = series.null_count()
    if column.kind == "category":
        levels = column.categories
        return column.replace(gaps=bool(gaps), categories=levels)
    return column.replace(gaps=bool(gaps) and column.kind not in ("id", "text", "dropped"))


def _interpret_words(frame: Frame, series: pl.Series, decimal: str | None, dates: str | None,
                     result: Interpretation) -> Column:
    """Text as numbers, truth values, dates or words."""
    name, present = series.name, series.drop_nulls().unique(maintain_order=True)
    codes = present.filter(present.str.contains(r"^0\d+$"))
    numbers = present.cast(pl.Float64, strict=False)
    if not numbers.null_count() and not len(codes) and decimal != ",":
        whole = not present.cast(pl.Int64, strict=False).null_count()
        return _number(name, present, whole)
    if not numbers.null_count() and len(codes):
        result.notes.append(f"column {name} is read as words, since {codes[0]!r} begins with a "
                            "zero")
    elif frame.text or _share(present, _LOOKS_NUMERIC) > 0.5:
        for form in dict.fromkeys(("", decimal or ".")) if decimal != "," else (",",):
            numbers = to_numbers(present, form)
            if numbers.null_count():
                continue
            if form == "." and decimal is None and _ambiguous(present):
                result.problems.append(
                    f"column {name}: {present.filter(present.str.contains(',', literal=True))[0]!r}"
                    f" is a thousand or a fraction; say which mark stands before decimals with "
                    f"{say_option('decimal', '.')} or {say_option('decimal', ',')}")
            elif form:
                example = present.filter(~present.str.contains(f"^{NUMBER}$"))
                if len(example):
                    result.notes.append(f"column {name}: {example[0]!r} is read as "
                                        f"{to_numbers(example, form)[0]:.12g}")
            fraction = re.escape(form or ",") + r"\d+\D*$"
            largest: Any = numbers.abs().max()
            whole = bool((numbers == numbers.round()).all() and largest < 2.0 ** 63
                         and not present.str.contains(fraction).any())
            return _number(name, present, whole, form)
    lower = present.str.to_lowercase()
    if lower.is_in(list(TRUTH)).all() and lower.n_unique() <= 2 and (
            lower.str.len_chars().max() != 1 or lower.n_unique() == 2):
        return Column(name, "boolean", "Boolean")
    orders = [order for order in ORDERS if dates in (None, "drop", order)]
    formats = _date_formats(present)
    both = {f for f in formats if any(f.startswith(x) for o in ORDERS.values() for x in o)}
    if len(both) > 1 and len(orders) > 1 and len({tuple(present.str.to_datetime(
            f, strict=False).to_list()[:2000]) for f in both}) > 1:
        result.problems.append(f"column {name}: {present[0]!r} has its day first or its month "
                               f"first; say {say_option('dates', 'dmy')} or "
                               f"{say_option('dates', 'mdy')}")
        return Column(name, "dropped", "String")
    formats = [f for f in formats if f not in both or any(
        f.startswith(x) for o in orders for x in ORDERS[o])]
    if formats:
        timed = "%H" in formats[0]
        return Column(name, "date", "Datetime(time_unit='us', time_zone=None)" if timed else "Date",
                      form=formats[0])
    return _category(series, "String", result)


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
    numeric = 0.0 if codes else counts.to_series(1).filter(looks_numeric).sum() / count
    others = sorted(words.filter(~looks_numeric).to_list()) or [words[0]]
    if numeric >= 0.5 and len(levels) > MOST_LEVELS:
        result.problems.append(
            f"column {name}: {numeric:.0%} of its values look like numbers, others do not "
            f"({', '.join(map(repr, others[:3]))}); say what is a gap with "
            f"{say_option('missing', 'WORD')}, or leave it out with {say_option('drop', name)}")
        return Column(name, "dropped", dtype)
    if 0.5 <= numeric < 1:
        result.notes.append(f"column {name} is read as words, since {others[0]!r} is no number; "
                            f"{say_option('missing', others[0])} makes that a gap")
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


def _date_formats(present: pl.Series) -> list[str]:
    sample = present[:1000].str.replace(r"T(\d)", " $1").str.replace(r"(Z|\+00:?00)$", "")
    if not _share(sample, r"\d") or not _share(sample, r"[-/. ]"):
        return []
    fit = []
    for date in DATE_FORMATS:
        for time in TIME_FORMATS:
            if not sample.str.to_datetime(date + time, strict=False).null_count():
                fit.append(date + time)
    return [f for f in fit if not to_dates(present, f).null_count()]


def _date_parts(dates: pl.Series, column: Column) -> Column:
    """A date is the number of days since 1970, and where the dates span it, its place in the
    year (two years and more), in the week (four weeks, on several days) and in the day."""
    present = dates.drop_nulls()
    days = present.cast(pl.Int64).to_numpy() / DAY
    parts = []
    if np.ptp(days) >= 2 * YEAR:
        parts.append("year")
    if np.ptp(days) >= 4 * WEEK and len(np.unique(np.floor(days) % 7)) > 1:
        parts.append("week")
    if len(np.unique(days % 1)) > 1:
        parts.append("day")
    return column.replace(parts=tuple(parts))


# ------------------------------------------------------------------ values

def to_numbers(words: pl.Series, form: str) -> pl.Series:
    """Text as Float64, null where it is no number.

    ``form`` is the mark before decimals of a column that has thousands, currencies or percent
    signs too; ``""`` of one whose numbers are plain.
    """
    plain = words.str.contains(f"^{NUMBER}$")
    if form == ",":
        plain = plain & ~words.str.contains(r"^[+-]?\d{1,3}(\.\d{3})+$")
    if plain.fill_null(True).all():
        return words.cast(pl.Float64, strict=False)
    bare = words.str.replace_all(SYMBOLS, "").str.replace(r"^\((.*)\)$", "-$1")
    thousands, decimal = (".", ",") if form == "," else (",", ".")
    grouped = bare.str.contains(
        rf"^[+-]?(\d{{1,3}}(\{thousands}\d{{3}})+|\d+)?(\{decimal}\d*)?([eE][+-]?\d+)?$")
    if form == "":  # a fraction written with a comma in a file of its own
        grouped = bare.str.contains(r"^[+-]?\d+,(\d{1,2}|\d{4,})$|^[+-]?0,\d+$")
        thousands, decimal = ".", ","
    cleaned = bare.str.replace_all(thousands, "", literal=True).str.replace(decimal, ".",
                                                                            literal=True)
    numbers = cleaned.cast(pl.Float64, strict=False)
    return pl.select(pl.when(plain).then(words.cast(pl.Float64, strict=False)).when(grouped).then(
        numbers).otherwise(None).alias(words.name)).to_series()


def to_dates(words: pl.Series, form: str) -> pl.Series:
    bare = words.str.replace(r"T(\d)", " $1").str.replace(r"(Z|\+00:?00)$", "")
    return bare.str.to_datetime(form, strict=False, time_unit="us")


def canonical(series: pl.Series, column: Column, problems: list[str] | None = None) -> pl.Series:
    """A column's values in the type of its kind; what does not fit is a problem with its count."""
    kind, text = column.kind, series.dtype == pl.String
    if kind in ("real", "integer"):
        if text:
            numbers = to_numbers(series, column.form)
            if kind == "integer":
                exact = series.str.replace_all(SYMBOLS, "").cast(pl.Int64, strict=False)
                integral = numbers.cast(pl.Int64, strict=False)
                whole = (integral.cast(pl.Float64) == numbers).fill_null(True)
                result = pl.select(pl.coalesce(exact, integral)).to_series() if (
                    whole.all()) else numbers
            else:
                result = numbers
        elif series.dtype in (pl.Time, pl.Duration):
            result = series.cast(pl.Int64)
        elif series.dtype.is_integer():
            largest: Any = series.max() or 0
            result = series.cast(pl.Int64 if largest < 2**63 else pl.Float64)
        else:
            result = series.cast(pl.Float64, strict=False) if (
                series.dtype.is_numeric() or series.dtype == pl.Boolean) else pl.Series(
                series.name, [None] * len(series), dtype=pl.Float64)
        if result.dtype == pl.Float64:
            result = result.fill_nan(None)
    elif kind == "boolean":
        if text:
            result = series.str.to_lowercase().replace_strict(
                {**TRUTH, "1": True, "0": False, "1.0": True, "0.0": False}, default=None,
                return_dtype=pl.Boolean)
        else:
            numeric = series.dtype == pl.Boolean or series.dtype.is_numeric()
            result = series.cast(pl.Boolean) if numeric else pl.Series(
                series.name, [None] * len(series), dtype=pl.Boolean)
    elif kind == "date":
        if text:
            result = to_dates(series, column.form or "%Y-%m-%d")
            if result.null_count() > series.null_count():
                for form in (*_date_formats(series.drop_nulls()),):
                    if not any(form.startswith(x) for o in ORDERS.values() for x in o):
                        result = to_dates(series, form)
                        break
        elif series.dtype in (pl.Date, pl.Datetime):
            zoned = getattr(series.dtype, "time_zone", None)
            plain = series.dt.replace_time_zone(None) if zoned else series
            result = plain.cast(pl.Datetime("us"))
        else:
            result = pl.Series(series.name, [None] * len(series), dtype=pl.Datetime("us"))
    else:
        result = _words(series)
    lost = result.null_count() - series.null_count()
    if lost and problems is not None:
        bad = series.filter(result.is_null() & series.is_not_null())
        what = {"date": "dates", "boolean": "true or false"}.get(kind, "numbers")
        problems.append(f"column {column.name}: {lost:,} values are no {what} (as {str(bad[0])!r})")
    return result.alias(column.name)


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
                        f"{', …' * (len(absent) > 5)}, which the run was trained on")
    extra = [c for c in data.columns if c not in {c.name for c in columns}]
    if extra:
        notes.append(f"{len(extra)} columns that the run does not know are ignored "
                     f"({', '.join(extra[:5])}{', …' * (len(extra) > 5)})")
    problems: list[str] = []
    values: dict[str, pl.Series] = {}
    x, start = np.zeros((len(data), sum(len(c.features) for c in learnt))), 0
    for column in learnt:
        form = frame.decimal if frame.decimal and column.kind in ("real", "integer") else None
        read = canonical(data[column.name], column.replace(form=form) if form else column,
                         problems)
        values[column.name] = read
        _check_values(read, column, problems)
        block = x[:, start:start + len(column.features)]
        start += len(column.features)
        gaps = read.null_count()
        if problems:
            continue
        features(read, column, block)
        if not fill or not gaps:
            continue
        if column.fill is None:
            problems.append(f"column {column.name}: {gaps:,} gaps, for which the run has no value")
            continue
        if column.kind != "category":
            block[read.is_null().to_numpy()] = filling(column)
        if not column.gaps:
            notes.append(f"column {column.name}: {gaps:,} gaps, of which training had none, are "
                         f"filled with {fill_text(column)}")
    if problems:
        raise DataError(f"{name}: " + "; ".join(problems))

    def words(kind: str) -> pl.Series | None:
        own = [c.name for c in columns if c.kind == kind and c.name in data.columns]
        return _words(data[own[0]]) if own else None

    ids, group = words("id"), words("group")
    return RowsRead(x, words("label"),
                    None if ids is None else ids.fill_null("").to_numpy().astype(str),
                    None if group is None else content_hash({"": group}).view(np.int64),
                    content_hash(values) if values else np.zeros(len(data), np.uint64),
                    tuple(notes))


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
            fill = {"boolean": middle > 0.5, "date": round(middle * DAY)}.get(column.kind, middle)
            if column.kind == "integer" and column.offset:
                fill = round(middle) + column.offset
        result.append(column.replace(fill=fill))
    return tuple(result)


def filling(column: Column) -> NDArray[np.float64]:
    """(k,) what stands in the place of a gap."""
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


def _check_values(read: pl.Series, column: Column, problems: list[str]) -> None:
    if column.kind == "category" and OTHER not in column.categories:
        strange = read.filter(~read.is_in(list(column.categories)) & read.is_not_null())
        if len(strange):
            problems.append(
                f"column {column.name} holds {strange[0]!r}, which the run has not seen "
                f"({len(strange):,} rows); it knows {', '.join(column.categories)}")
    elif read.dtype == pl.Float64 and read.is_infinite().any():
        problems.append(f"column {column.name} holds infinite numbers; repair or remove them")


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
