"""Data of two sides, A and B; sources of one side or of two described, packed and opened again.

Pairs (``aligned``) are divided as A is, so that what belongs together stays together. Of two
domains nothing is known to belong together; each is divided by itself.

A packed folder holds ``x.npy`` (the examples, mapped copy-on-write), ``arrays.npz`` (labels,
factors, groups, names, rows of the parts) and ``meta.json``; of two sides it holds a packed folder
each, ``A`` and ``B``, beside ``meta.json``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option
from latlas.core.space import PairSpace, Record, Recordings, Space, Table
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
from latlas.data.streams import in_npy, in_zip, readable, refuse_objects, regular
from latlas.data.tables import described

NEEDED = {"pairs": "of which the rows belong together: a folder with A/ and B/, images side by "
                   "side ({side}), an npz with A and B, two folders of equal names (--data A "
                   "--data B --data-option paired=true)",
          "domains": "such as a folder with trainA/ and trainB/, or two sources (--data A --data "
                     "B)"}
LOOKED_AT = 10_000
FORMAT = 1
#: arrays of one value (factors: of several) for each example, and their types
EXTRAS = {"label": "int64", "factors": "float32", "group": "int64", "names": "U", "clip": "int64",
          "duration": "float32", "key": "uint64"}


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


class Version(msgspec.Struct):
    """What ``meta.json`` of any version says."""

    format: int


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
    with readable(path, "is not a whole packed folder"):
        text = (path / META).read_bytes()
        meta = json.loads(text)  # whose names may hold bytes of paths that are no UTF-8
        version = msgspec.convert(meta, Version).format
        if version < 1:
            raise ValueError(f"it is of format {version}")
        if version > FORMAT:
            raise DataError(f"{path} was packed by a newer latlas (format {version}); "
                            "upgrade latlas or pack it again")
        packed = msgspec.convert(meta, Packed)
        if isinstance(packed.space, PairSpace):
            a, b = (open_packed(path / name) for name in "AB")
            if not isinstance(a, Source) or not isinstance(b, Source):
                raise ValueError("A and B are sides of one example each")
            source = PairSource(a, b, packed.space.aligned, packed.name, notes=packed.notes)
            if source.space != packed.space:
                raise ValueError("A and B are not of the spaces in meta.json")
            return source
        array = in_npy(regular(path / "x.npy"))
        refuse_objects(array.dtype, array.name)
        x = np.load(path / "x.npy", mmap_mode="c")
        if x.offset + x.nbytes != (path / "x.npy").stat().st_size:
            raise ValueError("x.npy goes on after the array of its header")
        with zipfile.ZipFile(regular(path / "arrays.npz")) as archive:
            keys = [n.removesuffix(".npy") for n in archive.namelist()]
        extras = {k: in_zip(path / "arrays.npz", k, str(path)).whole() for k in keys}
        rows = {k: extras.pop(f"rows_{k}") for k in packed.parts
                if k != "all" or "rows_all" in extras}
        _check_rows(rows, len(x))
        data = _checked(x, packed.space, extras)
    return make(packed.name, data, parts=rows, notes=packed.notes)


def _check_rows(rows: Mapping[str, Rows], count: int) -> None:
    """ValueError unless these are rows of an array of ``count``, each in one part at most."""
    if not rows.keys() <= {"all", "train", "validation", "test"}:
        raise ValueError(f"it has the parts {', '.join(rows)}")
    for part, index in rows.items():
        if index.dtype != np.int64 or index.ndim != 1 or not len(index) or (
                index.min() < 0 or index.max() >= count):
            raise ValueError(f"rows_{part} holds no rows of the {count:,} examples")
    index = np.concatenate(list(rows.values()) or [np.zeros(0, np.int64)])
    if len(np.unique(index)) != len(index):
        raise ValueError("an example is in several parts, or several times in one")


def _checked(x: NDArray[Any], space: Space, extras: dict[str, Any]) -> Dataset:
    """The data set; ValueError for arrays that are not what ``meta.json`` says."""
    count, levels = len(x), space.levels
    top = 0 if levels is None else levels - 1
    valid = (np.uint8, np.uint16) if levels is not None else (np.float32, np.float64)
    if x.shape[1:] != space.shape or not count or x.dtype not in valid:
        raise ValueError(f"x.npy holds {x.dtype} of shape {x.shape}, and meta.json says "
                         f"{'real numbers' if levels is None else f'{levels} levels'} of shape "
                         f"{space.shape}")
    location, scale = np.asarray(space.location), np.asarray(space.scale)
    if {location.shape, scale.shape} - {(), space.shape} or not (
            np.isfinite(location).all() and np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError("meta.json has units that are no numbers, or not one for each column")
    for name, values in extras.items():
        if name not in EXTRAS:
            raise ValueError(f"arrays.npz holds an unknown array {name}")
        shape = (count, len(space.factors)) if name == "factors" else (count,)
        fits = values.dtype == EXTRAS[name] if EXTRAS[name] != "U" else values.dtype.kind == "U"
        if values.shape != shape or not fits:
            raise ValueError(f"{name} holds {values.dtype} of shape {values.shape}, not "
                             f"{EXTRAS[name]} of shape {shape}")
    label = extras.get("label")
    if label is not None and not 0 <= label.min() <= label.max() < len(space.classes):
        raise ValueError(f"label holds {label.min()} … {label.max()} for {len(space.classes)} "
                         "classes")
    for chunk in chunks(x) if levels is None or top < np.iinfo(x.dtype).max else ():
        if levels is not None and chunk.max() > top:
            raise ValueError(f"x.npy holds {chunk.max()}, and meta.json says {levels} levels")
        if levels is None and not (np.isinf(chunk) == 0 if isinstance(space, Table)
                                   else np.isfinite(chunk)).all():
            raise ValueError("x.npy holds numbers that are not finite")
    return Dataset(x, space, **extras)
