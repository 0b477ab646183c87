"""A result's rows as a frame of the library that the data came in: pandas, polars or pyarrow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl

from latlas.core.errors import ConfigError, unknown
from latlas.data.frames import is_frame, read_frame
from latlas.run import as_run
from latlas.verbs import write

KINDS = ("pandas", "polars", "pyarrow", "arrays")
#: columns that stand for the names of the rows where these have no columns of their own
NAMES = ("example", "name")


@dataclass(frozen=True)
class Origin:
    """The frame that the data of a verb came in.

    Attributes:
        kind: the library, ``polars`` for others than pandas and pyarrow.
        rows: how many of its rows the result is of; ``None`` where they are chosen by a split.
        index: of pandas; ``ids`` the columns that the run does not learn because they name rows.
    """

    kind: str
    rows: int | None = None
    index: Any = None
    ids: pl.DataFrame | None = None


def origin_of(data: Any, arguments: Mapping[str, Any]) -> Origin | None:
    """Of the data of a verb that was called with these arguments; ``None`` if they are no frame."""
    frame = data[0] if isinstance(data, tuple) and data else data
    if not is_frame(frame):
        return None
    kind = ("pandas" if nw.dependencies.is_pandas_dataframe(frame) else
            "pyarrow" if nw.dependencies.is_pyarrow_table(frame) else "polars")
    run = arguments.get("run")
    if run is None or arguments.get("split") not in (None, "all"):
        return Origin(kind)
    ids, index = None, frame.index if kind == "pandas" else None
    names = [c.name for c in getattr(as_run(run).space, "fields", ())
             if c.kind == "id"]
    if names:
        rows = read_frame(frame, "the data").data
        ids = rows.select([name for name in names if name in rows.columns])
    count = len(frame) if hasattr(frame, "__len__") else None if ids is None else len(ids)
    return Origin(kind, count, index, ids)


def as_kind(result: Any, kind: str = "") -> Any:
    """The :meth:`latlas.verbs.common.Result.table` of a result."""
    origin, columns = result.origin, result.as_columns()
    kind = kind or ("arrays" if origin is None else origin.kind)
    if kind not in KINDS:
        raise ConfigError(unknown("kind of table", kind, KINDS), option="kind")
    if kind == "arrays":
        return {name: write.as_array(column) for name, column in columns.items()}
    frame, index = write.as_frame(columns), None
    if origin is not None and origin.rows is not None and result.row_per_example and (
            len(frame) <= origin.rows):
        rows = np.arange(len(frame)) if result.order is None else result.order
        if origin.ids is not None and origin.ids.width:
            own = frame.drop(*NAMES, *origin.ids.columns, strict=False)
            frame = pl.concat([origin.ids[rows], own], how="horizontal")
        index = None if origin.index is None else origin.index[rows]
    if kind == "pandas":
        return _as_pandas(frame, index)
    if kind == "pyarrow":  # with types that all of its functions know
        return frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    return frame


def _as_pandas(frame: pl.DataFrame, index: Any) -> Any:
    """With types of NumPy, and those of pandas for whole numbers and truth values with gaps."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for series in frame:
        dtype, gaps = series.dtype, series.null_count() > 0
        if gaps and (dtype.is_integer() or dtype == pl.Boolean):
            own = "boolean" if dtype == pl.Boolean else str(dtype)
            columns[series.name] = pd.array(series.to_list(), dtype=own)
        elif dtype == pl.Date:
            columns[series.name] = series.cast(pl.Datetime("us")).to_numpy()
        elif dtype in (pl.String, pl.Categorical, pl.Enum):
            words = series.to_list()
            columns[series.name] = words if dtype == pl.String else pd.Categorical(words)
        else:
            columns[series.name] = series.to_numpy()
    return pd.DataFrame(columns, index=index)
