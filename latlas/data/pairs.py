"""Data of two sides, A and B; and sources of one side or of two described.

Pairs (``aligned``) are divided as A is, so that what belongs together stays together. Of two
domains nothing is known to belong together; each is divided by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from latlas.core.errors import DataError, say_option
from latlas.core.space import PairSpace, Recordings
from latlas.data.dataset import Dataset, Rows, Source, content_keys, make, partition
from latlas.data.tables import described

NEEDED = {"pairs": "of which the rows belong together: a folder with A/ and B/, images side by "
                   "side ({side}), an npz with A and B, two folders of equal names (--data A "
                   "--data B --data-option paired=true)",
          "domains": "such as a folder with trainA/ and trainB/, or two sources (--data A --data "
                     "B)"}
LOOKED_AT = 10_000


@dataclass(frozen=True)
class PairDataset:
    """Two data sets; if ``aligned``, both have the same rows, and row i of ``b.x`` belongs to row i
    of ``a.x``."""

    a: Dataset
    b: Dataset
    aligned: bool = True

    def __post_init__(self) -> None:
        if self.aligned and not (len(self.a.x) == len(self.b.x)
                                 and np.array_equal(self.a.index, self.b.index)):
            raise ValueError("the two sides of pairs need the same rows")

    def __len__(self) -> int:
        return len(self.a)

    @property
    def space(self) -> PairSpace:
        """Of both sides."""
        return PairSpace(self.a.space, self.b.space, self.aligned)

    def subset(self, index: Rows | slice) -> PairDataset:
        """The examples of A at these positions, of pairs with those that belong to them."""
        a = self.a.subset(index)
        return PairDataset(a, replace(self.b, rows=a.rows) if self.aligned else self.b,
                           self.aligned)

    def swapped(self) -> PairDataset:
        """B first."""
        return PairDataset(self.b, self.a, self.aligned)


Data = Dataset | PairDataset


@dataclass(frozen=True)
class PairSource:
    """Two sources; of pairs, row i of B belongs to row i of A, and both have the same parts.

    ``name``, ``spec`` and ``notes`` are as of a :class:`latlas.data.dataset.Source`.
    """

    a: Source
    b: Source
    aligned: bool = True
    name: str = ""
    spec: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def space(self) -> PairSpace:
        """Of both sides."""
        return PairSpace(self.a.space, self.b.space, self.aligned)

    @property
    def parts(self) -> dict[str, Rows]:
        """Those of A."""
        return self.a.parts

    def split(self, which: str, seed: int = 0) -> PairDataset:
        """See :func:`latlas.data.split`."""
        return PairDataset(self.a.split(which, seed), self.b.split(which, seed), self.aligned)


def join(a: Source, b: Source, *, aligned: bool, name: str = "") -> PairSource:
    """One source of two sides; of pairs those rows that both sides have, in A's parts and groups.
    DataError for pairs that are not as many on both sides, or not of one height and width."""
    if aligned:
        x, y = a.base, b.base
        if isinstance(a.space, Recordings):
            raise DataError("recordings are not taken as pairs: no two take the same time; leave "
                            f"out {say_option('paired', 'true')}")
        if len(x.x) != len(y.x):
            raise DataError(f"{a.name} holds {len(x.x):,} examples, {b.name} {len(y.x):,}; "
                            f"pairs need as many on both sides ({say_option('paired', 'false')}: "
                            "two domains)")
        if a.space.shape[1:] != b.space.shape[1:] or a.space.kind != b.space.kind:
            raise DataError(f"{a.name} holds {a.space.words} of shape {a.space.shape}, {b.name} "
                            f"{b.space.words} of {b.space.shape}; pairs need one height and width: "
                            f"give {say_option('image_size')}")
        y = replace(y, group=x.group, order=x.order, key=content_keys(x))
        common = np.intersect1d(x.index, y.index)
        rows = {k: np.intersect1d(part, common) for k, part in a.parts.items()}
        a, b = (make(side.name, data, parts=rows, notes=side.notes)
                for side, data in ((a, x), (b, y)))
    notes = tuple(f"{side.name}: {note}" for side in (a, b) for note in side.notes)
    return PairSource(a, b, aligned, name or a.name, notes=notes)


def first_side(data: Data) -> Dataset:
    """A of two sides, the data themselves where there is one."""
    return data.a if isinstance(data, PairDataset) else data


def sides_for(data: Data, needs: str | None, model: str) -> tuple[Data, str]:
    """What a model that needs ``pairs``, two ``domains`` or one side (``None``) learns from, and a
    note where that is less than the data say. DataError if it needs a side that there is not."""
    if isinstance(data, Dataset):
        if needs is not None:
            raise DataError(f"{model} needs data of two sides, "
                            + NEEDED[needs].format(side=say_option("pair", "side")))
        return data, ""
    if needs is None:
        return data.a, f"{model} learns from side A alone"
    if needs == "pairs" and not data.aligned:
        raise DataError(f"{model} needs pairs, and these are two domains of which nothing belongs "
                        f"together; where rows or names do, say {say_option('paired', 'true')}")
    if needs == "domains" and data.aligned:
        return replace(data, aligned=False), f"{model} makes no use of what belongs together: it " \
                                             "takes A and B as two domains"
    return data, ""


def info(source: Source | PairSource) -> dict[str, Any]:
    """A JSON object that describes a source.

    Keys: name, kind, examples, shape, dtype, levels, splits {split: examples}, classes {class:
    examples}, groups, factors, range [low, high] (of the first 10,000 examples), columns [{name,
    kind, missing, distinct, mean, sd}], problems (columns that cannot be learnt), bytes, stored
    ("memory" or "memory map"), notes; of frames also clips, and milliseconds (the mean a frame is
    shown). Of a source of two sides: name, aligned, notes, and the same about each, a and b.
    """
    if isinstance(source, PairSource):
        return {"name": source.name, "aligned": source.aligned, "a": info(source.a),
                "b": info(source.b), "notes": list(source.notes)}
    data = source.base
    space = data.space
    label, group, clip, duration = (data.take(k) for k in ("label", "group", "clip", "duration"))
    counts = [] if label is None else np.bincount(label, minlength=len(space.classes)).tolist()
    some: Any = data.subset(slice(0, LOOKED_AT)).take("x")
    some = some if some.size else np.zeros(1)
    return {
        "name": source.name, "kind": space.kind, "examples": len(data), "shape": list(space.shape),
        "dtype": str(data.x.dtype), "levels": space.levels,
        "splits": {k: len(rows) for k, rows in partition(source).items()},
        "classes": dict(zip(space.classes, counts, strict=label is not None)),
        "groups": None if group is None else len(np.unique(group)),
        "factors": list(space.factors), "range": [float(np.nanmin(some)), float(np.nanmax(some))],
        "columns": described(source), "problems": list(source.problems),
        "bytes": int(data.x.nbytes),
        "stored": "memory map" if isinstance(data.x, np.memmap) else "memory",
        "notes": list(source.notes),
        **({} if clip is None else {"clips": len(np.unique(clip))}),
        **({} if clip is None or duration is None else {"milliseconds": float(
            np.asarray(duration).mean())})}
