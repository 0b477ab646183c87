"""Tables as data.

Columns of numbers, truth values, dates and words become numbers as
:class:`latlas.core.space.Column` says. What a column is, and what stands in the place of a gap, is
decided on the training table and kept in the run; every later table is brought into the same
columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import ABSENT, OTHER, Column, Table
from latlas.data.dataset import Dataset, Rows, Source, encode_labels, make, moments
from latlas.data.frames import Frame, read_frame
from latlas.data.text import HowToRead

if TYPE_CHECKING:
    from polars import DataFrame, Series

MOST_LEVELS = 50
LEAST_ROWS = 3
USUAL_LABELS = ("label", "class", "target")
#: distinct numbers that are kinds of their own; more are cut at their quartiles
MOST_KINDS = 20


@dataclass(frozen=True)
class TableOptions(HowToRead):
    """How a table is read, and what its columns are for.

    Attributes:
        label: the label's column; by default one called label, class or target; ``none`` for none.
        drop: columns to leave out, separated by commas.
        group: a column whose equal values mark related rows, which stay in one split.
        id: columns that name rows, separated by commas: carried to the output, never learnt.
        dates: ``drop`` leaves dates out; ``dmy`` or ``mdy`` says which number of 3/4/2020 is the
            day.
    """

    label: str | None = None
    drop: str | None = None
    group: str | None = None
    id: str | None = None
    dates: str | None = None


def open_table(source: Any, *, how: TableOptions, name: str = "") -> Source:
    """A table from a path, a binary stream, or a data frame of any library."""
    from latlas.data import columns

    name = name or (str(source) if isinstance(source, Path) else "table")
    if how.dates not in (None, "drop", "dmy", "mdy"):
        raise DataError(f"{name}: {unknown('dates', how.dates, ['drop', 'dmy', 'mdy'])}")
    frame = read_frame(source, name, how)
    label = _usual_label(frame.data) if how.label is None else how.label
    drop, ids = ([part.strip() for part in (text or "").split(",") if part.strip()]
                 for text in (how.drop, how.id))
    result = columns.interpret(frame, name, label=None if label == "none" else label, drop=drop,
                               group=how.group, ids=ids, dates=how.dates)
    notes, problems = result.notes, result.problems
    if how.label is None and label != "none":
        notes.append(f"column {label} is the label; {say_option('label', 'none')} keeps it as a "
                     "column")
    if not problems and not any(c.learnt for c in result.columns):
        problems.append("no columns are left to learn from")
    if len(frame.data) < LEAST_ROWS:
        problems.append(f"{len(frame.data)} rows are too few to learn from; give {LEAST_ROWS} and "
                        "more")
    # what is taken for x0, x1, … of the file is of no interest here
    data = numbers_of(replace(frame, named=True, notes=()),
                      [c for c in result.columns if not problems or not c.learnt], name, fill=False)
    data = replace(data, space=data.space.replace(fields=tuple(result.columns)))
    notes += [f"column {c.name}: {frame.data[c.name].null_count():,} missing, filled with train's "
              "median" for c in result.columns if c.gaps and c.kind != "category" and not problems]
    return replace(make(Path(name).stem, data, notes=tuple(notes)), problems=tuple(problems),
                   frame=frame)


def _usual_label(table: DataFrame) -> str:
    """The column that is the label where nobody says so; ``none`` if no column can be."""
    usual = [column for column in table if column.name.lower() in USUAL_LABELS]
    if len(usual) != 1 or usual[0].null_count() or usual[0].n_unique() > MOST_LEVELS:
        return "none"
    real = usual[0].dtype.is_float() and (usual[0] != usual[0].round()).any()
    return "none" if real else usual[0].name


def codes_of(column: Series, where: str, rows: Any = slice(None)) -> tuple[Rows, tuple[str, ...]]:
    """Class codes of some rows of a column, all of which must have a value."""
    if column.null_count():
        raise DataError(f"{where} has {column.null_count():,} missing values; fill them or choose "
                        "another label")
    whole = column.cast(int, strict=False)
    if whole.cast(str).equals(column.cast(str)):  # 10 comes after 9
        column = whole
    values = column.to_numpy() if column.dtype.is_numeric() else np.array(
        column.cast(str).to_list())
    return encode_labels(values[rows], where)


def as_frame(columns: dict[str, Any]) -> DataFrame:
    """Arrays or lists of one value per row, by the names of their columns."""
    return read_frame(columns, "the batch").data


def in_columns(source: Any, space: Table, name: str) -> Dataset:
    """A table, or rows in memory, in the columns of a run.

    Args:
        source: a Source or Dataset of a table, a :class:`Frame`, a data frame of any library, or an
            array (n, d) of its columns or of the numbers that stand for them.

    Raises:
        DataError: columns that are missing, values that do not fit; all in one line.
    """
    from latlas.data.values import frame_of

    if isinstance(source, Source):
        source, name = source.frame or source.base, source.name
    if isinstance(source, Dataset):
        data, mine = source, source.space
        if not isinstance(mine, Table):
            raise DataError(f"{name} holds {mine.words}, the run's data are {space.words}")
        if mine.fields != space.fields:
            table = frame_of(cast(Any, source.take("x")), mine)
            named = table.columns != [f"x{i}" for i in range(table.width)]
            data = numbers_of(Frame(table, named=named), space.fields, name)
            data = replace(data, space=mine, **{k: cast(Any, source.take(k)) for k in (
                "label", "group", "names")})
    else:
        if isinstance(source, np.ndarray) and source.shape[1:] == space.shape and (
                source.shape[1] not in (len(space.fields), sum(c.learnt for c in space.fields))):
            return Dataset(source.astype(np.float64), space)
        frame = source if isinstance(source, Frame) else read_frame(source, name)
        data = numbers_of(frame, space.fields, name)
    return replace(data, space=space, label=_recoded(data.label, data.space.classes, space, name))


def numbers_of(frame: Frame, columns: Sequence[Column], name: str, *, fill: bool = True,
               lenient: bool = False) -> Dataset:
    """Brings a frame into columns that were interpreted before.

    Columns are matched by name; those of a frame without names by position, which is a note, as are
    columns that are ignored. Without ``fill`` numbers that are missing stay NaN. ``lenient`` takes
    columns that are missing and values that do not fit for gaps, which is a note, and words that
    training had not.

    Raises:
        DataError: columns that are missing, values that do not fit, words that training had not;
            all of them in one line.
    """
    from latlas.data import values

    data, notes, problems = frame.data, list(frame.notes), list[str]()
    if not frame.named:
        data = _by_position(data, columns, name, notes)
    learnt = [c for c in columns if c.learnt]
    data = _with_all(data, learnt, name, notes, lenient)
    extra = [c for c in data.columns if c not in {c.name for c in columns}]
    if extra:
        notes.append(f"{len(extra)} columns that the run does not know are ignored "
                     f"({_some(extra)})")
    read: dict[str, Series] = {}
    for column in learnt:
        if frame.decimal and column.kind in ("real", "integer"):
            column = column.replace(form=frame.decimal + column.form[1:])
        read[column.name] = values.canonical(data[column.name], column)
        misfits = _misfits(data[column.name], read[column.name], column, fill)
        infinite = read[column.name].dtype.is_float() and read[column.name].is_infinite().any()
        if lenient and not infinite:
            taken = "words of their own" if column.kind == "category" else "gaps"
            notes += [f"{misfit}; they are taken for {taken}" for misfit in misfits]
        else:
            problems += misfits
    if problems:
        raise DataError(f"{name}: " + "; ".join(problems))
    x = np.zeros((len(data), sum(len(c.features) for c in learnt)))
    for column, place in values.places(learnt):
        series, block = read[column.name], x[:, place]
        values.features(series, column, block, fill=fill)
        if fill and series.null_count():
            values.fill_block(block, column)
            if not column.gaps:
                notes.append(f"column {column.name}: {series.null_count():,} gaps, of which "
                             f"training had none, are filled with {values.fill_text(column)}")
    own = {c.kind: values.as_words(data[c.name]) for c in reversed(columns)
           if c.kind in ("label", "id", "group") and c.name in data.columns}
    codes, classes = (None, ()) if "label" not in own else codes_of(
        own["label"], f"{name}: label column {own['label'].name}")
    return Dataset(
        x, Table(fields=tuple(columns), classes=classes), codes,
        group=values.content_hash({"": own["group"]}).view(np.int64) if "group" in own else None,
        names=own["id"].fill_null("").to_numpy().astype(str) if "id" in own else None,
        key=values.content_hash(read) if read else np.zeros(len(data), np.uint64),
        notes=tuple(notes))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + ", …" * (len(names) > 5)


def _with_all(data: DataFrame, learnt: Sequence[Column], name: str, notes: list[str],
              lenient: bool) -> DataFrame:
    """The frame with every column that was learnt; columns that are missing are refused, or gaps
    if ``lenient`` and some are there."""
    absent = [c.name for c in learnt if c.name not in data.columns]
    if not absent:
        return data
    if lenient and len(absent) < len(learnt):
        notes.append(f"{name} has no column {_some([*map(repr, absent)])}; all its values are "
                     "taken for gaps")
        return data.with_columns(**dict.fromkeys(absent))
    bare = {re.sub(r"[\W_]", "", c).lower(): c for c in data.columns}
    alike = [(bare.get(re.sub(r"[\W_]", "", c).lower()), c) for c in absent]
    hints = [f"; rename {old!r} to {new!r}" for old, new in alike if old]
    raise DataError(f"{name} has no column {_some([*map(repr, absent)])}, which the run was "
                    f"trained on{''.join(hints[:3])}")


def _by_position(data: DataFrame, columns: Sequence[Column], name: str,
                 notes: list[str]) -> DataFrame:
    every, learnt = [c.name for c in columns], [c.name for c in columns if c.learnt]
    if data.width not in (len(every), len(learnt)):
        raise DataError(f"{name} has {data.width} columns without names, the run learnt "
                        f"{len(learnt)} ({_some(learnt)})")
    names = every if data.width == len(every) else learnt
    if names != data.columns:
        notes.append(f"columns without names are taken by their position: {_some(names)}")
    return data.rename(dict(zip(data.columns, names, strict=True)))


def _misfits(series: Series, read: Series, column: Column, fill: bool) -> Iterator[str]:
    """What of a column's values, as in the file and as read, a run cannot take."""
    lost, gaps = read.null_count() - series.null_count(), read.null_count()
    if lost:
        bad = series.filter(read.is_null() & series.is_not_null())
        what = {"date": "dates", "boolean": "true or false"}.get(column.kind, "numbers")
        yield f"column {column.name}: {lost:,} values are no {what} (as {str(bad[0])!r})"
    if column.kind == "category" and OTHER not in column.categories:
        strange = read.filter(~read.is_in(list(column.categories)))
        if len(strange):
            yield (f"column {column.name} holds {strange[0]!r}, which the run has not seen "
                   f"({len(strange):,} rows); it knows {', '.join(column.categories)}")
    elif read.dtype.is_float() and read.is_infinite().any():
        yield f"column {column.name} holds infinite numbers; repair or remove them"
    if fill and column.fill is None and gaps:
        yield f"column {column.name}: {gaps:,} gaps, for which the run has no value"


def _recoded(label: Any, classes: Sequence[str], space: Table, name: str) -> Rows | None:
    """Labels as the run's codes; ``None`` where there are none, or the run knows no classes."""
    if label is None or not space.classes:
        return None
    for word in (classes[code] for code in np.unique(label)):
        if word not in space.classes:
            raise DataError(f"{name}: {unknown('class', word, space.classes)}")
    own = {word: code for code, word in enumerate(space.classes)}
    return np.array([own.get(word, -1) for word in classes], np.int64)[label]


def described(source: Source) -> list[dict[str, Any]]:
    """Of each column of a table its name and kind, how many values are missing, how many are
    distinct (``None`` where the rows are not at hand), mean and standard deviation of numbers."""
    from latlas.data.values import places

    space, frame, x = source.base.space, source.frame, source.base.x
    if not isinstance(space, Table):
        return []
    start = {column.name: place.start for column, place in places(space.fields)}
    rows: list[dict[str, Any]] = [
        dict.fromkeys(("name", "kind", "missing", "distinct", "mean", "sd")) | {
            "name": c.name, "kind": c.kind} for c in space.fields]
    for column, row in zip(space.fields, rows, strict=True):
        if frame is not None:
            series = frame.data[column.name]
            row |= {"missing": series.null_count(), "distinct": series.drop_nulls().n_unique()}
        if column.kind in ("real", "integer") and not source.problems:
            values = np.asarray(x[:, start[column.name]], np.float64)
            present = values[~np.isnan(values)]
            row |= {"missing": len(values) - len(present)}
            if len(present):
                mean, sd = map(float, moments(present))
                row |= {"mean": mean + column.offset, "sd": sd}
    return rows


def as_read(x: NDArray[Any], space: Any) -> dict[str, NDArray[Any]]:
    """Rows (n, d) in data units as the columns the file had, of its types; ``None`` for gaps."""
    from latlas.data.values import frame_of

    return {s.name: np.array(s.to_list(), object) if s.null_count() else s.to_numpy()
            for s in frame_of(x, space)}


def kinds_of(values: Any, where: str) -> tuple[Rows, tuple[str, ...]]:
    """Codes and names like :func:`latlas.data.dataset.encode_labels`; of more than 20 numbers four,
    by their quartiles. Gaps are a kind of their own, the last.

    >>> kinds_of(np.arange(100.0), "column a")[1]
    ('to 24.8', '24.8 to 49.5', '49.5 to 74.2', 'above 74.2')
    >>> kinds_of(np.array(["b", None, "a"]), "column a")[1]
    ('a', 'b', '(missing)')
    """
    array = np.asarray(values)
    gap = np.array([v is None or v != v for v in array.tolist()], bool)
    if gap.all():
        raise DataError(f"{where} holds nothing but gaps: it makes no groups")
    present = np.array(array[~gap].tolist()) if gap.any() else array
    numbers, levels = present.dtype.kind in "iuf", np.unique(present)
    if numbers and not np.isfinite(present).all():
        raise DataError(f"{where} holds infinite numbers: it makes no groups; choose another")
    if numbers and len(levels) > MOST_KINDS:
        levels = np.quantile(present, [0.25, 0.5, 0.75])
        low, middle, high = (f"{v:.3g}" for v in levels)
        names = [f"to {low}", f"{low} to {middle}", f"{middle} to {high}", f"above {high}"]
    else:
        names = [f"{v:g}" if numbers else str(v) for v in levels]
    codes = np.full(len(array), len(names))
    codes[~gap] = np.searchsorted(levels, present)
    return codes, (*names, ABSENT) if gap.any() else tuple(names)
