"""Files of other programs as named arrays: IDX, CIFAR and MATLAB."""

import gzip
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.data import arrays, dataset, streams
from latlas.data.arrays import Arrays, NpzOptions
from latlas.data.dataset import Source, Store
from latlas.data.streams import Array, in_memory

#: NumPy's name of an IDX type code
IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
CIFAR_PIXELS = 3 * 32 * 32  # of a record
CIFAR_NAMES = {"fine": "fine_label_names.txt", "coarse": "coarse_label_names.txt",
               "label": "batches.meta.txt"}
SVHN = {"_train": "train_32x32.mat", "_test": "test_32x32.mat"}
SVHN_SHAPE = (32, 32, 3)  # of examples, whose label 10 is the digit 0
SECONDS, BYTES_A_SECOND = 60, 10e6  # until reading a MATLAB file is given up
LOADED = 2 << 30  # bytes of address space that Python, NumPy and SciPy take
SCRIPT = Path(__file__).with_name("mat_to_npz.py")
ONE_THREAD = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"


def open_idx(path: Path, *, store: Store, label: str | None = None, levels: int | None = None,
             image_size: int | None = None, layout: str | None = None) -> Source:
    """One IDX file (LeCun's MNIST format, plain or gzipped) of examples, or a folder with train and
    test parts; labels are those of the file beside."""
    if label not in (None, "none"):
        raise DataError(f"{path}: IDX files have one kind of label; leave out "
                        f"{say_option('label', label)}")
    parts = {} if path.is_dir() else {"": path}
    for file in sorted(path.iterdir()) if path.is_dir() else ():
        if "ubyte" not in file.name or "labels" in file.name:
            continue
        part = "_test" if "t10k" in file.name or "test" in file.name else "_train"
        first = parts.setdefault(part, file)  # a plain file goes before its gzipped copy
        if first.name.removesuffix(".gz") != file.name.removesuffix(".gz"):
            raise DataError(f"{path} holds {first.name} and {file.name}; name one of the files")
    if not parts:
        raise DataError(f"{path} holds IDX labels but no examples (such as "
                        "train-images-idx3-ubyte)")
    openers = {f"x{part}": partial(in_idx, file) for part, file in parts.items()}
    for part, file in parts.items():
        name = file.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
        for beside in (file.with_name(name + ".gz"), file.with_name(name)):
            if beside != file and beside.exists():
                openers[f"y{part}"] = partial(in_idx, beside)
    label = label or ("y" if len(openers) == 2 * len(parts) else None)
    how = NpzOptions(levels, image_size, layout, label=label)
    return Arrays(openers, str(path), how).read(store, path.name.split(".")[0])


def in_idx(path: Path) -> Array:
    """Two zero bytes, a type code, the number of axes, then each axis as big-endian uint32."""
    def header(stream: IO[bytes], name: str) -> streams.Header:
        head = streams.read_exactly(stream, 4, name)
        if head[:2] != b"\0\0" or head[2] not in IDX_TYPES or not head[3]:
            raise DataError(f"{name} is not an IDX file (it starts with {head[:4].hex()})")
        axes = np.frombuffer(streams.read_exactly(stream, 4 * head[3], name), ">u4")
        return tuple(axes.tolist()), False, np.dtype(IDX_TYPES[head[2]])

    size, packed = streams.regular(path).stat().st_size, path.suffix == ".gz"
    most = streams.DEFLATE * (size + 1) if packed else size
    return streams.in_file(partial(gzip.open if packed else Path.open, path, "rb"), str(path),
                           most, header)


def open_cifar(path: Path, *, store: Store, label: str | None = None,
               image_size: int | None = None) -> Source:
    """CIFAR-10 and CIFAR-100, binary version (A. Krizhevsky, Learning Multiple Layers of Features
    from Tiny Images, 2009): a folder or ``.tar.gz`` of the batches, or one, of records of one or
    two label bytes and 3×32×32 pixels. Of CIFAR-100 ``label`` is ``fine`` (default) or ``coarse``.
    """
    files = _cifar_files(path)
    batches = sorted(name for name in files if name.endswith(".bin"))
    if not batches:
        raise DataError(f"{path} holds no CIFAR binary batches (.bin); the Python version is "
                        "pickled and never loaded, take the binary version")
    records = {}
    for name in batches:  # of one or two bytes of labels
        size, widths = len(files[name]), (1 + CIFAR_PIXELS, 2 + CIFAR_PIXELS)
        width = next((w for w in widths if size and size % w == 0), 0)
        if not width:
            raise DataError(f"{path}: {name} has {size:,} bytes, which is not a whole number "
                            "of CIFAR records; it may be truncated")
        records[name] = np.frombuffer(files[name], np.uint8).reshape(-1, width)
    kinds = {"fine": 1, "coarse": 0} if width == 2 + CIFAR_PIXELS else {"label": 0}
    chosen = next(iter(kinds)) if label in (None, "none") else str(label)
    if chosen not in kinds:
        raise DataError(f"{path}: {unknown('label', chosen, kinds)}")
    openers = {}
    for part in ("train", "test"):
        some = [records[n] for n in batches if n.startswith("test") == (part == "test")]
        if some:
            rows = np.concatenate(some)
            openers[f"x_{part}"] = partial(in_memory, rows[:, -CIFAR_PIXELS:], str(path))
            openers[f"y_{part}"] = partial(in_memory, rows[:, kinds[chosen]], f"{path}: labels")
    if names := files.get(CIFAR_NAMES[chosen], b"").decode("utf-8", "replace").split():
        openers["names"] = partial(in_memory, np.array(names))
    how = NpzOptions(256, image_size, shape="3x32x32", label="y")
    return Arrays(openers, str(path), how).read(store, path.name.split(".")[0])


def _cifar_files(path: Path) -> dict[str, bytes]:
    """Contents of the batches and of the lists of class names, by file name."""
    def of_use(name: str) -> bool:
        return name.endswith(".bin") or name in CIFAR_NAMES.values()

    if path.is_dir() or path.suffix == ".bin":
        places = [p for p in (path if path.is_dir() else path.parent).iterdir()
                  if of_use(p.name) and p.is_file()
                  and (path.is_dir() or p == path or p.suffix != ".bin")]
        streams.claim(sum(p.stat().st_size for p in places), path)
        return {p.name: p.read_bytes() for p in places}
    packed, size, files = path.stat().st_size, 0, dict[str, bytes]()
    with streams.readable(path, "cannot be read as .tar.gz"), tarfile.open(path) as archive:
        for member in archive:
            size += member.size
            streams.claim_unpacked(size, packed, path)
            name = PurePosixPath(member.name).name
            stream = archive.extractfile(member) if member.isfile() and of_use(name) else None
            if stream is not None:
                files[name] = streams.read_exactly(stream, member.size, f"{path}: {name}")
    return files


def open_mat(path: Path, *, how: NpzOptions, store: Store) -> Source:
    """A ``.mat`` file (version 4 to 7) of examples ``X`` (or the ``key``) and labels ``y`` (or the
    ``label``), tables as ODDS has them or images, or a folder with SVHN's ``train_32x32.mat`` and
    ``test_32x32.mat`` (Y. Netzer et al., Reading Digits in Natural Images with Unsupervised Feature
    Learning, 2011).

    Examples are the rows of a table (n, d). Of images (H, W[, C], N) the last axis counts, as
    MATLAB has them, or the first where the labels are as many.
    """
    files = {part: path / name for part, name in SVHN.items() if (path / name).exists()}
    with ExitStack() as stack:
        contents = {f"{key}{part}": opener for part, file in (files or {"": path}).items()
                    for key, opener in stack.enter_context(_contents(file)).items()}
        values, notes = Arrays(contents, str(path), how), list[str]()
        items = values.keys(arrays.ITEMS, how.key)
        if not items:
            raise values.undecided()
        labels = {} if how.label == "none" else values.keys(arrays.LABELS, how.label, "label")
        y = {part: _vector(array) for part, key in labels.items()
             if not (array := values.array(key)).dtype.hasobject}
        layout, shapes = how.layout, []
        for part, key in items.items():
            x, count = values.array(key), len(y[part]) if part in y else None
            streams.refuse_objects(x.dtype, x.name)
            last = len(x.shape) > 2
            if count in (x.shape[0], x.shape[-1]) and x.shape[0] != x.shape[-1]:
                last = count == x.shape[-1]
            if last:
                layout = layout or "NHWC"
                contents[key] = partial(in_memory, np.moveaxis(x.whole(), -1, 0), x.name)
                shapes.append(x.shape[:-1])
            if last and len(x.shape) == 2:
                notes.append(f"the columns of {key} are the examples, since {labels[part]} has "
                             f"{count:,}")
        ten = max((v.max(initial=0) for v in y.values() if v.dtype.kind in "iuf"), default=0) == 10
        for part, label in y.items():
            label = label % 10 if ten and {*shapes} == {SVHN_SHAPE} else label
            contents[labels[part]] = partial(in_memory, label, f"{path}: {labels[part]}")
        source = Arrays(contents, str(path), replace(how, layout=layout)).read(store, path.stem)
    return replace(source, notes=(*notes, *source.notes))


def _vector(array: Array) -> NDArray[Any]:
    """A row or column of MATLAB as (n,), its words without the blanks that fill them up."""
    y = array.whole()
    y = y.reshape(-1) if y.size == max(y.shape) else y  # or one-hot
    return np.char.strip(y) if y.dtype.kind == "U" else y


@contextmanager
def _contents(file: Path) -> Iterator[dict[str, Callable[[], Array]]]:
    """What opens the arrays of a file, which another process reads: a damaged file can bring down
    the one that does."""
    with streams.regular(file).open("rb") as stream:
        head = stream.read(1024)
    way_out = "save it with save('FILE.mat', 'X', 'y', '-v7'), or its arrays as an .npz"
    if head.startswith(b"MATLAB 7.3 MAT-file") or b"\x89HDF" in (head[:4], head[512:516]):
        raise DataError(f"{file} is a MATLAB file of version 7.3 (HDF5), which is not read; "
                        f"{way_out}")
    size = file.stat().st_size
    streams.claim(size, file)
    most = LOADED + min(dataset.available_memory(),
                        4 * max(streams.BOMB, streams.BOMB_RATIO * size))
    seconds = SECONDS + size / BYTES_A_SECOND
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "content.npz")
        try:
            child = subprocess.run(
                [sys.executable, "-P", "-X", "utf8", SCRIPT, file.absolute(), out, str(most)],
                env={**os.environ, **dict.fromkeys(ONE_THREAD, "1")}, capture_output=True,
                encoding="utf-8", errors="replace", timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise DataError(f"{file} cannot be read as .mat: no end after {seconds:.0f} s; "
                            f"{way_out}") from None
        if child.returncode:
            lines = child.stderr.strip().splitlines() if child.returncode == 1 else []
            why = lines[-1][:300] if lines else f"reading it fails (status {child.returncode})"
            raise DataError(f"{file} cannot be read as .mat: {why}")
        others = [line for line in child.stdout.splitlines() if line]
        if out.stat().st_size <= 22:  # an empty zip
            raise DataError(f"{file} holds no arrays of numbers, but "
                            f"{', '.join(others) or 'nothing'}")
        yield {**arrays.open_npz(out, how=NpzOptions(), name=str(file)).openers, **{
            key: partial(in_memory, np.array(None), f"{file}: {key}") for key in others}}
