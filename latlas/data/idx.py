"""IDX files (LeCun's MNIST format), plain or gzipped, alone or as a folder of them.

A big-endian header: two zero bytes, a type code, the number of axes, then each axis as uint32.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.data.arrays import Options, Reader, chunk_rows, load
from latlas.data.dataset import Dataset
from latlas.data.labels import encode_labels
from latlas.data.source import Source, make
from latlas.data.store import Store

TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def open_idx(path: Path, *, store: Store | None = None, label: str | None = None,
             levels: int | None = None, image_size: int | None = None,
             layout: str | None = None) -> Source:
    """One IDX file of items or a folder with train and test parts; labels are found beside."""
    parts = _parts(path) if path.is_dir() else {"all": path}
    readers: dict[str, Reader] = {k: IdxReader(p) for k, p in parts.items()}
    x, space = load(list(readers.values()), store or Store(), Options(levels, image_size, layout))
    beside = [_labels_of(p) for p in parts.values()]
    if label not in (None, "none"):
        raise DataError(f"{path}: IDX files have one kind of label; leave out label={label}")
    codes, classes = None, tuple[str, ...]()
    if all(beside) and label != "none":
        values = np.concatenate([IdxReader(p).whole() for p in beside if p])
        codes, classes = encode_labels(values, f"{path}: labels")
        if len(codes) != len(x):
            raise DataError(f"{path}: {len(codes):,} labels for {len(x):,} items")
    stops = np.cumsum([r.shape[0] for r in readers.values()])
    rows = {k: np.arange(stop - r.shape[0], stop)
            for (k, r), stop in zip(readers.items(), stops, strict=True)}
    data = Dataset(x, replace(space, classes=classes), codes)
    return make(path.name.split(".")[0], data, parts=rows if len(rows) > 1 else None)


def _parts(folder: Path) -> dict[str, Path]:
    """The item files of a folder by part; a plain file goes before its gzipped copy."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if "ubyte" not in path.name or "labels" in path.name:
            continue
        part = "test" if "t10k" in path.name or "test" in path.name else "train"
        known = found.setdefault(part, path)
        if known.name.removesuffix(".gz") != path.name.removesuffix(".gz"):
            raise DataError(f"{folder} holds {known.name} and {path.name}; name one of the files")
    if not found:
        raise DataError(f"{folder} holds IDX labels but no items (such as "
                        "train-images-idx3-ubyte)")
    return dict(sorted(found.items(), reverse=True)) if len(found) > 1 else {
        "all": next(iter(found.values()))}


def _labels_of(path: Path) -> Path | None:
    """The file of labels beside one of items."""
    name = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    both = (path.with_name(name), path.with_name(name + ".gz"))
    return next((p for p in both if p != path and p.exists()), None)


class IdxReader:
    """Reads an IDX file piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        with self._stream() as stream:
            self.shape, self.dtype = self._header(stream)

    def _stream(self) -> Any:
        return gzip.open(self.path) if self.path.suffix == ".gz" else self.path.open("rb")

    def _header(self, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
        head = self._bytes(stream, 4)
        if head[:2] != b"\0\0" or head[2] not in TYPES:
            raise DataError(f"{self.name} is not an IDX file (it starts with {head[:4].hex()})")
        axes = np.frombuffer(self._bytes(stream, 4 * head[3]), ">u4")
        return tuple(int(a) for a in axes), np.dtype(TYPES[head[2]])

    def _bytes(self, stream: IO[bytes], count: int) -> bytes:
        try:
            data = stream.read(count)
        except (OSError, EOFError) as error:
            raise DataError(f"{self.name} is damaged: {error}") from None
        if len(data) != count:
            raise DataError(f"{self.name} is truncated")
        return data

    def chunks(self) -> Iterator[NDArray[Any]]:
        step = chunk_rows(self.shape, self.dtype)
        item = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        with self._stream() as stream:
            self._header(stream)
            for start in range(0, self.shape[0], step):
                rows = min(step, self.shape[0] - start)
                data = np.frombuffer(self._bytes(stream, rows * item), self.dtype)
                yield data.reshape(rows, *self.shape[1:])

    def whole(self) -> NDArray[Any]:
        """All of it, for labels."""
        return np.concatenate(list(self.chunks()))
