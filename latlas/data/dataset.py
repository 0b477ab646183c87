"""Examples in memory or in a memory-mapped file, the source they are of, and how it is divided.

The split rule. Parts that a file comes with are kept, and validation is 5% of train; anything else
is divided 80 / 10 / 10 into train, validation and test. A hash of an example's content (or of its
group) decides, so that no other example moves when some are added, removed, renamed or reordered,
and equal ones are together; of few, those with the smallest hashes are held out (``splits.py``).
Examples with an ``order`` are divided by it: the last ones are test, those before validation.

Tables and points are standardised, and gaps filled, by numbers of the train split alone.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from latlas.core.errors import DataError, say_number, say_option, unknown
from latlas.core.space import Images, Points, Space, Table
from latlas.data.splits import divide, divide_in_order, hash_rows, mix

Rows = NDArray[np.int64]
Progress = Callable[[int, int], None]
SPLITS = ("train", "validation", "test", "all")
TEST_SHARE, VALIDATION_SHARE, VALIDATION_OF_TRAIN = 0.1, 0.1, 0.05
MOST_CLASSES = 1000
#: file of a packed folder that says what it holds
META = "meta.json"
MEMORY_SHARE = 0.5
MOST_BYTES = 1 << 47  # beyond any disk: a slip of the hand
CHUNK = 1 << 24  # bytes read or written at a time


@dataclass(frozen=True)
class Dataset:
    r"""Examples of one space; all arrays are shared by all subsets.

    Attributes:
        x: (N, \*shape) uint8/uint16 for images, float32 or float64 otherwise; in data units; an
            array or a memory map.
        label: (N,) int64 class codes, indices into ``space.classes``.
        factors: (N, f) float32 known generative factors, named by ``space.factors``.
        group: (N,) int64 hashes of what the examples are related by; equal ones stay in one split.
        names: (N,) str, what each example is called (a file name).
        rows: (n,) int64 rows of ``x`` that belong to this data set; ``None`` means all.
        clip: (N,) int64 number of the clip that each frame is of, whose frames follow each other in
            ``x`` in the order of time; ``duration``: (N,) float32 milliseconds each is shown.
        key: (N,) uint64 hash of each example's content: of a file's bytes, of a table's values;
            ``None`` for that of the row in ``x``.
        order: (N,) int64 ranks by which examples are divided; ``None``: by their contents.
        notes: what was filled, ignored or converted when rows were brought into a run's columns.
    """

    x: NDArray[np.generic]
    space: Space
    label: Rows | None = None
    factors: NDArray[np.float32] | None = None
    group: Rows | None = None
    names: NDArray[np.str_] | None = None
    rows: Rows | None = None
    clip: Rows | None = None
    duration: NDArray[np.float32] | None = None
    key: NDArray[np.uint64] | None = None
    order: Rows | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x) if self.rows is None else len(self.rows)

    @property
    def index(self) -> Rows:
        """(n,) rows of ``x`` that belong to this data set."""
        return np.arange(len(self.x)) if self.rows is None else self.rows

    def subset(self, index: Rows | slice) -> Dataset:
        """The examples at these positions; ``x`` is shared."""
        return replace(self, rows=self.index[index])

    def with_labels(self, codes: Rows | None, classes: tuple[str, ...]) -> Dataset:
        """The same with one label for each example, of clips for each clip."""
        if codes is not None and self.clip is not None:
            codes = codes[self.clip]
        return replace(self, label=codes, space=self.space.replace(classes=classes))

    def take(self, name: str) -> NDArray[np.generic] | None:
        """An attribute of one value per example (``x``, ``label``, …), of the rows in use."""
        values: NDArray[np.generic] | None = getattr(self, name)
        return values if values is None or self.rows is None else values[self.rows]

    @property
    def neighbours(self) -> Rows | None:
        """(N,) rows of ``x``: the frame after each, before it for a clip's last, itself where a
        clip has one; ``None`` without clips."""
        if self.clip is None:
            return None
        same = np.diff(self.clip) == 0
        rows, after = np.arange(len(self.clip)), np.append(same, False)
        return np.where(after, rows + 1, rows - np.insert(same, 0, False))


@dataclass(frozen=True)
class Source:
    """Everything one name or file holds.

    Attributes:
        name: what to call it in reports.
        base: all examples in file order, as in the file: missing numbers of a table are still NaN.
            Use :func:`split` for data to work on.
        parts: rows of ``{"all"}`` or of ``{"train", "test"[, "validation"]}`` as in the file.
        spec: a JSON object :func:`latlas.data.open_source` opens again; ``None`` for arrays.
        notes: what was decided on the way (a resize, a column left out), for people to read.
        problems: columns that cannot be learnt, each with the option that solves it; a run that
            knows its columns can read the frame all the same.
        frame: the rows of a table as they stand in the file.
    """

    name: str
    base: Dataset
    parts: dict[str, Rows]
    spec: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    frame: Any = None  # a Frame of latlas.data.frames, which is above this module
    _ready: dict[int, Dataset] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def space(self) -> Space:
        """Shape and units of an example (those of the split with seed 0)."""
        return self.ready(0).space

    def ready(self, seed: int) -> Dataset:
        """All examples; missing numbers are filled and units fixed by this seed's train split.

        Raises:
            DataError: columns that cannot be learnt, all of them, with the option for each.
        """
        if self.problems:
            raise DataError(f"{self.name}: " + "; ".join(self.problems))
        data, space = self.base, self.base.space
        if isinstance(space, Images) or (isinstance(space, Table) and space.fitted):
            return data
        if seed not in self._ready:
            train = partition(self, seed)["train"]
            rows, x = train if len(train) else data.index, data.x
            if isinstance(space, Table):
                from latlas.data.values import fill_gaps, with_fills

                space = space.replace(fields=with_fills(space.fields, x, rows))
                x = fill_gaps(x, space.fields)
            self._ready[seed] = replace(data, x=x, space=standardised(space, x[rows]))
        return self._ready[seed]

    def split(self, which: str, seed: int = 0) -> Dataset:
        """See :func:`latlas.data.split`."""
        if which not in SPLITS:
            raise DataError(unknown("split", which, SPLITS))
        ready = self.ready(seed)
        if which == "all":
            return ready
        rows = partition(self, seed)[which]
        if not len(rows):
            raise DataError(f"{self.name}: {len(ready)} examples are too few for a {which} split; "
                            "use --split all, or give more examples")
        return replace(ready, rows=rows)


def make(name: str, data: Dataset, *, parts: Mapping[str, Rows] | None = None,
         notes: tuple[str, ...] = ()) -> Source:
    """A source over one data set; ``parts`` names the rows of the file's own splits."""
    parts = {k: np.asarray(v, np.int64) for k, v in (parts or {"all": data.index}).items()}
    rows = np.sort(np.concatenate(list(parts.values())))
    return Source(name, replace(data, rows=None if len(rows) == len(data.x) else rows), parts,
                  notes=notes)


def joined_parts(sizes: Mapping[str, int]) -> dict[str, Rows] | None:
    """Rows of parts that lie one after the other; ``None`` of a single one."""
    stops = np.cumsum(list(sizes.values()))
    return {part: np.arange(stop - sizes[part], stop)
            for part, stop in zip(sizes, stops, strict=True)} if len(sizes) > 1 else None


def split(source: Any, which: str, *, seed: int = 0) -> Any:
    """The examples of one split, a Dataset or of two sides a PairDataset, ready to train on.

    Args:
        which: ``train``, ``validation``, ``test``, or ``all`` (every example, in file order).
        seed: decides the permutation; the default is the one every run and report uses.

    Raises:
        DataError: no such split, or the source has too few examples (or groups) to fill it.
    """
    return source.split(which, seed)


def partition(source: Source, seed: int = 0) -> dict[str, Rows]:
    """Rows of ``train``, ``validation`` and ``test``, each in file order."""
    parts, data = dict(source.parts), source.base
    if set(parts) == {"train", "validation"}:  # the part people hold out is the one to test on
        parts["test"] = parts.pop("validation")
    own = parts if {"train", "test"} <= set(parts) else {}
    if "validation" not in own:
        rows, shares = own.get("train", data.index), {"validation": VALIDATION_OF_TRAIN} if own \
            else {"validation": VALIDATION_SHARE, "test": TEST_SHARE}
        if data.order is not None:
            own |= divide_in_order(rows, data.order, shares)
        else:
            grouped = data.group is not None
            keys = mix(np.asarray(data.group).astype(np.int64).view(np.uint64)) if grouped \
                else content_keys(data)
            if seed:
                keys = mix(keys ^ mix(np.full(1, seed, np.uint64)))
            own |= divide(rows, keys, grouped, shares)
    return {part: own[part] for part in ("train", "validation", "test")}


def content_keys(data: Dataset) -> NDArray[np.uint64]:
    """(N,) a hash of each row's content."""
    if data.key is not None:
        return data.key
    return np.concatenate([hash_rows(chunk) for chunk in chunks(data.x)] or [
        np.zeros(0, np.uint64)])


def standardised(space: Space, train: NDArray[Any]) -> Space:
    """The space with location and scale from the train rows (n, d): of table columns their mean and
    standard deviation. Columns that hold only 0 and 1 become −1 and 1; constant columns keep scale
    1. Points share one scale, which keeps their geometry."""
    width = max(8, CHUNK // (8 * len(train) + 1))  # columns at a time, which needs little memory
    blocks = [train[:, i:i + width] for i in range(0, train.shape[1], width)]
    mean, sd = np.concatenate([moments(block) for block in blocks], axis=1)
    if isinstance(space, Points):
        sd = np.full_like(sd, np.sqrt((sd**2).mean()))
    else:
        binary = (sd > 0) & np.concatenate([
            ((block == 0) | (block == 1)).all(axis=0) for block in blocks])
        mean, sd = np.where(binary, 0.5, mean), np.where(binary, 0.5, sd)
    sd = np.where(sd > 1e-12 * np.abs(mean), sd, 1.0)  # constant, but for rounding
    return space.replace(location=tuple(mean.tolist()), scale=tuple(sd.tolist()))


def moments(values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of numbers (n, ...), even where squares would overflow."""
    largest = np.abs([values.min(axis=0), values.max(axis=0)]).max(axis=0).astype(np.float64)
    unit = np.where(largest > 1e100, largest, 1.0)
    scaled = values / unit
    return scaled.mean(axis=0) * unit, scaled.std(axis=0) * unit


def encode_labels(values: Any, where: str, names: tuple[str, ...] = (),
                  most: int = MOST_CLASSES) -> tuple[Rows, tuple[str, ...]]:
    """Codes (N,) int64 and class names, numbers in numeric order and words in alphabetical order.

    Args:
        values: (N,) numbers or words, (N, 1), or (N, K) one-hot.
        where: what to call the labels in an error.
        names: class names if the source has them, where ``values`` are indices into them.

    Raises:
        DataError: real-valued labels, missing labels, or more than ``most`` classes.
    """
    def refused(what: str) -> DataError:
        return DataError(f"{where} {what}; choose another label, or {say_option('label', 'none')}")

    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    elif values.ndim == 2 and np.isin(values, (0, 1)).all() and (values.sum(axis=1) == 1).all():
        values = values.argmax(axis=1)
    if values.ndim != 1 or values.dtype.kind not in "buifUS" or not len(values):
        raise refused(f"holds {values.dtype} of shape {values.shape}, not one label per example")
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    elif values.dtype.kind == "f":
        if not np.array_equal(values, np.round(values)):  # NaN is unequal to itself
            raise refused("holds real or missing numbers, not classes")
        values = values.astype(np.int64)
    if names and values.dtype.kind in "iu" and 0 <= values.min() <= values.max() < len(names):
        return values.astype(np.int64), tuple(names)
    levels, codes = np.unique(values, return_inverse=True)
    if len(levels) > most:
        raise refused(f"has {len(levels):,} distinct values, too many for classes")
    return codes.astype(np.int64), tuple(str(v) for v in levels.tolist())


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
    """Gives out the array that holds a source's examples, for readers to fill piece by piece: in
    memory, or in ``folder/x.npy`` where it takes more than this share of what is free (0: always).

    Args:
        progress: called with (examples done, examples in all) as the array fills.
    """

    def __init__(self, folder: Path | None = None, share: float = MEMORY_SHARE,
                 progress: Progress | None = None) -> None:
        self.folder, self.share, self.progress = folder, share, progress

    def side(self, name: str) -> Store:
        """That of A or B."""
        return Store(self.folder and self.folder / name, self.share, self.progress)

    @property
    def on_disk(self) -> bool:
        """An array was put on disk, of this store or of a side."""
        return self.folder is not None and any(self.folder.glob("**/x.npy"))

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of this shape to fill. On disk its blocks are reserved first, so that a full
        disk is an error now."""
        size = math.prod(map(int, shape)) * np.dtype(dtype).itemsize
        if size > MOST_BYTES:
            raise DataError(f"{shape[0]:,} examples of {' by '.join(f'{n:,}' for n in shape[1:])} "
                            f"numbers would need {say_number(size / 1e12)} TB; take fewer or "
                            "smaller ones")
        if self.folder is None or (self.share > 0 and size <= self.share * available_memory()):
            return np.empty(shape, dtype)
        array, path = None, self.folder / "x.npy"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            array = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if array is None or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                path.unlink(missing_ok=True)
                raise DataError(
                    f"{self.folder.parent}: cannot write {size / 1e9:.3g} GB of packed data "
                    f"({error.strerror}); free the space or choose another folder (LATLAS_CACHE "
                    "for automatic packing)") from None
        return array  # also on a file system that reserves nothing

    def gather(self, shape: tuple[int, ...], dtype: DTypeLike,
               pieces: Iterable[NDArray[Any]]) -> NDArray[Any]:
        """An array of this shape, filled with pieces (n, ...) that follow each other."""
        x, row = self.allocate(shape, dtype), 0
        for piece in pieces:
            with np.errstate(over="ignore"):  # becomes infinite, and is refused later
                x[row:row + len(piece)] = piece
            row += len(piece)
            self.done(row, len(x))
        return x

    def done(self, count: int, of: int) -> None:
        """Tell the progress callback, if there is one."""
        if self.progress is not None:
            self.progress(count, of)


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
