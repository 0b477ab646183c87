"""Packed folders: sources written once, which open at once and need no memory.

A packed folder holds ``x.npy`` (the examples, mapped copy-on-write), ``arrays.npz`` (labels,
factors, groups, names, rows of the parts) and ``meta.json``; of two sides it holds a packed folder
each, ``A`` and ``B``, beside ``meta.json``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.core.space import PairSpace, Record, Space, Table
from latlas.data.dataset import META, Dataset, Source, Store, chunks, make
from latlas.data.pairs import PairSource
from latlas.data.streams import in_npy, in_zip, readable, regular

FORMAT = 1
PARTS = ("all", "train", "validation", "test")
#: arrays of one value (factors: of several) for each example, and their types
EXTRAS = {"label": "int64", "factors": "float32", "group": "int64", "names": "U", "clip": "int64",
          "duration": "float32", "key": "uint64", "order": "int64"}


class Packed(Record, frozen=True):
    """What ``meta.json`` says."""

    format: Annotated[int, msgspec.Meta(ge=1)]
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
        meta = json.loads((path / META).read_bytes())  # its names may hold bytes that are no UTF-8
        version = meta.get("format") if isinstance(meta, dict) else None
        if isinstance(version, int) and version > FORMAT:
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
        in_npy(regular(path / "x.npy"))  # a header that claims more than there is
        x = np.load(path / "x.npy", mmap_mode="c")
        if x.offset + x.nbytes != (path / "x.npy").stat().st_size:
            raise ValueError("x.npy goes on after the array of its header")
        with zipfile.ZipFile(regular(path / "arrays.npz")) as archive:
            keys = [n.removesuffix(".npy") for n in archive.namelist()]
        extras: dict[str, Any] = {k: in_zip(path / "arrays.npz", k, str(path)).whole()
                                  for k in keys}
        rows = {k: extras.pop(f"rows_{k}") for k in packed.parts
                if k != "all" or "rows_all" in extras}
        _check_values(x, packed.space)
        _check_extras(extras, rows, packed.space, len(x))
        return make(packed.name, Dataset(x, packed.space, **extras), parts=rows,
                    notes=packed.notes)


def _check_values(x: NDArray[Any], space: Space) -> None:
    """ValueError for examples that are not what ``meta.json`` says."""
    levels = space.levels
    valid = (np.uint8, np.uint16) if levels is not None else (np.float32, np.float64)
    if x.shape[1:] != space.shape or not len(x) or x.dtype not in valid:
        raise ValueError(f"x.npy holds {x.dtype} of shape {x.shape}, and meta.json says "
                         f"{'real numbers' if levels is None else f'{levels} levels'} of shape "
                         f"{space.shape}")
    location, scale = np.asarray(space.location), np.asarray(space.scale)
    if {location.shape, scale.shape} - {(), space.shape} or not (
            np.isfinite(location).all() and np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError("meta.json has units that are no numbers, or not one for each column")
    if levels is not None:
        if levels <= np.iinfo(x.dtype).max and max(chunk.max() for chunk in chunks(x)) >= levels:
            raise ValueError(f"x.npy holds {x.max()}, and meta.json says {levels} levels")
    elif not all((~np.isinf(chunk) if isinstance(space, Table) else np.isfinite(chunk)).all()
                 for chunk in chunks(x)):
        raise ValueError("x.npy holds numbers that are not finite")


def _check_extras(extras: Mapping[str, NDArray[Any]], rows: Mapping[str, NDArray[Any]],
                  space: Space, count: int) -> None:
    """ValueError for arrays that are not of so many examples, or rows of parts that are none."""
    for name, values in extras.items():
        if name not in EXTRAS:
            raise ValueError(f"arrays.npz holds an unknown array {name}")
        shape = (count, len(space.factors)) if name == "factors" else (count,)
        if values.shape != shape or EXTRAS[name] not in (values.dtype, values.dtype.kind):
            raise ValueError(f"{name} holds {values.dtype} of shape {values.shape}, not "
                             f"{EXTRAS[name]} of shape {shape}")
    label, classes = extras.get("label"), space.classes
    if label is not None and not 0 <= label.min() <= label.max() < len(classes):
        raise ValueError(f"label holds {label.min()} … {label.max()} for {len(classes)} classes")
    index = np.concatenate([np.zeros(0, np.int64), *rows.values()])
    if not set(rows) <= set(PARTS) or not all(map(len, rows.values())) or (
            index.dtype != np.int64 or (index < 0).any() or (index >= count).any()
            or len(np.unique(index)) != len(index)):
        raise ValueError("its parts are not rows of the examples, each in one part at most")
