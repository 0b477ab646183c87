"""Files of well-known data sets: IDX (MNIST), CIFAR and SVHN."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.data.arrays import Options, load
from latlas.data.dataset import Dataset, Source, encode_labels, joined_parts, make
from latlas.data.storage import Array, Header, Store, in_file, in_memory, read_exactly

#: NumPy's name of an IDX type code
TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
#: of a CIFAR record
PIXELS = 3 * 32 * 32


def open_idx(path: Path, *, store: Store, label: str | None = None, levels: int | None = None,
             image_size: int | None = None, layout: str | None = None) -> Source:
    """One IDX file (LeCun's MNIST format, plain or gzipped) of examples, or a folder with train and
    test parts; labels are those of the file beside."""
    parts = _idx_parts(path) if path.is_dir() else {"all": path}
    arrays = {k: _idx(p) for k, p in parts.items()}
    x, space = load(list(arrays.values()), store, Options(levels, image_size, layout))
    if label not in (None, "none"):
        raise DataError(f"{path}: IDX files have one kind of label; leave out "
                        f"{say_option('label', label)}")
    beside = []
    for file in parts.values():
        name = file.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
        both = file.with_name(name), file.with_name(name + ".gz")
        beside += [p for p in both if p != file and p.exists()][:1]
    codes, classes = None, tuple[str, ...]()
    if len(beside) == len(parts) and label != "none":
        codes, classes = encode_labels(np.concatenate([_idx(p).whole() for p in beside]),
                                       f"{path}: labels")
        if len(codes) != len(x):
            raise DataError(f"{path}: {len(codes):,} labels for {len(x):,} examples")
    return make(path.name.split(".")[0], Dataset(x, space.replace(classes=classes), codes),
                parts=joined_parts({k: r.shape[0] for k, r in arrays.items()}))


def _idx_parts(folder: Path) -> dict[str, Path]:
    """The files of examples in a folder by part; a plain file goes before its gzipped copy."""
    parts: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if "ubyte" not in path.name or "labels" in path.name:
            continue
        part = "test" if "t10k" in path.name or "test" in path.name else "train"
        first = parts.setdefault(part, path)
        if first.name.removesuffix(".gz") != path.name.removesuffix(".gz"):
            raise DataError(f"{folder} holds {first.name} and {path.name}; name one of the files")
    if not parts:
        raise DataError(f"{folder} holds IDX labels but no examples (such as "
                        "train-images-idx3-ubyte)")
    return dict(sorted(parts.items(), reverse=True)) if len(parts) > 1 else {
        "all": next(iter(parts.values()))}


def _idx(path: Path) -> Array:
    return in_file(lambda: gzip.open(path) if path.suffix == ".gz" else path.open("rb"),
                      str(path), _idx_header)


def _idx_header(stream: IO[bytes], name: str) -> Header:
    """Two zero bytes, a type code, the number of axes, then each axis as big-endian uint32."""
    head = read_exactly(stream, 4, name)
    if head[:2] != b"\0\0" or head[2] not in TYPES:
        raise DataError(f"{name} is not an IDX file (it starts with {head[:4].hex()})")
    axes = np.frombuffer(read_exactly(stream, 4 * head[3], name), ">u4")
    return tuple(int(a) for a in axes), False, np.dtype(TYPES[head[2]])


def open_cifar(path: Path, *, store: Store, label: str | None = None,
               image_size: int | None = None) -> Source:
    """CIFAR-10 and CIFAR-100, binary version: a folder or ``.tar.gz`` of the batches, or one.

    A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009): records of one or
    two label bytes and 3×32×32 pixels.

    Args:
        label: of CIFAR-100, ``fine`` (default) or ``coarse``.
    """
    files = _cifar_files(path)
    batches = {n: d for n, d in sorted(files.items()) if n.endswith(".bin")}
    if not batches:
        raise DataError(f"{path} holds no CIFAR binary batches (.bin); the Python version is "
                        "pickled and never loaded, take the binary version")
    heads = {}  # label bytes of a record: one in CIFAR-10, two in CIFAR-100
    for name, data in batches.items():
        counts = (2, 1) if name in ("train.bin", "test.bin") else (1, 2)
        whole = [k for k in counts if data and len(data) % (k + PIXELS) == 0]
        if not whole:
            raise DataError(f"{path}: {name} has {len(data):,} bytes, which is not a whole number "
                            "of CIFAR records; it may be truncated")
        heads[name] = whole[0]
    order = sorted(batches, key=lambda n: n.startswith("test"))
    kinds = {"fine": 1, "coarse": 0} if heads[order[0]] == 2 else {"label": 0}
    chosen = next(iter(kinds)) if label in (None, "none") else str(label)
    if chosen not in kinds:
        raise DataError(f"{path}: {unknown('label', chosen, kinds)}")
    listed = files.get({"fine": "fine_label_names.txt", "coarse": "coarse_label_names.txt",
                        "label": "batches.meta.txt"}[chosen], b"")
    records = [np.frombuffer(batches[n], np.uint8).reshape(-1, heads[n] + PIXELS) for n in order]
    arrays = [in_memory(r[:, heads[n]:], n)
                             for n, r in zip(order, records, strict=True)]
    x, space = load(arrays, store, Options(256, image_size, shape="3x32x32"))
    codes, classes = encode_labels(np.concatenate([r[:, kinds[chosen]] for r in records]),
                                   f"{path}: labels",
                                   tuple(listed.decode("utf-8", "replace").split()))
    test = np.repeat([n.startswith("test") for n in order], [len(r) for r in records])
    parts = {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}
    return make(path.name.split(".")[0], Dataset(x, space.replace(classes=classes), codes),
                parts=parts if all(map(len, parts.values())) else None)


def _cifar_files(path: Path) -> Mapping[str, bytes]:
    """Contents of the batches and of the lists of class names, by file name."""
    if path.is_dir():
        return {p.name: p.read_bytes() for p in path.iterdir() if p.suffix in (".bin", ".txt")}
    if path.suffix == ".bin":
        beside = {p.name: p.read_bytes() for p in path.parent.glob("*.txt")}
        return {**beside, path.name: path.read_bytes()}
    try:
        with tarfile.open(path) as archive:
            members = [m for m in archive if m.isfile() and m.name.endswith((".bin", ".txt"))]
            files = {PurePosixPath(m.name).name: archive.extractfile(m) for m in members}
            return {n: f.read() for n, f in files.items() if f is not None}
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} cannot be read as .tar.gz: {error}") from None


def open_svhn(path: Path, *, store: Store, label: str | None = None,
              image_size: int | None = None) -> Source:
    """Street View House Numbers, cropped: a ``.mat`` file, or a folder with ``train_32x32.mat`` and
    ``test_32x32.mat``.

    Y. Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning (2011):
    MATLAB files with ``X`` (32, 32, 3, N) and ``y``.
    """
    from scipy.io import loadmat

    both = {"train": path / "train_32x32.mat", "test": path / "test_32x32.mat"}
    files = {k: p for k, p in both.items() if p.exists()} if path.is_dir() else {"all": path}
    arrays, labels = dict[str, Array](), list[NDArray[Any]]()
    for part, file in files.items():
        try:
            content = loadmat(file)
        except Exception as error:  # scipy raises many kinds for damaged files
            raise DataError(f"{file} cannot be read as .mat: {error}") from None
        if "X" not in content or "y" not in content or content["X"].ndim != 4:
            keys = ", ".join(k for k in content if not k.startswith("__")) or "nothing"
            raise DataError(f"{file} is not an SVHN file: wanted X (H, W, C, N) and y; "
                            f"it holds {keys}")
        arrays[part] = in_memory(np.moveaxis(content["X"], 3, 0), str(file))
        labels.append(content["y"].reshape(-1).astype(np.int64))
    if label not in (None, "none", "y"):
        raise DataError(f"{path}: its one label is y; leave out {say_option('label', label)}")
    x, space = load(list(arrays.values()), store, Options(256, image_size, "NHWC"))
    codes, classes = encode_labels(np.concatenate(labels) % 10, f"{path}: y")  # 0 is 10 in the file
    return make(path.stem, Dataset(x, space.replace(classes=classes), codes),
                parts=joined_parts({k: r.shape[0] for k, r in arrays.items()}))
