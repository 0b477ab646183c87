"""Arrays in pieces: how they are read, and where they are put, in memory or in a mapped file.

Every reader asks the store for one array and fills it piece by piece, so data larger than memory
takes the same path as a small file.

A packed folder holds ``x.npy`` (the examples, mapped copy-on-write), ``arrays.npz`` (labels,
factors, groups, names, rows of the parts) and ``meta.json``; of two sides it holds a packed folder
each, ``A`` and ``B``, beside ``meta.json``. Sources that would take more than a share of the
available memory are packed once, into ``$LATLAS_CACHE`` or ``~/.cache/latlas``; the folder is named
by the source, its options and its files' sizes and times, so a changed file is packed anew.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from numpy.typing import DTypeLike, NDArray

from latlas.core.errors import DataError
from latlas.core.space import PairSpace, Record, Space
from latlas.data.dataset import Dataset, Source, make
from latlas.data.pairs import PairSource

MEMORY_SHARE = 0.5
META, FORMAT = "meta.json", 1
EXTRAS = ("label", "factors", "group", "names", "clip", "duration")
CHUNK = 1 << 24  # bytes read or written at a time
Progress = Callable[[int, int], None]
Header = tuple[tuple[int, ...], bool, np.dtype[Any]]  # shape, column order, type


@dataclass
class Array:
    """An array (N, ...) that can be read in pieces (n, ...), in order."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pieces: Callable[[], Iterator[NDArray[Any]]]

    def whole(self) -> NDArray[Any]:
        """All of it, for labels and the like."""
        return np.concatenate(list(self.pieces()))


def in_memory(array: NDArray[Any], name: str = "array") -> Array:
    """An array that is there."""
    return Array(name, array.shape, array.dtype, lambda: chunks(array))


def in_file(opener: Callable[[], Any], name: str,
            header: Callable[[IO[bytes], str], Header]) -> Array:
    """An array in a file that begins with a header.

    Args:
        opener: gives the stream at the start of the file.
        header: reads shape, order and type from the stream; its second argument is ``name``.
    """
    with opener() as stream:
        shape, column_order, dtype = header(stream, name)

    def read(stream: IO[bytes], shape: tuple[int, ...]) -> NDArray[Any]:
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        data = read_exactly(stream, size, name) if size else b""
        return np.frombuffer(data, dtype).reshape(shape) if size else np.empty(shape, dtype)

    def pieces() -> Iterator[NDArray[Any]]:
        with opener() as stream:
            header(stream, name)
            if column_order:
                yield from chunks(read(stream, shape[::-1]).T)
                return
            step, rows = chunk_rows(shape, dtype), shape[0] if shape else 1
            for start in range(0, max(rows, 1), step):
                yield read(stream, (min(step, rows - start), *shape[1:]))

    return Array(name, shape, dtype, pieces)


def read_exactly(stream: IO[bytes], size: int, name: str) -> bytes:
    """So many bytes; DataError if there are fewer."""
    try:
        data = stream.read(size)
    except Exception as error:  # zlib, lzma, gzip and zipfile each have their own
        raise DataError(f"{name} is damaged: {error}") from None
    if len(data) != size:
        raise DataError(f"{name} is truncated")
    return data


def chunks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array in pieces of some megabytes, in order."""
    step = chunk_rows(array.shape, array.dtype)
    for start in range(0, len(array), step):
        yield array[start:start + step]


def chunk_rows(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """How many rows of an array (N, ...) make one piece."""
    row = int(np.prod(shape[1:], dtype=np.int64)) * max(1, dtype.itemsize)
    return max(1, CHUNK // max(1, row))


class Store:
    """Gives out the array that holds a source's examples.

    Args:
        folder: where ``x.npy`` goes if the array is put on disk; ``None`` keeps it in memory.
        share: share of the available memory from which the array goes to disk; 0 always.
        progress: called with (examples done, examples in all) as the array fills.
    """

    def __init__(self, folder: Path | None = None, share: float = MEMORY_SHARE,
                 progress: Progress | None = None) -> None:
        self.folder, self.share, self.progress = folder, share, progress
        self.mapped = False
        self._sides: tuple[Store, ...] = ()

    def sides(self) -> tuple[Store, ...]:
        """Stores for A and B."""
        self._sides = self._sides or tuple(
            Store(self.folder and self.folder / name, self.share, self.progress) for name in "AB")
        return self._sides

    @property
    def on_disk(self) -> bool:
        """An array was put on disk."""
        return self.mapped or any(side.mapped for side in self._sides)

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of this shape to fill, in memory or on disk by its size.

        On disk its blocks are reserved first, so that a full disk is an error now.
        """
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if self.folder is None or (self.share > 0 and size <= self.share * available_memory()):
            return np.empty(shape, dtype)
        array: Any = None
        self.mapped, path = True, self.folder / "x.npy"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            array = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if array is not None and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                return array  # a file system that reserves nothing
            path.unlink(missing_ok=True)
            raise DataError(f"{self.folder.parent}: cannot write {size / 1e9:.3g} GB of packed "
                            f"data ({error.strerror}); free the space or choose another folder "
                            "(LATLAS_CACHE for automatic packing)") from None
        return array

    def done(self, items: int, of: int) -> None:
        """Tell the progress callback, if there is one."""
        if self.progress is not None:
            self.progress(items, of)


def available_memory() -> int:
    """Bytes that can be allocated now: the kernel's estimate, within the container's limit."""
    limits = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(x for x in lines if x.startswith("MemAvailable"))
        limits.append(int(line.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())  # the word "max" where there is none
        limits.append(limit - int((group / "memory.current").read_text()))
    if not limits:
        with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return max(0, min(limits or [4 << 30]))


class Packed(Record, frozen=True):
    """What ``meta.json`` says."""

    format: int
    name: str
    space: Space | PairSpace
    parts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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


def write(source: Source | PairSource, folder: Path, store: Store) -> None:
    """Write a source into a folder; the examples may lie there already."""
    if isinstance(source, PairSource):
        for name, side, part in zip("AB", (source.a, source.b), store.sides(), strict=True):
            write(side, folder / name, part)
    else:
        data = source.base
        if not store.mapped:
            target, row = Store(folder, share=0).allocate(data.x.shape, data.x.dtype), 0
            for chunk in chunks(data.x):
                target[row:row + len(chunk)] = chunk
                row += len(chunk)
                store.done(row, len(data.x))
        rows: dict[str, Any] = {f"rows_{k}": d.rows for k, d in source.parts.items()
                                if d.rows is not None}
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


def stored(spec: dict[str, Any], share: float,
           read: Callable[[Store], Source | PairSource]) -> Source | PairSource:
    """What is read, or was packed of it before; it is packed now if it is large."""
    root = Path(os.environ.get("LATLAS_CACHE") or Path.home() / ".cache/latlas").expanduser()
    named = spec["source"] if isinstance(spec["source"], list) else [spec["source"]]
    paths = [Path(str(name).partition("::")[0]) for name in named]
    files = [f for p in paths for f in (sorted(p.rglob("*")) if p.is_dir() else [p])]
    stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.exists()]
    digests = (hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
               for text in (f"{FORMAT}{json.dumps(spec, default=str)}", repr(stats)))
    out = root / f"packed-{'-'.join(digests)}"
    if (out / META).exists():
        return replace(open_packed(out), spec=spec)
    with building(out) as folder:
        store = Store(folder, share)
        source = read(store)
        if store.on_disk:
            write(source, folder, store)
    return replace(open_packed(out) if store.on_disk else source, spec=spec)
