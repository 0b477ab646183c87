"""CIFAR-10 and CIFAR-100, binary version: records of one or two label bytes and 3×32×32 pixels.

A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, unknown
from latlas.data.arrays import ArrayReader, Options, Reader, load
from latlas.data.dataset import Dataset
from latlas.data.labels import encode_labels
from latlas.data.source import Source, make
from latlas.data.store import Store

PIXELS = 3 * 32 * 32
Bytes = NDArray[np.uint8]


def open_cifar(path: Path, *, store: Store | None = None, label: str | None = None,
               image_size: int | None = None) -> Source:
    """A folder or ``.tar.gz`` of the binary batches, or one of them.

    Args:
        label: of CIFAR-100, ``fine`` (default) or ``coarse``.
    """
    files = _files(path)
    batches = {n: d for n, d in sorted(files.items()) if n.endswith(".bin")}
    if not batches:
        raise DataError(f"{path} holds no CIFAR binary batches (.bin); the Python version is "
                        "pickled and never loaded, take the binary version")
    heads = {n: _label_bytes(n, d, path) for n, d in batches.items()}
    order = sorted(batches, key=lambda n: n.startswith("test"))
    column, names = _column(heads[order[0]], label, files, path)
    records = [np.frombuffer(batches[n], np.uint8).reshape(-1, heads[n] + PIXELS) for n in order]
    readers: list[Reader] = [ArrayReader(r[:, heads[n]:], n)
                             for n, r in zip(order, records, strict=True)]
    x, space = load(readers, store or Store(), Options(image_size=image_size, shape="3x32x32",
                                                       levels=256))
    values = np.concatenate([r[:, column] for r in records])
    codes, classes = encode_labels(values, f"{path}: labels", names)
    test = np.repeat([n.startswith("test") for n in order], [len(r) for r in records])
    parts = {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}
    data = Dataset(x, replace(space, classes=classes), codes)
    return make(path.name.split(".")[0], data, parts=parts if all(map(len, parts.values()))
                else None)


def _files(path: Path) -> Mapping[str, bytes]:
    """Contents of the batches and of the lists of class names, by file name."""
    if path.is_dir():
        return {p.name: p.read_bytes() for p in path.iterdir() if p.suffix in (".bin", ".txt")}
    if path.suffix == ".bin":
        beside = {p.name: p.read_bytes() for p in path.parent.glob("*.txt")}
        return {**beside, path.name: path.read_bytes()}
    try:
        with tarfile.open(path) as archive:
            members = [m for m in archive if m.isfile() and m.name.endswith((".bin", ".txt"))]
            found = {PurePosixPath(m.name).name: archive.extractfile(m) for m in members}
            return {n: f.read() for n, f in found.items() if f is not None}
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} cannot be read as .tar.gz: {error}") from None


def _label_bytes(name: str, data: bytes, path: Path) -> int:
    """One label byte per record in CIFAR-10, two in CIFAR-100."""
    two = name in ("train.bin", "test.bin")
    for count in (2, 1) if two else (1, 2):
        if data and len(data) % (count + PIXELS) == 0:
            return count
    raise DataError(f"{path}: {name} has {len(data):,} bytes, which is not a whole number of "
                    "CIFAR records; it may be truncated")


def _column(count: int, label: str | None, files: Mapping[str, bytes], path: Path) -> tuple[
        int, tuple[str, ...]]:
    """Which label byte counts, and the names of its classes."""
    kinds = {"fine": 1, "coarse": 0} if count == 2 else {"label": 0}
    chosen = next(iter(kinds)) if label in (None, "none") else str(label)
    if chosen not in kinds:
        raise DataError(f"{path}: {unknown('label', chosen, kinds)}")
    listed = {"fine": "fine_label_names.txt", "coarse": "coarse_label_names.txt",
              "label": "batches.meta.txt"}[chosen]
    return kinds[chosen], tuple(files.get(listed, b"").decode("utf-8", "replace").split())
