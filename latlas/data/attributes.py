"""What folders and tables of attributes say of each image or recording."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from latlas.core.errors import DataError, say_option, unknown
from latlas.data.archives import Files
from latlas.data.dataset import Dataset, Rows
from latlas.data.files import folder_classes, splits_and_folders
from latlas.data.frames import read_frame
from latlas.data.tables import codes_of
from latlas.data.text import HowToRead

if TYPE_CHECKING:
    from polars import DataFrame

CELEBA = "list_attr_celeba.txt"
PARTITION = "list_eval_partition.txt"


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
        codes, classes, notes = folder_classes(folders)
    elif label != "none" and inside == {True, False}:
        notes = ("no labels: some images lie outside the sub-folders",)
    if attributes is not None or label not in (None, "none"):
        name, table = _attribute_table(files, attributes)
        key, rows = _matched(table, files.titles, name)
        if label not in (None, "none", *table.drop(key).columns):
            raise DataError(f"{name}: {unknown('label', str(label), table.drop(key).columns)}")
        if label in table.columns:
            codes, classes, notes = *codes_of(table[label], f"{name}: column {label}", rows), ()
            if classes == ("-1", "1"):  # CelebA's way of writing no and yes
                classes = (f"not {label}", label)
        factors = [c.name for c in table.drop(key) if c.name != label and c.dtype.is_numeric()]
        values = table.select(factors).to_numpy()[rows[of]].astype(np.float32) if factors else None
        data = replace(data, factors=values, space=data.space.replace(factors=tuple(factors)))
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


def _attribute_table(files: Files, attributes: str | None) -> tuple[str, DataFrame]:
    """The table that is named, or one in the place or beside it, CelebA's before others."""
    from latlas.data import columns, values

    def is_table(name: str) -> bool:
        pure = PurePosixPath(name)
        return pure.name == CELEBA or pure.suffix.lower() in (".csv", ".tsv", ".parquet")

    inside = [] if attributes else [n for n in files.names if is_table(n)]
    beside = [Path(attributes).expanduser()] if attributes else sorted(
        p for p in files.path.resolve().parent.iterdir() if is_table(p.name))
    if attributes and not beside[0].is_file():
        raise DataError(f"{say_option('attributes', attributes)}: no such file")
    if not inside and not beside:
        raise DataError(f"{files.path}: labels need an attribute table beside the images "
                        f"({CELEBA}, or a CSV with a column of file names); name one with "
                        f"{say_option('attributes', 'FILE')}")
    first = min(inside, key=lambda n: (n.count("/"), not n.endswith(CELEBA))) if inside else min(
        beside, key=lambda p: p.name != CELEBA)
    name, how = str(first), HowToRead()
    data = first.read_bytes() if isinstance(first, Path) else files.read(first)
    if name.endswith(".txt"):  # CelebA's: a count, names without that of the first column, rows
        lines = [line for line in data.splitlines() if line.strip()] or [b""]
        lines = lines[len(lines[0].split()) == 1:]
        if len(lines) > 1 and len(lines[0].split()) < len(lines[1].split()):
            lines[0] = b"file " + lines[0]
        data, how = b"\n".join(lines), HowToRead(separator=" ", header=True)
    frame = read_frame(io.BytesIO(data), name, how)
    typed = columns.interpret(frame, name).columns
    return name, frame.data.with_columns([values.canonical(
        series, column if column.kind in ("real", "integer") else column.replace(kind="text"))
        for series, column in zip(frame.data, typed, strict=True)])


def _matched(table: DataFrame, titles: list[str], name: str) -> tuple[str, Rows]:
    """The column of file names, and the table's row of every image."""
    for form in (str, lambda n: PurePosixPath(n).name, lambda n: PurePosixPath(n).stem):
        keys = [form(n) for n in titles]
        for column in (c for c in table.columns if not table[c].dtype.is_numeric()):
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
