"""Rows of a table in the order of one of its columns, such as of time: the last are held out."""

from __future__ import annotations

from dataclasses import replace

from latlas.core.errors import DataError, say_option, unknown
from latlas.data.dataset import Source


def in_order(source: Source, column: str, dates: str | None = None) -> Source:
    """The source, whose splits follow each other in this column of its table.

    Args:
        dates: ``dmy`` or ``mdy``, as for the other columns.

    Raises:
        DataError: no such column, one without an order, or groups, which would be torn apart.
    """
    import polars as pl

    from latlas.data.columns import interpret
    from latlas.data.values import canonical
    from latlas.data.words import to_numbers

    frame = source.frame
    assert frame is not None
    where, names = f"{source.name}: {say_option('split_by', column)}", frame.data.columns
    if column not in names:
        raise DataError(f"{where}: {unknown('column', column, names)}")
    if source.base.group is not None:
        raise DataError(f"{where}: rows of one {say_option('group')} stay together and need not "
                        "follow each other; give one of the two options")
    values = frame.data[column]
    if values.dtype == pl.String:
        numbers = to_numbers(values, frame.decimal or "")
        if numbers.null_count() > values.null_count():
            alone = replace(frame, data=frame.data.select(column))
            reading = interpret(alone, source.name, dates=None if dates == "drop" else dates)
            if reading.problems:
                raise DataError(f"{where}: " + "; ".join(reading.problems))
            numbers = canonical(values, reading.columns[0])
        values = numbers
    if values.null_count() == len(values) or not (
            values.dtype.is_numeric() or values.dtype.is_temporal()):
        raise DataError(f"{where}: the column holds no numbers, dates or times to go by")
    ranks = values.rank("dense").cast(pl.Int64)
    gaps, ties = ranks.null_count(), len(ranks) - ranks.null_count() - ranks.drop_nulls().n_unique()
    notes = [f"rows are divided in the order of column {column}: its last values are test, those "
             "before validation"]
    if ties:
        notes.append(f"column {column}: {ties:,} rows have the value of another; equal ones are in "
                     "one split")
    if gaps:
        notes.append(f"column {column}: {gaps:,} rows have no value; they come first, in train")
    data = replace(source.base, order=ranks.fill_null(0).to_numpy())
    return replace(source, base=data, notes=(*source.notes, *notes))
