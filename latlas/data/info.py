"""What a source holds, in numbers: ``latlas data info``."""

from __future__ import annotations

from typing import Any

import numpy as np

from latlas.core.space import Table
from latlas.data.dataset import Source, partition
from latlas.data.pairs import PairSource

LOOKED_AT = 10_000


def info(source: Source | PairSource) -> dict[str, Any]:
    """A JSON object that describes a source.

    Keys: name, kind, examples, shape, dtype, levels, splits {split: examples}, classes {class:
    examples}, groups, factors, range [low, high] (of the first 10,000 examples), columns [{name,
    mean, sd, missing}], bytes, stored ("memory" or "memory map"), notes; of frames also clips, and
    milliseconds (the mean a frame is shown). Of a source of two sides: name, aligned, notes, and
    the same about each, a and b.
    """
    if isinstance(source, PairSource):
        return {"name": source.name, "aligned": source.aligned, "a": info(source.a),
                "b": info(source.b), "notes": list(source.notes)}
    data, space = source.base, source.space
    label, group, clip, duration = (data.take(k) for k in ("label", "group", "clip", "duration"))
    counts = [] if label is None else np.bincount(label, minlength=len(space.classes)).tolist()
    some: Any = data.subset(slice(0, LOOKED_AT)).take("x")
    columns = []
    if isinstance(space, Table):
        x: Any = data.take("x")
        wide = np.ma.masked_invalid(x.astype(np.float64))
        numbers = (wide.mean(axis=0).filled(np.nan), wide.std(axis=0).filled(np.nan),
                   np.isnan(x).sum(axis=0))
        columns = [{"name": n, "mean": m, "sd": s, "missing": k} for n, m, s, k in
                   zip(space.columns, *(v.tolist() for v in numbers), strict=True)]
    return {
        "name": source.name, "kind": space.kind, "examples": len(data), "shape": list(space.shape),
        "dtype": str(data.x.dtype), "levels": space.levels,
        "splits": {k: len(rows) for k, rows in partition(source).items()},
        "classes": dict(zip(space.classes, counts, strict=label is not None)),
        "groups": None if group is None else len(np.unique(group)),
        "factors": list(space.factors), "range": [float(np.nanmin(some)), float(np.nanmax(some))],
        "columns": columns, "bytes": int(data.x.nbytes),
        "stored": "memory map" if isinstance(data.x, np.memmap) else "memory",
        "notes": list(source.notes),
        **({} if clip is None else {"clips": len(np.unique(clip))}),
        **({} if clip is None or duration is None else {"milliseconds": float(
            np.asarray(duration).mean())})}
