"""A table that says something about each picture: CelebA's own format, CSV, TSV or Parquet."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, unknown
from latlas.data.files import Files
from latlas.data.labels import encode_labels
from latlas.data.source import Rows

if TYPE_CHECKING:
    from polars import DataFrame

CELEBA = "list_attr_celeba.txt"
PARTITION = "list_eval_partition.txt"
TABLES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Attributes:
    """One row per picture: the label asked for, and the other numeric columns as factors."""

    label: Rows | None
    classes: tuple[str, ...]
    factors: NDArray[np.float32] | None
    factor_names: tuple[str, ...]
    parts: dict[str, Rows] = field(default_factory=dict)


def read_attributes(files: Files, given: str | None, label: str | None) -> Attributes:
    """The attributes of ``files.shown``, from the table given or found beside them.

    Raises:
        DataError: no table, no such column (the columns there are listed), pictures without a row.
    """
    name, data = _find(files, given)
    table = _parsed(name, data)
    key, rows = _matched(table, files.shown, name)
    names = [c for c in table.columns if c != key]
    if label not in (None, "none") and label not in names:
        raise DataError(f"{name}: {unknown('label', str(label), names)}")
    wanted = label if label in names else None
    factors = [c for c in names if c != wanted and table[c].dtype.is_numeric()]
    values = table.select(factors).to_numpy()[rows].astype(np.float32) if factors else None
    codes, classes = _label(table, wanted, rows, name)
    return Attributes(codes, classes, values, tuple(factors), _partition(files))


def _find(files: Files, given: str | None) -> tuple[str, bytes]:
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise DataError(f"attributes={given}: no such file")
        return str(path), path.read_bytes()
    inside = [n for n in files.names if _is_table(n)]
    beside = sorted(p for p in files.path.resolve().parent.iterdir() if _is_table(p.name))
    for found in sorted(inside, key=lambda n: (n.count("/"), not n.endswith(CELEBA))):
        return found, files.read(found)
    for path in sorted(beside, key=lambda p: p.name != CELEBA):
        return str(path), path.read_bytes()
    raise DataError(f"{files.path}: labels need an attribute table beside the pictures ({CELEBA}, "
                    "or a CSV with a column of file names); name one with attributes=FILE")


def _is_table(name: str) -> bool:
    pure = PurePosixPath(name)
    return pure.name == CELEBA or pure.suffix.lower() in TABLES


def _parsed(name: str, data: bytes) -> DataFrame:
    import polars as pl

    if name.endswith(".parquet"):
        return pl.read_parquet(io.BytesIO(data))
    if not name.endswith(".txt"):
        return pl.read_csv(io.BytesIO(data), separator="\t" if name.endswith(".tsv") else ",",
                           infer_schema_length=None)
    lines = [line.split() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]
    head = lines[1] if len(lines[0]) == 1 else lines[0]  # CelebA starts with the count
    body = lines[2:] if len(lines[0]) == 1 else lines[1:]
    head = head if len(head) == len(body[0]) else ["file", *head]
    columns: dict[str, Any] = {h: [row[i] for row in body] for i, h in enumerate(head)}
    return pl.DataFrame({h: v if i == 0 else [float(c) for c in v]
                         for i, (h, v) in enumerate(columns.items())})


def _matched(table: DataFrame, pictures: list[str], name: str) -> tuple[str, Rows]:
    """The column of file names, and the table's row of every picture."""
    import polars as pl

    for form in (str, lambda n: PurePosixPath(n).name, lambda n: PurePosixPath(n).stem):
        wanted = [form(n) for n in pictures]
        for column in (c for c in table.columns if table[c].dtype == pl.String):
            where = {v: i for i, v in enumerate(table[column].to_list())}
            rows = [where.get(w, -1) for w in wanted]
            if max(rows) >= 0:
                return column, _complete(rows, pictures, name)
    raise DataError(f"{name} has no column of the pictures' file names, such as {pictures[0]}; "
                    "name another table with attributes=FILE")


def _complete(rows: list[int], pictures: list[str], name: str) -> Rows:
    lost = [p for p, row in zip(pictures, rows, strict=True) if row < 0]
    if lost:
        raise DataError(f"{name} has no row for {len(lost):,} of {len(pictures):,} pictures "
                        f"({lost[0]}); add the rows or move those pictures away")
    return np.array(rows, np.int64)


def _label(table: DataFrame, wanted: str | None, rows: Rows, name: str) -> tuple[
        Rows | None, tuple[str, ...]]:
    if wanted is None:
        return None, ()
    column = table[wanted]
    if column.null_count():
        raise DataError(f"{name}: column {wanted} has {column.null_count():,} missing values; "
                        "fill them or choose another label")
    values = column.to_numpy()
    if values.dtype.kind == "O":
        values = values.astype(str)
    codes, classes = encode_labels(values[rows], f"{name}: column {wanted}")
    if classes == ("-1", "1"):  # CelebA's way of writing no and yes
        classes = (f"not {wanted}", wanted)
    return codes, classes


def _partition(files: Files) -> dict[str, Rows]:
    """CelebA's own splits, if its list of them lies beside the pictures."""
    found = [files.path.parent / PARTITION, files.path / PARTITION]
    lines = next((p.read_text().split("\n") for p in found if p.is_file()), [])
    part = dict(line.split()[:2] for line in lines if line.strip())
    codes = np.array([int(part.get(PurePosixPath(n).name, 0)) for n in files.shown])
    named = dict(enumerate(("train", "validation", "test")))
    return {v: np.flatnonzero(codes == k) for k, v in named.items()} if part else {}
