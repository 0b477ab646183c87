"""CSV, TSV and Parquet tables, by polars: as data, and as what says something about each image.

Numeric columns stay as they are. Columns of words, booleans or categories with at most 50 distinct
values become one column of 0 and 1 per value, ``NAME=VALUE``. A missing number becomes the median
of its column in the train split, with a column ``NAME (missing)`` of 0 and 1 beside it; a missing
word is a value of its own, ``NAME=(missing)``.
"""

from __future__ import annotations

import io
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import Space, Table
from latlas.data.dataset import Dataset, Rows, Source, encode_labels, make
from latlas.data.files import Files, splits_and_folders

if TYPE_CHECKING:
    from polars import DataFrame, Series

MOST_LEVELS = 50
#: rows from which words that hardly repeat are free text
TELLING = 10
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?")
ABSENT = "(missing)"
USUAL_LABELS = ("label", "class", "target")
#: distinct numbers that are kinds of their own; more are cut at their quartiles
MOST_KINDS = 20
CELEBA = "list_attr_celeba.txt"
PARTITION = "list_eval_partition.txt"
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
    table, notes = _read(path, name), list[str]()

    def pick(column: str, option: str) -> Series:
        if column not in table.columns:
            raise DataError(f"{name}: {option}={column}: "
                            + unknown("column", column, table.columns))
        return table[column]

    for part in (drop or "").split(","):
        table = table.drop(pick(part.strip(), "drop").name) if part.strip() else table
    codes, classes, related = None, tuple[str, ...](), None
    chosen = _usual_label(table) if label is None else label
    if chosen != "none":
        codes, classes = _codes(pick(chosen, "label"), f"{name}: label column {chosen}")
        table = table.drop(chosen)
        if label is None:
            notes.append(f"column {chosen} is the label; {say_option('label', 'none')} keeps it "
                         "as a column")
    if group is not None:
        values = pick(group, "group").cast(str).fill_null("").to_numpy().astype(str)
        related = np.unique(values, return_inverse=True)[1].astype(np.int64)
        table = table.drop(group)
    columns: Columns = {}
    for column in table:
        columns.update(_column(column, name))
        if column.dtype.is_numeric() and f"{column.name} {ABSENT}" in columns:
            count = int(columns[f"{column.name} {ABSENT}"].sum())
            notes.append(f"column {column.name}: {count:,} missing, filled with train's median")
    if not columns:
        raise DataError(f"{name} has no columns left to learn from")
    words = tuple(c.name for c in table if c.name not in columns)
    space = Table((len(columns),), columns=tuple(columns), classes=classes, categories=words)
    data = Dataset(np.stack(list(columns.values()), axis=1), space, codes, group=related)
    return make(Path(name).stem, data, notes=tuple(notes))


def _usual_label(table: DataFrame) -> str:
    """The column that is the label where nobody says so; ``none`` if no column can be."""
    usual = [c for c in table.columns if c.lower() in USUAL_LABELS]
    if len(usual) != 1 or table[usual[0]].n_unique() > MOST_LEVELS:
        return "none"
    try:
        _codes(table[usual[0]], "")
    except DataError:
        return "none"
    return usual[0]


def _read(path: Any, name: str) -> DataFrame:
    """A table; of text the separator, and whether the first line names the columns, are sniffed."""
    import polars as pl

    try:
        if isinstance(path, pl.DataFrame) or name.endswith(".parquet"):
            table = path if isinstance(path, pl.DataFrame) else pl.read_parquet(path)
        else:
            with path.open("rb") if isinstance(path, Path) else nullcontext(path) as stream:
                head = stream.readline().decode("utf-8", "replace").strip()
                stream.seek(0)
            separator = "\t" if name.endswith(".tsv") else max(",;\t|", key=head.count)
            try:
                bare = bool([float(part) for part in head.split(separator)])
            except ValueError:
                bare = False
            table = pl.read_csv(path, separator=separator, has_header=not bare,
                                null_values=list(MISSING), infer_schema_length=None)
            table = table.rename({c: f"x{i}" if bare else c.strip()
                                  for i, c in enumerate(table.columns)})
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name} cannot be read: {str(error).splitlines()[0]}") from None
    if not len(table) or not table.width:
        raise DataError(f"{name} has no rows")
    return table


def _codes(column: Series, where: str, rows: Any = slice(None)) -> tuple[Rows, tuple[str, ...]]:
    """Class codes of some rows of a column, all of which must have a value."""
    if column.null_count():
        raise DataError(f"{where} has {column.null_count():,} missing values; fill them or choose "
                        "another label")
    values = column.to_numpy() if column.dtype.is_numeric() else column.cast(str).to_numpy()
    values = values.astype(str) if values.dtype.kind == "O" else values
    return encode_labels(values[rows], where)


def _column(column: Series, name: str) -> Columns:
    """A column as one or more columns of numbers."""
    import polars as pl

    where = f"{name}: column {column.name}"
    leave_out = f"leave it out with {say_option('drop', column.name)}"
    if column.null_count() == len(column):
        raise DataError(f"{where} is empty; {leave_out}")
    if column.dtype.is_numeric():
        with np.errstate(over="ignore"):  # becomes infinite, and is named below
            numbers = column.cast(float).to_numpy().astype(np.float32)
        if np.isinf(numbers).any():
            raise DataError(f"{where} holds infinite (or larger than float32) "
                            f"numbers; repair it or {leave_out}")
        missing = np.isnan(numbers)
        flag = {f"{column.name} {ABSENT}": missing.astype(np.float32)} if missing.any() else {}
        return {column.name: numbers, **flag}
    if column.dtype not in (pl.String, pl.Boolean, pl.Categorical, pl.Enum):
        raise DataError(f"{where} holds {column.dtype}, which is neither numbers "
                        f"nor categories; {leave_out}")
    words = column.cast(pl.String).fill_null(ABSENT).to_numpy().astype(str)
    levels, codes = np.unique(words, return_inverse=True)
    rare = len(words) >= TELLING and len(levels) > len(words) / 2
    if (column.dtype == pl.String and rare) or len(levels) > MOST_LEVELS:
        raise DataError(f"{where} is free text ({len(levels):,} distinct "
                        f"values in {len(words):,} rows); {leave_out}, "
                        f"or make it the label with {say_option('label', column.name)}")
    return {f"{column.name}={v}": (codes == i).astype(np.float32) for i, v in enumerate(levels)}


def as_read(values: NDArray[Any], space: Space) -> dict[str, NDArray[Any]]:
    """Rows (n, d) in data units as the columns the file had: the inverse of how a table is read.

    Of a category the word with the greatest number; ``None`` where a value is likelier missing
    than not.
    """
    by_name = {column: values[:, i] for i, column in enumerate(space.columns)}
    table: dict[str, NDArray[Any]] = {}
    for column, numbers in by_name.items():
        category = category_of(column, space)
        if category and category not in table:
            levels = {c.removeprefix(f"{category}="): v for c, v in by_name.items()
                      if c.startswith(f"{category}=")}
            words = np.array(list(levels), object)
            words[words == ABSENT] = None
            table[category] = words[np.stack(list(levels.values())).argmax(0)]
        elif not category and not (column.endswith(f" {ABSENT}")
                                   and column.removesuffix(f" {ABSENT}") in by_name):
            flag = by_name.get(f"{column} {ABSENT}")
            table[column] = numbers if flag is None else numbers.astype(object)
            if flag is not None:
                table[column][flag > 0.5] = None
    return table


def category_of(column: str, space: Space) -> str:
    """The column of words that a column of zeros and ones is of, or nothing."""
    categories = space.categories if isinstance(space, Table) else ()
    return max((c for c in categories if column.startswith(f"{c}=")), key=len, default="")


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
    if gap.any():
        if gap.all():
            raise DataError(f"{where} holds nothing but gaps: it makes no groups")
        codes, names = kinds_of(np.array(array[~gap].tolist()), where)
        whole = np.full(len(array), len(names))
        whole[~gap] = codes
        return whole, (*names, ABSENT)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where} holds infinite numbers: it makes no groups; choose another")
    levels = np.unique(array)
    if array.dtype.kind not in "iuf" or len(levels) <= MOST_KINDS:
        words = [f"{v:g}" for v in levels] if array.dtype.kind in "iuf" else levels
        return np.searchsorted(levels, array).astype(np.int64), tuple(str(v) for v in words)
    low, middle, high = np.quantile(array, [0.25, 0.5, 0.75])
    return np.searchsorted([low, middle, high], array).astype(np.int64), (
        f"to {low:.3g}", f"{low:.3g} to {middle:.3g}", f"{middle:.3g} to {high:.3g}",
        f"above {high:.3g}")


# ------------------------------------------------------------------ about images and recordings

def annotated(data: Dataset, files: Files, of: Rows, label: str | None,
              attributes: str | None) -> tuple[Dataset, dict[str, Rows], tuple[str, ...]]:
    """Examples with what is known of the files they are of, rows of the file's own splits, and
    notes: from the folders, and from a table if one is asked for, in CelebA's own format, CSV, TSV
    or Parquet, whose numeric columns become factors.

    Args:
        of: (N,) position of each example's file in ``files``.
        label: a column of the table; ``none`` for no labels.
        attributes: the table, if it is not found beside the files.
    """
    parts, folders = splits_and_folders(files.titles)
    codes, classes, notes = None, tuple[str, ...](), tuple[str, ...]()
    inside = {folders[i] is not None for i in of[data.index]}
    if label != "none" and inside == {True}:
        codes, classes = encode_labels(np.array([f or "" for f in folders]), "the sub-folders")
    elif label != "none" and inside == {True, False}:
        notes = ("no labels: some images lie outside the sub-folders",)
    if attributes is not None or label not in (None, "none"):
        name, table = _attribute_table(files, attributes)
        key, rows = _matched(table, files.titles, name)
        columns = [c for c in table.columns if c != key]
        if label not in (None, "none", *columns):
            raise DataError(f"{name}: {unknown('label', str(label), columns)}")
        if label in columns:
            codes, classes, notes = *_codes(table[label], f"{name}: column {label}", rows), ()
            if classes == ("-1", "1"):  # CelebA's way of writing no and yes
                classes = (f"not {label}", label)
        factors = [c for c in columns if c != label and table[c].dtype.is_numeric()]
        values = table.select(factors).to_numpy()[rows].astype(np.float32) if factors else None
        data = replace(data, factors=None if values is None else values[of],
                       space=data.space.replace(factors=tuple(factors)))
        parts = parts or _celebas_parts(files)
    data = replace(data, names=np.array(files.titles)[of]).with_labels(
        None if codes is None else codes[of], classes)
    used = data.index
    return data, {k: used[np.isin(of[used], v)] for k, v in parts.items()}, notes


def _celebas_parts(files: Files) -> dict[str, Rows]:
    """CelebA's own splits, if its list of them lies beside the images."""
    for path in (files.path.parent / PARTITION, files.path / PARTITION):
        if path.is_file():
            part = dict(line.split()[:2] for line in path.read_text().split("\n") if line.strip())
            splits = np.array([int(part.get(PurePosixPath(n).name, 0)) for n in files.titles])
            return {v: np.flatnonzero(splits == k) for k, v in enumerate(
                ("train", "validation", "test"))} if part else {}
    return {}


def _attribute_table(files: Files, given: str | None) -> tuple[str, DataFrame]:
    """The table that is named, or one in the place or beside it, CelebA's before others."""
    import polars as pl

    def is_table(name: str) -> bool:
        pure = PurePosixPath(name)
        return pure.name == CELEBA or pure.suffix.lower() in (".csv", ".tsv", ".parquet")

    inside, beside = list[str](), [] if given is None else [Path(given).expanduser()]
    if given is None:
        inside = [n for n in files.names if is_table(n)]
        beside = sorted(p for p in files.path.resolve().parent.iterdir() if is_table(p.name))
    elif not beside[0].is_file():
        raise DataError(f"{say_option('attributes', given)}: no such file")
    if not inside and not beside:
        raise DataError(f"{files.path}: labels need an attribute table beside the images "
                        f"({CELEBA}, or a CSV with a column of file names); name one with "
                        f"{say_option('attributes', 'FILE')}")
    if inside:
        name = min(inside, key=lambda n: (n.count("/"), not n.endswith(CELEBA)))
        data = files.read(name)
    else:
        path = min(beside, key=lambda p: p.name != CELEBA)
        name, data = str(path), path.read_bytes()
    if name.endswith(".parquet"):
        return name, pl.read_parquet(io.BytesIO(data))
    if not name.endswith(".txt"):
        return name, pl.read_csv(io.BytesIO(data), infer_schema_length=None,
                                 separator="\t" if name.endswith(".tsv") else ",")
    lines = [line.split() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    head, *body = lines[1:] if len(lines[0]) == 1 else lines  # CelebA starts with the count
    head = head if len(head) == len(body[0]) else ["file", *head]
    columns: dict[str, Any] = {h: [row[i] if i == 0 else float(row[i]) for row in body]
                               for i, h in enumerate(head)}
    return name, pl.DataFrame(columns)


def _matched(table: DataFrame, titles: list[str], name: str) -> tuple[str, Rows]:
    """The column of file names, and the table's row of every image."""
    import polars as pl

    for form in (str, lambda n: PurePosixPath(n).name, lambda n: PurePosixPath(n).stem):
        keys = [form(n) for n in titles]
        for column in (c for c in table.columns if table[c].dtype == pl.String):
            where = {v: i for i, v in enumerate(table[column].to_list())}
            rows = [where.get(key, -1) for key in keys]
            if max(rows) < 0:
                continue
            absent = [p for p, row in zip(titles, rows, strict=True) if row < 0]
            if absent:
                raise DataError(f"{name} has no row for {len(absent):,} of {len(titles):,} "
                                f"images ({absent[0]}); add the rows or move those images away")
            return column, np.array(rows, np.int64)
    raise DataError(f"{name} has no column of the images' file names, such as {titles[0]}; "
                    f"name another table with {say_option('attributes', 'FILE')}")
