"""Packed sources: a folder that opens as a memory map, for data larger than memory.

A packed folder holds the other side of its items, if there is one, in a packed folder of its own.
It holds ``x.npy`` (the items, mapped copy-on-write), ``arrays.npz`` (labels, factors,
groups, names, rows of the parts) and ``meta.json``. Sources that would take more than a share of
the available memory are packed once, into ``$LATLAS_CACHE`` or ``~/.cache/latlas``; the folder is
named by the source, its options and its files' sizes and times, so a changed file is packed anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from latlas.core.errors import DataError
from latlas.core.space import Space
from latlas.data.arrays import ArrayReader
from latlas.data.dataset import Dataset
from latlas.data.source import Source, make
from latlas.data.store import SECOND, Store

META, FORMAT = "meta.json", 3  # 1: one side, 2: two, which are still written so; 3: clips
EXTRAS = ("label", "factors", "group", "names", "clip", "duration")


@contextlib.contextmanager
def building(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its place once it is whole."""
    folder = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield folder
        if (folder / META).exists():
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(out, ignore_errors=True)
            folder.rename(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(source: Source, folder: Path, store: Store) -> None:
    """Writes a source into a folder; the items may lie there already."""
    base = source.base
    if not store.mapped:
        _copy(base.x, Store(folder, share=0, progress=store.progress))
    if source.other is not None:
        write(source.other, folder / SECOND, store.second)
    rows: dict[str, Any] = {f"rows_{k}": d.rows for k, d in source.parts.items()
                            if d.rows is not None}
    extras = {k: getattr(base, k) for k in EXTRAS if getattr(base, k) is not None}
    np.savez(folder / "arrays.npz", **rows, **extras)
    meta = {"kind": "latlas packed data", "format": _format(source),
            "name": source.name, "space": base.space.to_json(), "parts": list(source.parts),
            "notes": source.notes}
    if source.other is not None:
        meta["paired"] = source.paired
    (folder / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _format(source: Source) -> int:
    """The least that can be read back."""
    if source.base.clip is not None:
        return FORMAT
    return 1 if source.other is None else FORMAT - 1


def _copy(x: Any, store: Store) -> None:
    out, done = store.allocate(x.shape, x.dtype), 0
    for chunk in ArrayReader(x).chunks():
        out[done:done + len(chunk)] = chunk
        done += len(chunk)
        store.done(done, len(x))


def open_packed(path: Path) -> Source:
    """A packed folder. The map is copy-on-write: writable for torch, unchanged on disk."""
    try:
        meta = json.loads((path / META).read_text(encoding="utf-8"))
        if meta.get("format", 0) > FORMAT:
            raise DataError(f"{path} was packed by a newer latlas (format {meta['format']}); "
                            "upgrade latlas or pack it again")
        x = np.load(path / "x.npy", mmap_mode="c")
        with np.load(path / "arrays.npz") as arrays:
            extras = {k: arrays[k] for k in arrays.files}
        space = Space.from_json(meta["space"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a whole packed folder: {error}") from None
    rows = {k: extras.pop(f"rows_{k}") for k in meta["parts"] if f"rows_{k}" in extras}
    source = make(meta["name"], Dataset(x, space, **extras), parts=rows,
                  notes=tuple(meta["notes"]))
    if "paired" not in meta:
        return source
    other = open_packed(path / SECOND)
    return replace(source, space=replace(source.space, target=other.space), other=other,
                   paired=meta["paired"])


def cache_root() -> Path:
    """Where automatically packed data lies."""
    return Path(os.environ.get("LATLAS_CACHE") or Path.home() / ".cache/latlas").expanduser()


def find_cached(spec: dict[str, Any]) -> Path | None:
    """The packed folder of this source, if it is whole and the files have not changed since."""
    if not any(cache_root().glob(f"packed-{_digest(json.dumps(spec, default=str))}-*/{META}")):
        return None
    folder = cache_folder(spec)
    return folder if (folder / META).exists() else None


def cache_folder(spec: dict[str, Any]) -> Path:
    """Named by the source and its options, then by its files' names, sizes and times."""
    named = spec["source"] if isinstance(spec["source"], list) else [spec["source"]]
    paths = [Path(str(name).partition("::")[0]) for name in named]
    files = [f for p in paths for f in (sorted(p.rglob("*")) if p.is_dir() else [p])]
    stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.exists()]
    name = f"packed-{_digest(json.dumps(spec, default=str))}-{_digest(repr(stats))}"
    return cache_root() / name


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


