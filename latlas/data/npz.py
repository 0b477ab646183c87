"""``.npz`` and ``.npy`` files, and arrays in memory.

Keys are recognised with or without their part of the data: ``x_train``, ``train_images``,
``X``, ``images``, ``imgs``; labels ``y_train``, ``labels``, ``target``; ``group`` names related
items and ``factors`` or ``latents_values`` known factors. A ``shape`` key beside bytes whose last
axis is an eighth of it means packed bits. Two arrays of pictures, ``A`` and ``B`` or items and
labels that are pictures of the same size themselves, are two sides.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, unknown
from latlas.data.arrays import ArrayReader, Options, Reader, chunk_rows
from latlas.data.dataset import Dataset
from latlas.data.labels import encode_labels
from latlas.data.maps import first_is_map, load_side
from latlas.data.rolls import in_clips, unrolled
from latlas.data.source import Source, join, make
from latlas.data.store import Store

ITEMS = ("x", "images", "image", "imgs", "img", "data", "features", "arr_0")
LABELS = ("y", "labels", "label", "targets", "target", "class")
GROUPS = ("group", "groups")
FACTORS = ("factors", "latents_values")
NAMES = ("names", "classes", "class_names", "label_names")
PART = re.compile(r"(?:^|_)(train|test|validation|valid|val)(?=_|$)", re.IGNORECASE)
Keys = dict[str, dict[str, str]]  # role -> part ("train", ..., "all") -> key in the file


def open_npz(path: Path | IO[bytes], *, store: Store | None = None, name: str = "",
             key: str | None = None, label: str | None = None, levels: int | None = None,
             image_size: int | None = None, layout: str | None = None,
             shape: str | None = None, paired: bool | None = None, direction: str | None = None,
             maps: str | None = None, ids: str | None = None,
             frames: bool | None = None) -> Source:
    """A ``.npz`` of one or more arrays. ``key`` chooses the items, ``label`` the labels.

    ``paired``, ``direction``, ``maps`` and ``ids`` are as for folders of two sides; with ``frames``
    arrays are clips (n, t, H, W), as those of five axes always are.
    """
    is_map = first_is_map(direction, maps)
    name = name or str(path)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{name} cannot be read as .npz: {error}") from None
    with archive:
        file, kept = _Archive(archive, name), store or Store()
        options = Options(levels, image_size, layout, shape)
        two = _two_sides(_roles(file.keys), file) if key is None and label is None else None
        if two is None and paired is not None:
            raise DataError(f"{name}: paired= is for two arrays of pictures, such as A and B")
        if two is None:
            return _open(file, kept, key, label, options, is_map, ids, frames)
        a, b = two[::-1] if direction == "BtoA" else two
        marks = [side is two["AB".index(maps)] if maps else False for side in (a, b)]
        x = _side(file, a, kept, options, marks[0], ids if marks[0] else None, frames)
        y = _side(file, b, kept.second, options, marks[1], ids if marks[1] else None, frames)
        return join(x, y, paired=paired is not False, name=Path(name).stem)


def _two_sides(keys: Keys, file: _Archive) -> tuple[dict[str, str], dict[str, str]] | None:
    """Keys of two arrays of pictures; what was opened as items and labels before stays so."""
    items, labels = _first(keys, ITEMS), _first(keys, LABELS)
    if items:
        alike = set(items) == set(labels) and all(
            _overlie(file.reader(items[p]).shape, file.reader(labels[p]).shape) for p in items)
        return (items, labels) if alike else None
    a, b = ({p: k for p, k in keys.get(name.lower(), {}).items() if name in k.split("_")}
            for name in "AB")  # capitals, so that arrays called a and b stay a choice
    return (a, b) if a and b and _pictures(file, [*a.values(), *b.values()]) else None


def _overlie(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """As many pictures of one height and width, whether channels come first, last or not at all."""
    heights = {s[1:3] for s in (a, b)}, {s[-2:] for s in (a, b)}
    return min(len(a), len(b)) >= 3 and a[0] == b[0] and any(len(h) == 1 for h in heights)


def _pictures(file: _Archive, keys: list[str]) -> bool:
    return all(len(file.reader(k).shape) >= 3 for k in keys)


def _side(file: _Archive, keys: dict[str, str], store: Store, options: Options, maps: bool,
          ids: str | None, frames: bool | None) -> Source:
    """One of two sides."""
    keys = _ordered(keys)
    readers, clip = unrolled([file.reader(k) for k in keys.values()], frames)
    x, space = load_side(readers, store, options, maps, ids)
    data = _with_extras(Dataset(x, space), _roles(file.keys), file, keys, clip)
    sizes = {part: reader.shape[0] for part, reader in zip(keys, readers, strict=True)}
    return make(f"{Path(file.name).stem} ({', '.join(keys.values())})", data, parts=_parts(sizes))


def _ordered(keys: dict[str, str]) -> dict[str, str]:
    """By part, in the order in which they are read."""
    return {p: keys[p] for p in ("train", "validation", "test", "all") if p in keys}


def _open(file: _Archive, store: Store, key: str | None, label: str | None,
          options: Options, maps: bool, ids: str | None, frames: bool | None) -> Source:
    keys = _roles(file.keys)
    items = _chosen(keys, key, file) if key else _items(keys, file)
    bits = file.small("shape") if "shape" in file.keys and len(items) == 1 else None
    readers, clip = unrolled([file.reader(k) for k in items.values()], frames)
    x, space = load_side(readers, store, replace(options, bits=_bits(readers[0], bits)), maps, ids)
    codes, classes, notes = _labels(keys, label, file, len(x) if clip is None else clip[-1] + 1)
    data = Dataset(x, replace(space, classes=classes), codes)
    data = _with_extras(data, keys, file, items, clip)
    sizes = {part: reader.shape[0] for part, reader in zip(items, readers, strict=True)}
    return make(Path(file.name).stem, data, parts=_parts(sizes), notes=notes)


def _labels(keys: Keys, label: str | None, file: _Archive, count: int) -> tuple[
        NDArray[np.int64] | None, tuple[str, ...], tuple[str, ...]]:
    """Codes, class names and notes. Labels nobody asked for are left out if they are no classes."""
    found = {} if label == "none" else _first(keys, LABELS)
    if label not in (None, "none"):
        found = _chosen(keys, label, file)
    if not found:
        return None, (), ()
    where = f"{file.name}: {', '.join(found.values())}"
    try:
        return (*encode_labels(file.joined(found, count), where, file.class_names()), ())
    except DataError as error:
        if label is not None:
            raise
        return None, (), (f"left out: {error}",)


def _roles(keys: list[str]) -> Keys:
    found: Keys = {}
    for key in keys:
        match = PART.search(key)
        part = match[1].lower() if match else "all"
        part = "validation" if part in ("val", "valid") else part
        role = (PART.sub("", key, count=1).strip("_") if match else key).lower()
        found.setdefault(role, {}).setdefault(part, key)
    return found


def _first(keys: Keys, roles: tuple[str, ...]) -> dict[str, str]:
    return next((keys[r] for r in roles if r in keys), {})


def _items(keys: Keys, file: _Archive) -> dict[str, str]:
    found = _first(keys, ITEMS)
    wide = [k for k in file.keys if len(file.reader(k).shape) >= 2]
    if not found and len(wide) == 1:
        found = {"all": wide[0]}
    if not found:
        raise DataError(f"{file.name} holds {', '.join(file.keys)}; choose the items with key=")
    return _ordered(found)


def _chosen(keys: Keys, name: str | None, file: _Archive) -> dict[str, str]:
    if name in file.keys:
        role = next(parts for parts in keys.values() if name in parts.values())
        return role if len(role) > 1 else {"all": str(name)}
    if str(name).lower() in keys:
        return keys[str(name).lower()]
    raise DataError(f"{file.name}: {unknown('key', str(name), file.keys)}")


def _bits(reader: Reader, shape: NDArray[Any] | None) -> tuple[int, ...] | None:
    """The full shape, if the reader's last axis is that shape's packed into bytes."""
    if shape is None or shape.ndim != 1 or shape.dtype.kind not in "iu":
        return None
    full = tuple(int(v) for v in shape)
    packed = (*full[:-1], -(-full[-1] // 8)) if full else ()
    return full if reader.dtype == np.uint8 and tuple(reader.shape) == packed else None


def _with_extras(data: Dataset, keys: Keys, file: _Archive, items: dict[str, str],
                 clip: NDArray[np.int64] | None) -> Dataset:
    if clip is not None:
        return in_clips(data, clip)
    group, factors = _first(keys, GROUPS), _first(keys, FACTORS)
    if set(group) == set(items):
        codes = np.unique(file.joined(group, len(data.x)), return_inverse=True)[1]
        data = replace(data, group=codes.astype(np.int64))
    if set(factors) == set(items):
        values = file.joined(factors, len(data.x)).astype(np.float32)
        names = tuple(f"factor{i}" for i in range(values.shape[1]))
        data = replace(data, factors=values, space=replace(data.space, factors=names))
    return data


def _parts(sizes: dict[str, int]) -> dict[str, NDArray[np.int64]] | None:
    """Rows of each part, in the order they were read."""
    if set(sizes) == {"all"} or len(sizes) == 1:
        return None
    stops = np.cumsum(list(sizes.values()))
    return {p: np.arange(stop - sizes[p], stop) for p, stop in zip(sizes, stops, strict=True)}


class _Archive:
    """The arrays of an open ``.npz``."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.archive, self.name = archive, name
        self.keys = [n[:-4] for n in archive.namelist() if n.endswith(".npy")]
        if not self.keys:
            raise DataError(f"{name} holds no arrays")

    def reader(self, key: str) -> NpyReader:
        return NpyReader(lambda: self.archive.open(f"{key}.npy"), f"{self.name}: {key}")

    def small(self, key: str) -> NDArray[Any]:
        return self.reader(key).whole()

    def joined(self, keys: dict[str, str], count: int) -> NDArray[Any]:
        """The arrays of all parts in the items' order, one value per item."""
        values = np.concatenate([self.small(key) for key in _ordered(keys).values()])
        if len(values) != count:
            raise DataError(f"{self.name}: {', '.join(keys.values())} has {len(values):,} "
                            f"values for {count:,} items")
        return values

    def class_names(self) -> tuple[str, ...]:
        for key in NAMES:
            values = self.small(key) if key in self.keys else np.empty(0)
            if values.ndim == 1 and values.dtype.kind == "U":
                return tuple(str(v) for v in values)
        return ()


@dataclass
class NpyReader:
    """Reads a ``.npy`` stream piece by piece, straight into where it belongs."""

    opener: Any  # () -> binary stream at the start of the file
    name: str

    def __post_init__(self) -> None:
        with self._stream() as stream:
            self.shape, self.fortran, self.dtype = self._header(stream)

    def _stream(self) -> Any:
        return self.opener()

    def _header(self, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        try:
            version = np.lib.format.read_magic(stream)
            read = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                    else np.lib.format.read_array_header_2_0)
            shape, fortran, dtype = read(stream)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.name} cannot be read as .npy: {error}") from None
        if dtype.hasobject:
            raise DataError(f"{self.name} holds Python objects, which are never loaded")
        return shape, fortran, dtype

    def chunks(self) -> Iterator[NDArray[Any]]:
        if self.fortran or not self.shape or not self.dtype.itemsize:
            yield from ArrayReader(self.whole(), self.name).chunks()
            return
        step = chunk_rows(self.shape, self.dtype)
        with self._stream() as stream:
            self._header(stream)
            for start in range(0, self.shape[0], step):
                rows = min(step, self.shape[0] - start)
                yield self._read(stream, (rows, *self.shape[1:]))

    def _read(self, stream: IO[bytes], shape: tuple[int, ...]) -> NDArray[Any]:
        want = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        if not want:
            return np.empty(shape, self.dtype)
        try:
            data = stream.read(want)
        except Exception as error:  # zlib, lzma and zipfile each have their own
            raise DataError(f"{self.name} is damaged: {error}") from None
        if len(data) != want:
            raise DataError(f"{self.name} is truncated")
        return np.frombuffer(data, self.dtype).reshape(shape)

    def whole(self) -> NDArray[Any]:
        """The array at once, for small ones and those in column order."""
        with self._stream() as stream:
            self._header(stream)
            if self.fortran:
                return self._read(stream, self.shape[::-1]).T
            return self._read(stream, self.shape)


def open_npy(path: Path, *, store: Store | None = None, levels: int | None = None,
             image_size: int | None = None, layout: str | None = None,
             shape: str | None = None, direction: str | None = None, maps: str | None = None,
             ids: str | None = None, frames: bool | None = None) -> Source:
    """A ``.npy`` array of items."""
    readers, clip = unrolled([NpyReader(lambda: path.open("rb"), str(path))], frames)
    x, space = load_side(readers, store or Store(), Options(levels, image_size, layout, shape),
                         first_is_map(direction, maps), ids)
    return make(path.stem, in_clips(Dataset(x, space), clip))


def open_arrays(x: Any, y: Any = None, *, store: Store | None = None, name: str = "array",
                levels: int | None = None, image_size: int | None = None,
                layout: str | None = None, shape: str | None = None,
                direction: str | None = None, maps: str | None = None,
                ids: str | None = None, frames: bool | None = None) -> Source:
    """Arrays in memory: items (or clips), and one label for each or ``None``."""
    options, count = Options(levels, image_size, layout, shape), len(x)
    readers, clip = unrolled([ArrayReader(np.asarray(x), name)], frames)
    x, space = load_side(readers, store or Store(), options, first_is_map(direction, maps), ids)
    if y is None:
        return make(name, in_clips(Dataset(x, space), clip))
    codes, classes = encode_labels(np.asarray(y), "y")
    if len(codes) != count:
        raise DataError(f"{count:,} items, but {len(codes):,} labels")
    return make(name, in_clips(Dataset(x, replace(space, classes=classes), codes), clip))
