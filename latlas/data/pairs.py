"""Data of two sides, A and B; sources of one side or of two described, packed and opened again.

Pairs (``aligned``) are divided as A is, so that what belongs together stays together. Of two
domains nothing is known to belong together; each is divided by itself.

A packed folder holds ``x.npy`` (the examples, mapped copy-on-write), ``arrays.npz`` (labels,
factors, groups, names, rows of the parts) and ``meta.json``; of two sides it holds a packed folder
each, ``A`` and ``B``, beside ``meta.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from latlas.core.errors import DataError, say_option
from latlas.core.space import PairSpace, Record, Recordings, Space
from latlas.data.dataset import (
    META,
    Dataset,
    Rows,
    Source,
    Store,
    chunks,
    content_keys,
    make,
    partition,
)
from latlas.data.tables import described

NEEDED = {"pairs": "of which the rows belong together: a folder with A/ and B/, images side by "
                   "side ({side}), an npz with A and B",
          "domains": "such as a folder with trainA/ and trainB/, or two sources (--data A --data "
                     "B)"}
LOOKED_AT = 10_000
FORMAT = 1
EXTRAS = ("label", "factors", "group", "names", "clip", "duration", "key")


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

    def split(self, which: str, seed: int) -> PairDataset:
        """See :func:`latlas.data.split`."""
        return PairDataset(self.a.split(which, seed), self.b.split(which, seed), self.aligned)


def join(a: Source, b: Source, *, aligned: bool, name: str = "") -> PairSource:
    """One source of two sides; of pairs those rows that both sides have, in A's parts and groups.
    DataError for pairs that are not as many on both sides, or not of one height and width."""
    if aligned and isinstance(a.space, Recordings):
        raise DataError("recordings are not taken as pairs: no two take the same time; leave out "
                        f"{say_option('paired', 'true')}")
    if aligned:
        x, y = a.base, b.base
        if len(x.x) != len(y.x):
            raise DataError(f"{a.name} holds {len(x.x):,} examples, {b.name} {len(y.x):,}; "
                            f"pairs need as many on both sides ({say_option('paired', 'false')}: "
                            "two domains)")
        if a.space.shape[1:] != b.space.shape[1:] or a.space.kind != b.space.kind:
            raise DataError(f"{a.name} holds {a.space.words} of shape {a.space.shape}, {b.name} "
                            f"{b.space.words} of {b.space.shape}; pairs need one height and width: "
                            f"give {say_option('image_size')}")
        common = np.intersect1d(x.index, y.index)
        rows = {k: part if len(common) == len(x.x) else np.intersect1d(part, common)
                for k, part in a.parts.items()}
        a, b = (make(side.name, data, parts=rows, notes=side.notes)
                for side, data in ((a, x), (b, replace(y, group=x.group, key=content_keys(x)))))
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
    space = data.space if source.problems else source.space
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


class Packed(Record, frozen=True):
    """What ``meta.json`` says."""

    format: int
    name: str
    space: Space | PairSpace
    parts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def write(source: Source | PairSource, folder: Path, store: Store) -> None:
    """Write a source into a folder; the examples may lie there already."""
    if isinstance(source, PairSource):
        for name, side in (("A", source.a), ("B", source.b)):
            write(side, folder / name, store.side(name))
    else:
        data = source.base
        if not store.on_disk:
            disk = Store(folder, share=0, progress=store.progress)
            disk.gather(data.x.shape, data.x.dtype, chunks(data.x))
        rows: dict[str, Any] = {f"rows_{k}": v for k, v in source.parts.items()
                                if k != "all" or data.rows is not None}
        extras = {k: getattr(data, k) for k in EXTRAS if getattr(data, k) is not None}
        np.savez(folder / "arrays.npz", **rows, **extras)
    meta = Packed(FORMAT, source.name, source.space, tuple(source.parts), source.notes)
    (folder / META).write_text(json.dumps(meta.to_json(), indent=1), encoding="utf-8")


def open_packed(path: Path) -> Source | PairSource:
    """A packed folder. The map is copy-on-write: writable for torch, unchanged on disk."""
    try:
        meta = json.loads((path / META).read_text(encoding="utf-8"))
        if meta.get("format", 0) > FORMAT:
            raise DataError(f"{path} was packed by a newer latlas (format {meta['format']}); "
                            "upgrade latlas or pack it again")
        packed = msgspec.convert(meta, Packed)
        if isinstance(packed.space, PairSpace):
            a, b = (open_packed(path / name) for name in "AB")
            return PairSource(a, b, packed.space.aligned,  # type: ignore[arg-type]
                              packed.name, notes=packed.notes)
        x = np.load(path / "x.npy", mmap_mode="c")
        with np.load(path / "arrays.npz") as arrays:
            extras = {k: arrays[k] for k in arrays.files}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a whole packed folder: {error}") from None
    rows = {k: extras.pop(f"rows_{k}") for k in packed.parts if f"rows_{k}" in extras}
    return make(packed.name, Dataset(x, packed.space, **extras), parts=rows, notes=packed.notes)
