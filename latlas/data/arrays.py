"""Arrays in memory, ``.npy`` and ``.npz`` files, read in pieces.

What an array is follows from its shape: (N, d) a table, (N, H, W) grey images, (N, C, H, W) or
(N, H, W, C) images; five axes are clips (N, t, ...), and (N, t, H, W) are with ``frames``. Bytes
and 16-bit words stay as they are; whole numbers of any wider type become the smallest of the two
that holds them; other numbers are kept as float32.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import Images, Space, Table
from latlas.data import dataset, images
from latlas.data.clips import as_clips
from latlas.data.dataset import MOST_CLASSES, Dataset, Rows, Source, Store, encode_labels
from latlas.data.splits import hash_of
from latlas.data.streams import CLIPS, Array, in_memory, in_npy, in_zip, readable, refuse_objects

ITEMS = ("x", "images", "image", "imgs", "img", "data", "features", "arr_0")
LABELS = ("y", "labels", "label", "targets", "target", "class")
GROUPS = ("group", "groups")
FACTORS = ("factors", "latents_values")
NAMES = ("names", "classes", "class_names", "label_names")
PARTS = ("train", "validation", "test", "all")
PART = re.compile(r"(?:^|_)(train|test|validation|valid|val)(?=_|$)", re.IGNORECASE)
Keys = dict[str, str]  # part ("train", …, "all") to the key in the file


@dataclass(frozen=True)
class Options:
    """How to read an array; ``shape`` as 1x28x28, ``layout`` NCHW or NHWC, ``frames`` of clips."""

    levels: int | None = None
    image_size: int | None = None
    layout: str | None = None
    shape: str | None = None
    frames: bool | None = None


def read_arrays(arrays: Sequence[Array], store: Store, how: Options, maps: bool = False,
                ids: str | None = None) -> Dataset:
    """The examples of all arrays, one after the other; clips become frames that know theirs.

    With ``maps`` pixels are class ids, ``ids`` those of the channels, commas between.
    """
    clip = None
    if how.frames or all(len(array.shape) == CLIPS for array in arrays):
        frames = [array.frames() for array in arrays]
        lengths = [t for n, t in (array.shape[:2] for array in arrays) for _ in range(n)]
        arrays, clip = frames, np.repeat(np.arange(len(lengths)), lengths)
    first = arrays[0]
    item, shape, last = _layout(arrays, how)
    if how.image_size is not None and how.image_size < 1:
        raise DataError(f"{say_option('image_size', how.image_size)}: give at least 1")
    size = how.image_size if len(shape) == 3 and not maps else None
    shape = (shape[0], size, size) if size else shape
    stored = np.result_type(*(array.dtype for array in arrays))
    bits, words = stored.kind == "b", stored.kind == "u" and stored.itemsize <= 2
    dtype: Any = np.uint8 if bits else stored if words else np.float32
    if len(shape) == 1:  # float64 where float32 might not tell numbers apart
        wide = (stored.kind in "fiu" and stored.itemsize > 4) or (
            stored.kind in "iu" and stored.itemsize == 4)
        dtype = np.float64 if wide else np.float32

    def examples() -> Iterator[NDArray[Any]]:
        for chunk in (chunk for array in arrays for chunk in array.pieces()):
            chunk = chunk.reshape(len(chunk), *item)
            chunk = np.moveaxis(chunk, -1, 1) if last else chunk
            if size and bits:  # grey levels between ink and paper need more than two levels
                chunk = (chunk * 255).astype(np.uint8)
            yield images.resize_planes(chunk, size) if size else chunk

    x = (Store() if maps else store).gather((sum(r.shape[0] for r in arrays), *shape), dtype,
                                            examples())
    space: Space = Table.of_numbers(
        x.shape[1], dtype="Float64" if x.dtype == np.float64 else "Float32")
    if x.ndim > 2:
        x, space = image_space(x, None if maps else how.levels, first.name)
    elif np.isinf(x).any():
        raise DataError(f"{first.name} holds {int(np.isinf(x).sum()):,} infinite numbers; "
                        "replace them, by NaN if they are missing")
    if maps:
        x = images.nearest_planes(x, how.image_size) if how.image_size and x.ndim == 4 else x
        x, space = images.one_hot(x, store, ids, first.name)
    data = Dataset(x, space)
    return data if clip is None else as_clips(data, clip)


def _refuse_unlike(arrays: Sequence[Array]) -> None:
    """DataError unless these are arrays of numbers, of one shape and range."""
    first = arrays[0]
    for array in arrays:
        refuse_objects(array.dtype, array.name)
        if array.dtype.kind not in "buif" or not 2 <= len(array.shape) <= 4:
            raise DataError(f"{array.name} holds {array.dtype} of shape {array.shape}; wanted "
                            "numbers of shape (N, d), (N, H, W), (N, C, H, W) or (N, H, W, C), "
                            "of clips with t after N")
        if not math.prod(array.shape):
            raise DataError(f"{array.name} is empty (shape {array.shape})")
        if array.shape[1:] != first.shape[1:]:
            raise DataError(f"{array.name} holds examples of shape {array.shape[1:]}, but "
                            f"{first.name} of shape {first.shape[1:]}")
        if len(first.shape) > 2 and (array.dtype.kind == "f") != (first.dtype.kind == "f"):
            raise DataError(f"{array.name} holds pixels of {array.dtype}, but {first.name} of "
                            f"{first.dtype}, whose range may be another; save both in one type")


def _layout(arrays: Sequence[Array], how: Options) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Shape of an example as stored, its shape channels first, and whether channels come last."""
    _refuse_unlike(arrays)
    first = arrays[0]
    item = first.shape[1:]
    if how.shape:
        sides = re.split("[x,]", how.shape.lower())
        if not all(side.strip().isdecimal() for side in sides):
            raise DataError(f"{say_option('shape', how.shape)} is not a shape; write it as 1x28x28")
        shape = tuple(map(int, sides))
        if math.prod(shape) != math.prod(item):
            raise DataError(f"shape={how.shape} has {math.prod(shape)} numbers, but an example of "
                            f"{first.name} has {math.prod(item)} (shape {item})")
        item = shape
    if how.layout not in (None, "NCHW", "NHWC"):
        raise DataError(f"{say_option('layout', how.layout)} is unknown; valid: NCHW (channels "
                        "first), NHWC")
    if len(item) < 3:
        item = item if len(item) == 1 else (1, *item)
        return item, item, False
    guess = item[2] <= 4 < item[0] or (item[2] <= 4 and item[0] == item[1] != item[2])
    last = guess if how.layout is None else how.layout == "NHWC"
    return item, ((item[2], *item[:2]) if last else item), last


def image_space(x: NDArray[Any], levels: int | None, name: str) -> tuple[NDArray[Any], Images]:
    """Images (N, C, H, W) with their space: levels from the type, 2 if they hold only 0 and 1.

    Floats that are whole numbers become integers; others in [0, 1] or [−1, 1] keep that as their
    range, or take their own.
    """
    shape: Any = x.shape[1:]
    if x.dtype.kind == "f":
        if not np.isfinite(x).all():
            raise DataError(f"{int((~np.isfinite(x)).sum()):,} pixels are not finite numbers; "
                            "repair the array first")
        low, high = float(x.min()), float(x.max())
        if low < 0 or not 1 < high <= 65535 or not all(
                np.array_equal(part, np.rint(part)) for part in dataset.chunks(x)):
            if levels is not None:
                raise DataError(f"{name}: {say_option('levels', levels)} is for images of "
                                f"integers, but these are real numbers from {low:.4g} to "
                                f"{high:.4g}")
            usual = ((a, b) for a, b in ((0.0, 1.0), (-1.0, 1.0)) if a <= low and high <= b)
            return x, Images(shape, None, next(usual, (low, high)))
        x = x.astype(np.uint8 if high <= 255 else np.uint16)
    top = int(x.max())
    if levels is None:
        levels = 2 if top <= 1 else int(np.iinfo(x.dtype).max) + 1
    if not max(top + 1, 2) <= levels <= 65536:
        raise DataError(f"{name}: {say_option('levels', levels)}, but the largest pixel value is "
                        f"{top}; give {max(top + 1, 2)} … 65536")
    return x, Images(shape, levels)


def open_array(x: Any, y: Any = None, *, how: Options, store: Store, maps: bool,
               ids: str | None) -> Source:
    """A ``.npy`` file, or an array in memory with one label for each example (clip) or ``None``."""
    file = isinstance(x, Path)
    array = in_npy(x) if file else in_memory(np.asarray(x))
    data = read_arrays([array], store, how, maps, ids)
    if y is not None:
        codes, classes = encode_labels(y, "y")
        if len(codes) != array.shape[0]:
            raise DataError(f"{array.shape[0]:,} examples, but {len(codes):,} labels")
        data = data.with_labels(codes, classes)
    return dataset.make(x.stem if file else "array", data)


@dataclass(frozen=True)
class NpzOptions(Options):
    """``key`` chooses the examples, ``label`` the labels."""

    key: str | None = None
    label: str | None = None


def open_npz(path: Path | IO[bytes], *, how: NpzOptions, name: str = "") -> Npz:
    """A ``.npz`` of one or more arrays."""
    name = name or str(path)
    with readable(name, "cannot be read as .npz"), zipfile.ZipFile(path) as archive:
        keys = [n[:-4] for n in archive.namelist() if n.endswith(".npy")]
    if not keys:
        raise DataError(f"{name} holds no arrays")
    return Npz(path, keys, name, how)


class Npz:
    """The arrays of a ``.npz``, or of one side of it (``side``: its keys).

    Keys are recognised with or without their part of the data (``x_train``, ``train_images``):
    ``roles`` are their names without it, in lower case. A ``shape`` key beside bytes whose last
    axis is an eighth of it means packed bits.
    """

    def __init__(self, path: Path | IO[bytes], keys: list[str], name: str, how: NpzOptions,
                 side: Keys | None = None) -> None:
        self.path, self.keys, self.name, self.how, self.side = path, keys, name, how, side
        self.used: set[str] = set()
        self.roles: dict[str, Keys] = {}
        for key in self.keys:
            match = PART.search(key)
            part = match[1].lower() if match else "all"
            role = (PART.sub("", key, count=1).strip("_") if match else key).lower()
            part = "validation" if part.startswith("val") else part
            self.roles.setdefault(role, {}).setdefault(part, key)

    def array(self, key: str) -> Array:
        self.used.add(key)
        return in_zip(self.path, key, self.name)

    def sides(self, pair: str | None, paired: bool | None) -> tuple[Npz, Npz, bool] | None:
        """Two arrays of images; what are examples and their labels is one side."""
        def overlie(*keys: str) -> bool:
            """As many images of one height and width, wherever their channels are."""
            shapes = [self.array(key).shape for key in keys]
            return min(map(len, shapes)) >= 3 and len({s[0] for s in shapes}) == 1 and 1 in (
                len({s[1:3] for s in shapes}), len({s[-2:] for s in shapes}))

        two: tuple[Keys, Keys] | None = None
        if self.how.key is None and self.how.label is None:
            x, y = self._keys(ITEMS), self._keys(LABELS)
            a, b = ({p: k for p, k in self.roles.get(name.lower(), {}).items()
                     if name in k.split("_")} for name in "AB")  # arrays a and b stay a choice
            if x and x.keys() == y.keys() and all(overlie(x[p], y[p]) for p in x):
                two = x, y
            elif a and b and not x and all(
                    len(self.array(key).shape) >= 3 for key in (*a.values(), *b.values())):
                two = a, b
            self.used.clear()
        if two is not None:
            first, second = (Npz(self.path, self.keys, self.name, self.how, side)
                             for side in two)
            return first, second, paired is not False
        if paired is not None:
            raise DataError(f"{self.name}: {say_option('paired')} is for two arrays of images, "
                            "such as A and B")
        return None

    def read(self, store: Store, name: str, maps: bool, ids: str | None) -> Source:
        """The examples of the file, or of the side."""
        items = self.side or self._keys(ITEMS, self.how.key)
        wide = [] if items else [k for k in self.keys if len(self.array(k).shape) >= 2]
        if not items and len(wide) != 1:
            raise DataError(f"{self.name} holds {', '.join(self.keys)}; choose the examples "
                            f"with {say_option('key')}")
        items = {p: items[p] for p in PARTS if p in items} or {"all": wide[0]}
        self.used = set()
        arrays = [self.array(k) for k in items.values()]
        if self.side is None and "shape" in self.keys and len(arrays) == 1:
            arrays = [self._unpacked(arrays[0])]
        counts = {p: r.shape[0] for p, r in zip(items, arrays, strict=True) if r.shape}
        codes, classes, notes = self._labels(counts) if self.side is None else (None, (), ())
        data = read_arrays(arrays, store, self.how, maps, ids).with_labels(codes, classes)
        group, factors = self._keys(GROUPS), self._keys(FACTORS)
        if group.keys() == items.keys() and data.clip is None:
            values = self._joined(group, counts, 1).reshape(-1)
            levels, codes = np.unique(values, return_inverse=True)
            numbers = np.array([hash_of(str(level)) for level in levels.tolist()], np.uint64)
            data = replace(data, group=numbers[codes].view(np.int64))
        if factors.keys() == items.keys() and data.clip is None:
            values = self._joined(factors, counts).reshape(len(data.x), -1)
            if values.dtype.kind not in "buif":
                raise DataError(f"{self.name}: {', '.join(factors.values())} holds "
                                f"{values.dtype}, not numbers")
            names = tuple(f"factor{i}" for i in range(values.shape[1]))
            data = replace(data, factors=values.astype(np.float32),
                           space=data.space.replace(factors=names))
        unused = [] if self.side else [k for k in self.keys if k not in self.used and (
            self.how.label != "none" or k not in self._keys(LABELS).values())]
        if unused:
            notes = (*notes, f"not used: {', '.join(unused)}")
        frames = 1 if data.clip is None else arrays[0].shape[1]
        stem = Path(self.name).stem
        return dataset.make(stem if self.side is None else f"{stem} ({', '.join(items.values())})",
                            data, parts=dataset.joined_parts(
                                {p: n * frames for p, n in counts.items()}), notes=notes)

    def _keys(self, names: Sequence[str], chosen: str | None = None) -> Keys:
        """The keys that are chosen, with those of the other parts, or the first of these names."""
        if not chosen:
            return next((self.roles[name] for name in names if name in self.roles), {})
        if chosen in self.keys:
            parts = next((keys for keys in self.roles.values() if chosen in keys.values()), {})
            return parts if len(parts) > 1 else {"all": chosen}
        if chosen.lower() in self.roles:
            return self.roles[chosen.lower()]
        raise DataError(f"{self.name}: {unknown('key', chosen, self.keys)}")

    def _joined(self, keys: Keys, counts: Mapping[str, int], most: int = MOST_CLASSES) -> Any:
        """The arrays of all parts in the examples' order: one value for each example, or a few."""
        parts = {p: self.array(keys[p]) for p in PARTS if p in keys}
        lengths = {p: array.shape[0] if array.shape else 0 for p, array in parts.items()}
        triples = [(keys[p], n, counts[p]) for p, n in lengths.items()] if (
            lengths.keys() == counts.keys()) else [
            (", ".join(keys.values()), sum(lengths.values()), sum(counts.values()))]
        for key, length, count in triples:
            if length != count:
                way_out = "" if keys != self._keys(LABELS, self.how.label) else (
                    f"; {say_option('label', 'none')} leaves them out")
                raise DataError(f"{self.name}: {key} has {length:,} values for {count:,} examples"
                                + way_out)
        for array in parts.values():
            width = math.prod(array.shape[1:])
            if width > most:
                raise DataError(f"{array.name} has {width:,} values for each example, "
                                f"not {'one' if most == 1 else f'at most {most:,}'}")
        return np.concatenate([array.whole() for array in parts.values()])

    def _unpacked(self, array: Array) -> Array:
        """The array, or its bits if they are of the ``shape`` in the file."""
        shape = self.array("shape")
        if array.dtype == np.uint8 and shape.dtype.kind in "iu" and len(shape.shape) == 1:
            full = tuple(shape.whole().tolist())
            if full and array.shape == (*full[:-1], -(-full[-1] // 8)):
                return Array(array.name, full, np.dtype(bool), lambda: (
                    np.unpackbits(piece, axis=-1)[..., :full[-1]] for piece in array.pieces()))
        return array

    def _labels(self, counts: Mapping[str, int]) -> tuple[
            Rows | None, tuple[str, ...], tuple[str, ...]]:
        """Codes, class names and notes; labels nobody asked for are left out if no classes."""
        keys = {} if self.how.label == "none" else self._keys(LABELS, self.how.label)
        if not keys:
            return None, (), ()
        where = f"{self.name}: {', '.join(keys.values())}"
        try:
            if keys.keys() < counts.keys() and "all" not in keys:
                raise DataError(f"{where} is for some of the parts alone")
            for array in map(self.array, keys.values()):
                refuse_objects(array.dtype, array.name)
                if len(array.shape) not in (1, 2) or math.prod(array.shape[1:]) > MOST_CLASSES:
                    raise DataError(f"{array.name} holds {array.dtype} of shape {array.shape}, "
                                    "not one label per example")
        except DataError as error:
            if self.how.label is not None:
                raise
            return None, (), (f"left out: {error}",)
        values = self._joined(keys, counts)  # whose damage is no reason to leave them out
        names = (self.array(key) for key in NAMES if key in self.keys)
        classes = next((v.whole() for v in names if len(v.shape) == 1 and v.dtype.kind == "U"), ())
        try:
            return (*encode_labels(values, where, tuple(map(str, classes))), ())
        except DataError as error:
            if self.how.label is not None:
                raise
            return None, (), (f"left out: {error}",)
