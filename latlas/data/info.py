"""What a source holds, in numbers: ``latlas data info``."""

from __future__ import annotations

from typing import Any

import numpy as np

from latlas.data.dataset import Dataset
from latlas.data.source import Source, one_sided, partition

LOOKED_AT = 10_000


def info(source: Source) -> dict[str, Any]:
    """A JSON object that describes a source.

    Keys: name, kind, items, shape, dtype, levels, splits {split: items}, classes {class: items},
    groups, factors, range [low, high] (of the first 10,000 items), columns [{name, mean, sd,
    missing}], bytes, stored ("memory" or "memory map"), notes; of frames also clips, and
    milliseconds (the mean a frame is shown); of a source of two sides also paired, and other: the
    same about B.
    """
    if source.other is not None:
        return {**info(one_sided(source)), "paired": source.paired, "other": info(source.other)}
    data, space = source.base, source.space
    return {
        "name": source.name, "kind": space.kind, "items": len(data), "shape": list(space.shape),
        "dtype": str(data.x.dtype), "levels": space.levels,
        "splits": {k: len(rows) for k, rows in partition(source).items()},
        "classes": _classes(data), "groups": _groups(data), "factors": list(space.factors),
        "range": _range(data), "columns": _columns(source), "bytes": int(data.x.nbytes),
        "stored": "memory map" if isinstance(data.x, np.memmap) else "memory",
        "notes": list(source.notes), **_clips(data),
    }


def _clips(data: Dataset) -> dict[str, Any]:
    clip: Any = data.take("clip")
    shown: Any = data.take("duration")
    if clip is None:
        return {}
    return {"clips": len(np.unique(clip)),
            **({} if shown is None else {"milliseconds": float(shown.mean())})}


def _classes(data: Dataset) -> dict[str, int]:
    label = data.take("label")
    if label is None:
        return {}
    counts = np.bincount(label, minlength=len(data.space.classes))
    return dict(zip(data.space.classes, counts.tolist(), strict=True))


def _groups(data: Dataset) -> int | None:
    group = data.take("group")
    return None if group is None else len(np.unique(group))


def _range(data: Dataset) -> list[float]:
    some: Any = data.subset(slice(0, LOOKED_AT)).take("x")
    return [float(np.nanmin(some)), float(np.nanmax(some))]


def _columns(source: Source) -> list[dict[str, Any]]:
    data, space = source.base, source.space
    if space.kind != "table":
        return []
    x: Any = data.take("x")
    missing = np.isnan(x).sum(axis=0)
    wide = np.ma.masked_invalid(x.astype(np.float64))
    mean, sd = wide.mean(axis=0).filled(np.nan), wide.std(axis=0).filled(np.nan)
    rows = zip(space.columns, mean.tolist(), sd.tolist(), missing.tolist(), strict=True)
    return [{"name": n, "mean": m, "sd": s, "missing": k} for n, m, s, k in rows]
