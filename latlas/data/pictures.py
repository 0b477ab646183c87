"""The pictures of a folder or zip, of one side.

Sub-folders ``train``, ``test`` and ``validation`` become splits, other sub-folders classes; a
folder around everything is ignored. ``label=COLUMN`` takes labels from an attribute table instead.
Pictures of one size keep it; otherwise each is resized (shorter side, then centre crop) to
``image_size``, by default the median shorter side, at most 256. Equal files share a group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import cpu_count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, unknown
from latlas.core.space import Space
from latlas.data.attributes import Attributes, read_attributes
from latlas.data.dataset import Dataset
from latlas.data.files import Files, complaint
from latlas.data.labels import encode_labels
from latlas.data.maps import one_hot
from latlas.data.pixels import CHANNELS, IDS, Header, common_mode, decode, read_header
from latlas.data.source import Rows, Source, make
from latlas.data.store import Store

LARGEST_DEFAULT = 256
PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test",
         "val": "validation", "valid": "validation", "validation": "validation"}
PIECE = 32  # pictures one thread takes at a time
T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """How pictures are read.

    Attributes:
        mode: ``L``, ``RGB`` or ``RGBA``; by default the least that keeps what the files hold.
        label: a column of the attribute table; ``none`` for no labels.
        attributes: the attribute table, if it is not beside the pictures.
        on_error: ``raise`` (after all were tried, naming the first) or ``skip``.
        half: 0 or 1: the left or the right half of every file.
        maps: the pixels are class ids; ``ids`` those of the channels, if that is settled already.
        frames: they are frames of clips, ``rate`` a second where nothing says so.
    """

    image_size: int | None = None
    mode: str | None = None
    label: str | None = None
    attributes: str | None = None
    on_error: str = "raise"
    levels: int | None = None
    half: int | None = None
    maps: bool = False
    ids: str | None = None
    frames: bool = False
    rate: float | None = None

    def check(self) -> None:
        """Raise DataError for a value that is none."""
        if self.mode not in (None, "L", "RGB", "RGBA"):
            raise DataError(unknown("mode", str(self.mode), ["L", "RGB", "RGBA"]))
        if self.on_error not in ("raise", "skip"):
            raise DataError(unknown("on_error", self.on_error, ["raise", "skip"]))
        if self.image_size is not None and self.image_size < 1:
            raise DataError(f"image_size={self.image_size} is not a size; give at least 1")
        if self.rate is not None and not 0 < self.rate <= 1000:
            raise DataError(f"rate={self.rate:g} is no number of frames per second; give one over "
                            "0, at most 1,000")


def prepare(files: Files, store: Store, how: Reading) -> Work:
    """What :func:`read_pictures` reads; no pixel is decoded yet."""
    how.check()
    if not files.pictures:
        raise DataError(f"{files.path} holds no pictures (.png, .jpg, .tif, ...){_other(files)}")
    if how.maps:  # one number a pixel is kept in memory until the channels are known
        return Work(files, Store(), how.image_size, IDS, how.half)
    return Work(files, store, how.image_size, how.mode, how.half)


def read_pictures(work: Work, store: Store, how: Reading, name: str) -> Source:
    """Pictures of a folder or zip; see the head of this module for what becomes what."""
    files, path = work.files, work.files.path
    x, group, notes = work.run(how.on_error)
    good = np.array([i for i in range(len(x)) if i not in work.errors], np.int64)
    parts, folders, table = arranged(files, how.label, how.attributes)
    codes, classes, more = labelled(folders, table, good, how.label)
    if how.maps:
        x[list(work.errors)] = x[good[0]]  # black is an id like any other
        x, space = one_hot(x, store, how.ids, name)
    else:
        space = _space(x, work.mode, how.levels, path)
    space = replace(space, classes=classes, factors=table.factor_names if table else ())
    data = Dataset(x, space, codes, table.factors if table else None, group,
                   np.array(files.shown), good if work.errors else None)
    rows = {k: np.intersect1d(v, good) for k, v in parts.items()}
    return make(name, data, parts=rows, notes=(*notes, *more))


def _other(files: Files) -> str:
    """A hint, where a data file lies in the folder that was named."""
    known = (".npz", ".npy", ".csv", ".tsv", ".parquet", ".mat")
    found = next((n for n in files.names if n.endswith(known)), None)
    return f"; name the file itself if you mean {found}" if found else ""


@dataclass
class Work:
    """Decodes all files into one array; ``errors`` holds what went wrong, by position."""

    files: Files
    store: Store
    size: int | None
    given: str | None
    half: int | None = None
    mode: str = ""
    errors: dict[int, str] = field(default_factory=dict)
    hashes: dict[int, bytes] = field(default_factory=dict)

    def run(self, on_error: str) -> tuple[NDArray[Any], Rows | None, tuple[str, ...]]:
        skipped = self.size and self.given
        shape, notes = self.plan([] if skipped else list(self.headers.values()))
        n = len(self.files.pictures)
        kind = np.uint16 if self.mode == "I;16" else np.uint8
        x = self.store.allocate((n, *shape), kind)
        for done, (i, pixels) in enumerate(self._each(self._decoded), 1):
            self._put(x, i, pixels)
            self.store.done(done, n)
        if self.errors:
            notes = (*notes, self._complaint(on_error))
        return x, self._groups(n), notes

    def _put(self, x: NDArray[Any], i: int, pixels: NDArray[Any] | None) -> None:
        if pixels is not None and pixels.shape == x.shape[1:]:
            x[i] = pixels
            return
        if pixels is not None:
            self.errors[i] = f"size {pixels.shape[1:]} is unlike its header"
        x[i] = 0

    @cached_property
    def headers(self) -> dict[int, Header]:
        """The heads of all files that have one, by position."""
        found = {i: h for i, h in sorted(self._each(read_header_of), key=lambda p: p[0]) if h}
        if not found:
            raise DataError(f"{self.files.path}: {self._first()}")
        return found

    def plan(self, headers: list[Header]) -> tuple[tuple[int, int, int], tuple[str, ...]]:
        """The shape that pictures get, settling size and mode, and what to say of it."""
        notes: tuple[str, ...] = ()
        self.mode = self.given or common_mode(headers)
        sizes = {(h.height, h.width) for h in headers}
        if self.size is None and len(sizes) == 1:
            return (CHANNELS[self.mode], *sizes.pop()), ()
        if self.size is None:
            short = int(np.median([min(h.width, h.height) for h in headers]))
            self.size = min(short, LARGEST_DEFAULT)
            notes = (f"{len(sizes)} sizes: resized to {self.size}x{self.size} (the median shorter "
                     f"side, at most {LARGEST_DEFAULT}); choose with image_size",)
        self.mode = "L" if self.mode == "1" else self.mode
        return (CHANNELS[self.mode], self.size, self.size), notes

    def _each(self, task: Callable[[Work, int], T] | Callable[..., T]) -> Iterator[
            tuple[int, T | None]]:
        """Runs a task for every file, in threads; what it raises is kept as that file's error."""
        n = len(self.files.pictures)
        pieces = [range(i, min(i + PIECE, n)) for i in range(0, n, PIECE)]
        with ThreadPoolExecutor(min(16, cpu_count() or 1)) as pool:
            for piece in pool.map(lambda rows: [(i, self._tried(task, i)) for i in rows], pieces):
                yield from piece

    def _tried(self, task: Callable[..., T], i: int) -> T | None:
        if i in self.errors:
            return None
        try:
            return task(self, i)
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, ...
            self.errors[i] = reason(error)
            return None

    def _decoded(self, _: Any, i: int) -> NDArray[Any]:
        data = self.files.read(self.files.pictures[i])
        self.hashes[i] = hashlib.blake2b(data, digest_size=8).digest()
        return decode(data, self.mode, self.size, self.half)

    def _groups(self, n: int) -> Rows | None:
        """Positions of equal files share a number; ``None`` if all files differ."""
        first: dict[bytes, int] = {}
        group = [first.setdefault(self.hashes.get(i, i.to_bytes(9, "big")), i) for i in range(n)]
        return None if len(first) == n else np.array(group, np.int64)

    def _first(self) -> str:
        i = min(self.errors)
        return f"{self.files.pictures[i]} cannot be decoded: {self.errors[i]}"

    def _complaint(self, on_error: str) -> str:
        return complaint(self._first(), len(self.errors), len(self.files.pictures), "pictures",
                         on_error)


def read_header_of(work: Work, i: int) -> Header:
    """The header of file ``i``."""
    return read_header(work.files.read(work.files.pictures[i]), work.half)


def reason(error: Exception) -> str:
    """Why a picture cannot be decoded, in one line."""
    text = str(error).split("\n")[0]
    if "cannot identify image file" in text:
        return "not a picture, or damaged at its head"
    return text or type(error).__name__


def _space(x: NDArray[Any], mode: str, levels: int | None, path: Path) -> Space:
    found = 2 if mode == "1" else int(np.iinfo(x.dtype).max) + 1
    if levels is not None and not int(x.max()) < levels <= 65536:
        raise DataError(f"{path}: levels={levels}, but the largest pixel value is {x.max()}")
    return Space.picture(x.shape[1:], levels or found)


def arranged(files: Files, label: str | None, attributes: str | None) -> tuple[
        dict[str, Rows], list[str | None], Attributes | None]:
    """Rows of the splits, the class folder of each picture, and the attribute table if asked."""
    paths = [n.split("/") for n in files.shown]
    while all(len(p) > 1 and p[0] == paths[0][0] for p in paths):
        paths = [p[1:] for p in paths]
    heads = [p[0].lower() if len(p) > 1 else "" for p in paths]
    parts: dict[str, Rows] = {}
    if set(heads) <= set(PARTS) and len({PARTS[h] for h in heads}) > 1:
        named = np.array([PARTS[h] for h in heads])
        parts = {p: np.flatnonzero(named == p) for p in dict.fromkeys(PARTS.values())
                 if (named == p).any()}
        paths = [p[1:] for p in paths]
    folders = [p[0] if len(p) > 1 else None for p in paths]
    if attributes is None and label in (None, "none"):
        return parts, folders, None
    table = read_attributes(files, attributes, label)
    return parts or table.parts, folders, table


def labelled(folders: list[str | None], table: Attributes | None, good: Rows,
            label: str | None) -> tuple[Rows | None, tuple[str, ...], tuple[str, ...]]:
    """Codes, class names and notes."""
    if table is not None and table.label is not None:
        return table.label, table.classes, ()
    known = {f for i in good for f in (folders[i],)}
    if label == "none" or known == {None}:
        return None, (), ()
    if None in known:
        return None, (), ("no labels: some pictures lie outside the sub-folders",)
    values = np.array([f or "" for f in folders])
    return *encode_labels(values, "the sub-folders"), ()
