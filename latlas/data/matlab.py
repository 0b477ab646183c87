"""MATLAB files: tables as ODDS has them (``X``, ``y``), images, and SVHN as it is published."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.data import arrays, dataset
from latlas.data.dataset import Dataset, Source, Store, encode_labels, joined_parts, make
from latlas.data.streams import BOMB, BOMB_RATIO, Array, claim, in_memory, regular

SPLITS = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
DIGIT = (32, 32, 3)  # of SVHN, whose label 10 is the digit 0
SECONDS, BYTES_A_SECOND = 60, 10e6  # until reading a file is given up
LOADED = 2 << 30  # bytes of address space that Python, NumPy and SciPy take
SCRIPT = Path(__file__).with_name("mat_to_npz.py")
ONE_THREAD = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
#: how a file of version 7.3 begins, and HDF5
NEW = b"MATLAB 7.3 MAT-file", b"\x89HDF"
WAY_OUT = "save it with save('FILE.mat', 'X', 'y', '-v7'), or its arrays as an .npz"


def open_mat(path: Path, *, how: arrays.NpzOptions, store: Store) -> Source:
    """A ``.mat`` file (version 4 to 7) of examples ``X`` (or the ``key``) and labels ``y`` (or the
    ``label``), or a folder with SVHN's ``train_32x32.mat`` and ``test_32x32.mat`` (Y. Netzer et
    al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011).

    Examples are the rows of a table (n, d). Of images (H, W[, C], N) the last axis counts, as
    MATLAB has them, or the first where the labels are as many.
    """
    both = {part: path / name for part, name in SPLITS.items()}
    files = {k: p for k, p in both.items() if p.exists()} if path.is_dir() else {"all": path}
    examples, labels, notes = dict[str, Array](), list[NDArray[Any]](), list[str]()
    with ExitStack() as stack:
        for part, file in files.items():
            values, more = stack.enter_context(_contents(file))
            x, y, turned = _examples_and_labels(values, more, file, how, notes)
            examples[part] = x
            labels += [] if y is None else [y]
        if labels and len(labels) < len(files):
            raise DataError(f"{path}: one of its files has no labels; "
                            f"{say_option('label', 'none')} leaves them out")
        layout = how.layout or ("NHWC" if turned else None)
        data = arrays.read_arrays(list(examples.values()), store, replace(how, layout=layout))
    if labels:
        data, note = _labelled(data, labels, f"{path}: {how.label or 'y'}", how.label is not None)
        notes += note
    return make(path.stem, data, notes=tuple(notes),
                parts=joined_parts({k: r.shape[0] for k, r in examples.items()}))


def _labelled(data: Dataset, labels: list[NDArray[Any]], where: str, asked: bool) -> tuple[
        Dataset, list[str]]:
    y = np.concatenate(labels)
    if data.x.shape[1:] == (DIGIT[2], *DIGIT[:2]) and y.dtype.kind in "iuf" and y.max() == 10:
        y = y % 10
    try:
        return data.with_labels(*encode_labels(y, where)), []
    except DataError as error:
        if asked:
            raise
        return data, [f"left out: {error}"]


def _examples_and_labels(values: arrays.Npz, skipped: list[str], file: Path,
                         how: arrays.NpzOptions, notes: list[str]) -> tuple[
                             Array, NDArray[Any] | None, bool]:
    """X, examples first, y, and whether the examples were on the last axis of X."""
    keys = values.keys
    by_name = {key.lower(): key for key in keys}
    key = how.key or next((by_name[k] for k in arrays.ITEMS if k in by_name), None)
    if key not in keys:
        listed = ", ".join([*keys, *(f"{k} (no array of numbers)" for k in skipped)]) or "nothing"
        raise DataError(f"{file} holds {listed}; choose the examples with {say_option('key')}"
                        if how.key is None else f"{file}: {unknown('key', how.key, keys)}")
    label = how.label or next((by_name[k] for k in arrays.LABELS if k in by_name), None)
    if label not in (None, "none", *keys):
        raise DataError(f"{file}: {unknown('label', str(label), keys)}")
    x, y = values.array(key), None
    if label not in (None, "none"):
        y = values.array(str(label)).whole()
        y = y.reshape(-1) if y.size == max(y.shape, default=0) else y  # or one-hot
        y = np.char.strip(y) if y.dtype.kind == "U" else y
    x, turned = _examples_first(x, None if y is None else len(y))
    if turned and len(x.shape) == 2:
        notes.append(f"{file.name}: the columns of {key} are the examples, since {label} has "
                     f"{x.shape[0]:,}")
    if y is not None and len(y) != x.shape[0]:
        raise DataError(f"{file}: {label} has {len(y):,} labels for {x.shape[0]:,} examples in "
                        f"{key}; {say_option('label', 'none')} leaves them out")
    unused = [k for k in keys if k not in (key, label) and (how.label != "none"
                                                            or k.lower() not in arrays.LABELS)]
    if unused or skipped:
        notes.append(f"{file.name}: not used: {', '.join([*unused, *skipped])}")
    return x, y, turned


def _examples_first(x: Array, count: int | None) -> tuple[Array, bool]:
    """The array with its examples on the first axis, and whether they were on the last."""
    last = len(x.shape) > 2
    if len(x.shape) > 1 and count in (x.shape[0], x.shape[-1]) and x.shape[0] != x.shape[-1]:
        last = count == x.shape[-1]
    if not last:
        return x, False
    return in_memory(np.moveaxis(x.whole(), -1, 0), x.name), True


@contextmanager
def _contents(file: Path) -> Iterator[tuple[arrays.Npz, list[str]]]:
    """The arrays of a file, and the keys of what is no array; another process reads it, as a
    damaged file can bring down the one that does."""
    with regular(file).open("rb") as stream:
        head = stream.read(1024)
    if head.startswith(NEW[0]) or NEW[1] in (head[:4], head[512:516]):
        raise DataError(f"{file} is a MATLAB file of version 7.3 (HDF5), which is not read; "
                        f"{WAY_OUT}")
    size = file.stat().st_size
    claim(size, file)
    most = LOADED + min(dataset.available_memory(), 4 * max(BOMB, BOMB_RATIO * size))
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
                            f"{WAY_OUT}") from None
        if child.returncode:
            lines = child.stderr.strip().splitlines() if child.returncode == 1 else []
            why = lines[-1][:300] if lines else f"reading it fails (status {child.returncode})"
            raise DataError(f"{file} cannot be read as .mat: {why}")
        skipped = [line for line in child.stdout.splitlines() if line]
        if out.stat().st_size <= 22:  # an empty zip
            raise DataError(f"{file} holds no arrays of numbers, but "
                            f"{', '.join(skipped) or 'nothing'}")
        yield arrays.open_npz(out, how=arrays.NpzOptions(), name=str(file)), skipped
