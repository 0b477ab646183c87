"""Arrays in memory, ``.npy`` and ``.npz`` files.

What an array is follows from its shape: (N, d) a table, (N, H, W) grey images, (N, C, H, W) or
(N, H, W, C) images; five axes are clips (N, t, ...), and (N, t, H, W) are with ``frames``. Bytes
and 16-bit words stay as they are; whole numbers of any wider type become the smallest of the two
that holds them; other numbers are kept as float32.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError, say_option, unknown
from latlas.core.space import Images, Space, Table
from latlas.data.clips import as_clips, unrolled
from latlas.data.dataset import Dataset, Rows, Source, encode_labels, joined_parts, make
from latlas.data.maps import one_hot
from latlas.data.pixels import nearest_planes, resize_planes
from latlas.data.storage import Array, Header, Store, chunks, in_file, in_memory

ITEMS = ("x", "images", "image", "imgs", "img", "data", "features", "arr_0")
LABELS = ("y", "labels", "label", "targets", "target", "class")
GROUPS = ("group", "groups")
FACTORS = ("factors", "latents_values")
NAMES = ("names", "classes", "class_names", "label_names")
PARTS = ("train", "validation", "test", "all")
PART = re.compile(r"(?:^|_)(train|test|validation|valid|val)(?=_|$)", re.IGNORECASE)
#: axes of an array that can only be one of clips with channels
CLIPS = 5
Keys = dict[str, str]  # part ("train", …, "all") to the key in the file


@dataclass(frozen=True)
class Options:
    """How to read an array; ``shape`` as 1x28x28, ``layout`` NCHW or NHWC, ``frames`` of clips."""

    levels: int | None = None
    image_size: int | None = None
    layout: str | None = None
    shape: str | None = None
    frames: bool | None = None


@dataclass(frozen=True)
class NpzOptions(Options):
    """``key`` chooses the examples, ``label`` the labels."""

    key: str | None = None
    label: str | None = None


def read_arrays(arrays: Sequence[Array], store: Store, how: Options, maps: bool,
                ids: str | None, bits: tuple[int, ...] | None = None) -> Dataset:
    """The examples of all arrays, one after the other; clips become frames that know theirs.

    Args:
        maps: pixels are class ids; ``ids`` those of the channels, commas between.
        bits: the full shape of an array whose last axis is packed bits.
    """
    clip = None
    if how.frames or all(len(array.shape) == CLIPS for array in arrays):
        arrays, clip = unrolled(arrays)
    if maps:
        x, _ = load(arrays, Store(), replace(how, image_size=None, levels=None), bits)
        x = nearest_planes(x, how.image_size) if how.image_size and x.ndim == 4 else x
        data = Dataset(*one_hot(x, store, ids, arrays[0].name))
    else:
        data = Dataset(*load(arrays, store, how, bits))
    return data if clip is None else as_clips(data, clip)


def load(arrays: Sequence[Array], store: Store, how: Options,
         bits: tuple[int, ...] | None = None) -> tuple[NDArray[Any], Space]:
    """All arrays' examples one after another: (N, \\*shape) in data units, and their space."""
    first, pixels = arrays[0], None
    item, shape, last = _layout(arrays, how, bits)
    if len(shape) == 3 and how.image_size:
        shape, pixels = (shape[0], how.image_size, how.image_size), how.image_size
    binary = first.dtype.kind == "b" or bits is not None
    small = first.dtype.kind == "b" or (first.dtype.kind == "u" and first.dtype.itemsize <= 2)
    dtype = np.dtype(np.float32) if not small or len(shape) == 1 else first.dtype
    dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype
    x, row = store.allocate((sum(r.shape[0] for r in arrays), *shape), dtype), 0
    for array in arrays:
        for chunk in array.pieces():
            if bits:
                chunk = np.unpackbits(chunk, axis=-1)[..., :bits[-1]]
            chunk = chunk.reshape(len(chunk), *item)
            chunk = np.moveaxis(chunk, -1, 1) if last else chunk
            if pixels and binary:  # grey levels between ink and paper need more than two levels
                chunk = (chunk * 255).astype(np.uint8)
            if pixels:
                top = None if chunk.dtype.kind == "f" else float(np.iinfo(chunk.dtype).max)
                chunk = resize_planes(chunk, pixels, top)
            with np.errstate(over="ignore"):  # becomes infinite, and is refused later
                x[row:row + len(chunk)] = chunk
            row += len(chunk)
            store.done(row, len(x))
    if x.ndim > 2:
        return image_space(x, how.levels, first.name)
    if np.isinf(x).any():
        raise DataError(f"{first.name} holds {int(np.isinf(x).sum()):,} infinite numbers; "
                        "replace them, by NaN if they are missing")
    return x, Table((x.shape[1],), columns=tuple(f"x{i}" for i in range(x.shape[1])))


def _layout(arrays: Sequence[Array], how: Options, bits: tuple[int, ...] | None) -> tuple[
        tuple[int, ...], tuple[int, ...], bool]:
    """Shape of an example as stored, its shape channels first, and whether channels come last."""
    first = arrays[0]
    for array in arrays if bits is None else ():
        if array.dtype.kind not in "buif" or not 2 <= len(array.shape) <= 4:
            raise DataError(f"{array.name} holds {array.dtype} of shape {array.shape}; wanted "
                            "numbers of shape (N, d), (N, H, W), (N, C, H, W) or (N, H, W, C), "
                            "of clips with t after N")
        if not array.shape[0] or not np.prod(array.shape):
            raise DataError(f"{array.name} is empty (shape {array.shape})")
        if array.shape[1:] != first.shape[1:]:
            raise DataError(f"{array.name} holds examples of shape {array.shape[1:]}, but "
                            f"{first.name} of shape {first.shape[1:]}")
    item = (bits or first.shape)[1:]
    if how.shape:
        try:
            shape = tuple(int(part) for part in how.shape.lower().replace(",", "x").split("x"))
        except ValueError:
            raise DataError(f"{say_option('shape', how.shape)} is not a shape; write it as "
                            "1x28x28") from None
        if np.prod(shape) != np.prod(item):
            raise DataError(f"shape={how.shape} has {np.prod(shape)} numbers, but an example of "
                            f"{first.name} has {np.prod(item)} (shape {item})")
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

    Floats that are whole numbers become integers. Other real-valued images in [0, 1] or [−1, 1]
    keep that as their range, or take their own.
    """
    shape: Any = x.shape[1:]
    if x.dtype.kind == "f":
        if not np.isfinite(x).all():
            raise DataError(f"{int((~np.isfinite(x)).sum()):,} pixels are not finite numbers; "
                            "repair the array first")
        low, high = float(x.min()), float(x.max())
        if low < 0 or not 1 < high <= 65535 or not all(
                np.array_equal(part, np.rint(part)) for part in chunks(x)):
            if levels is not None:
                raise DataError(f"{name}: {say_option('levels', levels)} is for images of "
                                "integers, "
                                f"but these are real numbers from {low:.4g} to {high:.4g}")
            usual = ((a, b) for a, b in ((0.0, 1.0), (-1.0, 1.0)) if a <= low and high <= b)
            return x, Images(shape, None, next(usual, (low, high)))
        x = x.astype(np.uint8 if high <= 255 else np.uint16)
    top = int(x.max())
    if levels is None:
        levels = 2 if top <= 1 else int(np.iinfo(x.dtype).max) + 1
    if not max(top + 1, 2) <= levels <= 65536:
        raise DataError(f"{name}: {say_option('levels', levels)}, but the largest pixel value is "
                        f"{top}; "
                        f"give at least {top + 1}")
    return x, Images(shape, levels)


def with_labels(data: Dataset, codes: Rows | None, classes: tuple[str, ...]) -> Dataset:
    """The data with one label for each example, of clips for each clip."""
    codes = codes if codes is None or data.clip is None else codes[data.clip]
    return replace(data, label=codes, space=data.space.replace(classes=classes))


def open_array(x: Any, y: Any = None, *, how: Options, store: Store, maps: bool,
               ids: str | None) -> Source:
    """A ``.npy`` file, or an array in memory with one label for each example (clip) or ``None``."""
    if isinstance(x, Path):
        file = in_file(lambda: x.open("rb"), str(x), npy_header)
        return make(x.stem, read_arrays([file], store, how, maps, ids))
    array = np.asarray(x)
    data = read_arrays([in_memory(array)], store, how, maps, ids)
    if y is not None:
        codes, classes = encode_labels(y, "y")
        if len(codes) != len(array):
            raise DataError(f"{len(array):,} examples, but {len(codes):,} labels")
        data = with_labels(data, codes, classes)
    return make("array", data)


def npy_header(stream: IO[bytes], name: str) -> Header:
    """Of NumPy's own format."""
    try:
        version = np.lib.format.read_magic(stream)
        read = (np.lib.format.read_array_header_1_0 if version == (1, 0)
                else np.lib.format.read_array_header_2_0)
        header: Header = read(stream)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{name} cannot be read as .npy: {error}") from None
    if header[2].hasobject:
        raise DataError(f"{name} holds Python objects, which are never loaded")
    return header


def open_npz(path: Path | IO[bytes], *, how: NpzOptions, name: str = "") -> Npz:
    """A ``.npz`` of one or more arrays."""
    name = name or str(path)
    try:
        return Npz(zipfile.ZipFile(path), name, how)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{name} cannot be read as .npz: {error}") from None


@dataclass(frozen=True)
class Npz:
    """The arrays of a ``.npz``, or of one side of it (``side``: its keys).

    Keys are recognised with or without their part of the data (``x_train``, ``train_images``). A
    ``shape`` key beside bytes whose last axis is an eighth of it means packed bits.
    """

    archive: zipfile.ZipFile
    name: str
    how: NpzOptions
    side: Keys | None = None

    @property
    def keys(self) -> list[str]:
        keys = [n[:-4] for n in self.archive.namelist() if n.endswith(".npy")]
        if not keys:
            raise DataError(f"{self.name} holds no arrays")
        return keys

    @property
    def roles(self) -> dict[str, Keys]:
        """What keys are called without their part, in lower case, to the keys of the parts."""
        roles: dict[str, Keys] = {}
        for key in self.keys:
            match = PART.search(key)
            part = match[1].lower() if match else "all"
            role = (PART.sub("", key, count=1).strip("_") if match else key).lower()
            roles.setdefault(role, {}).setdefault(
                "validation" if part in ("val", "valid") else part, key)
        return roles

    def array(self, key: str) -> Array:
        return in_file(lambda: self.archive.open(f"{key}.npy"), f"{self.name}: {key}",
                          npy_header)

    def sides(self, pair: str | None, paired: bool | None) -> tuple[Npz, Npz, bool] | None:
        """Two arrays of images; what are examples and their labels is one side."""
        two: tuple[Keys, Keys] | None = None
        if self.how.key is None and self.how.label is None:
            x, y = self._first(ITEMS), self._first(LABELS)
            a, b = ({p: k for p, k in self.roles.get(name.lower(), {}).items()
                     if name in k.split("_")} for name in "AB")  # arrays a and b stay a choice
            if x and x.keys() == y.keys() and all(self._overlie(x[p], y[p]) for p in x):
                two = x, y
            elif not x and a and b and all(len(self.array(k).shape) >= 3
                                           for k in [*a.values(), *b.values()]):
                two = a, b
        if two is not None:
            return replace(self, side=two[0]), replace(self, side=two[1]), paired is not False
        if paired is not None:
            raise DataError(f"{self.name}: {say_option('paired')} is for two arrays of images, "
                            "such as A and B")
        return None

    def read(self, store: Store, name: str, maps: bool, ids: str | None) -> Source:
        """The examples of the file, or of the side."""
        items = self.side or self._items()
        items = {p: items[p] for p in PARTS if p in items}
        arrays = [self.array(k) for k in items.values()]
        bits = self._bits(arrays) if self.side is None else None
        data = read_arrays(arrays, store, self.how, maps, ids, bits)
        rows = [r.shape[0] for r in arrays]
        sizes = {p: n if data.clip is None else n * r.shape[1]
                 for p, n, r in zip(items, rows, arrays, strict=True)}
        notes: tuple[str, ...] = ()
        if self.side is None:
            codes, classes, notes = self._labels(sum(rows))
            data = with_labels(data, codes, classes)
        group, factors = self._first(GROUPS), self._first(FACTORS)
        if group.keys() == items.keys() and data.clip is None:
            codes = np.unique(self._joined(group, len(data.x)), return_inverse=True)[1]
            data = replace(data, group=codes.astype(np.int64))
        if factors.keys() == items.keys() and data.clip is None:
            values = self._joined(factors, len(data.x)).astype(np.float32)
            names = tuple(f"factor{i}" for i in range(values.shape[1]))
            data = replace(data, factors=values, space=data.space.replace(factors=names))
        stem = Path(self.name).stem
        return make(stem if self.side is None else f"{stem} ({', '.join(items.values())})", data,
                    parts=joined_parts(sizes), notes=notes)

    def _overlie(self, *keys: str) -> bool:
        """As many images of one height and width, wherever their channels are, if they have."""
        shapes = [self.array(key).shape for key in keys]
        return min(map(len, shapes)) >= 3 and len({s[0] for s in shapes}) == 1 and 1 in (
            len({s[1:3] for s in shapes}), len({s[-2:] for s in shapes}))

    def _first(self, names: tuple[str, ...]) -> Keys:
        roles = self.roles
        return next((roles[name] for name in names if name in roles), {})

    def _items(self) -> Keys:
        if self.how.key:
            return self._chosen(self.how.key)
        wide = [k for k in self.keys if len(self.array(k).shape) >= 2]
        items = self._first(ITEMS) or ({"all": wide[0]} if len(wide) == 1 else {})
        if not items:
            raise DataError(f"{self.name} holds {', '.join(self.keys)}; choose the examples "
                            f"with {say_option('key')}")
        return items

    def _chosen(self, name: str) -> Keys:
        if name in self.keys:
            role = next(parts for parts in self.roles.values() if name in parts.values())
            return role if len(role) > 1 else {"all": name}
        if name.lower() in self.roles:
            return self.roles[name.lower()]
        raise DataError(f"{self.name}: {unknown('key', name, self.keys)}")

    def _bits(self, arrays: Sequence[Array]) -> tuple[int, ...] | None:
        """The full shape, if the array's last axis is that shape's packed into bytes."""
        if "shape" not in self.keys or len(arrays) != 1:
            return None
        shape = self.array("shape")
        if len(shape.shape) != 1 or shape.dtype.kind not in "iu" or not shape.shape[0]:
            return None
        full = tuple(shape.whole().tolist())
        packed = (*full[:-1], -(-full[-1] // 8))
        return full if arrays[0].dtype == np.uint8 and arrays[0].shape == packed else None

    def _labels(self, count: int) -> tuple[Rows | None, tuple[str, ...], tuple[str, ...]]:
        """Codes, class names and notes; labels nobody asked for are left out if no classes."""
        keys = {} if self.how.label == "none" else (
            self._first(LABELS) if self.how.label is None else self._chosen(self.how.label))
        if not keys:
            return None, (), ()
        names = (self.array(key) for key in NAMES if key in self.keys)
        classes = next((v.whole() for v in names if len(v.shape) == 1 and v.dtype.kind == "U"), ())
        try:
            return (*encode_labels(self._joined(keys, count),
                                   f"{self.name}: {', '.join(keys.values())}",
                                   tuple(map(str, classes))), ())
        except DataError as error:
            if self.how.label is not None:
                raise
            return None, (), (f"left out: {error}",)

    def _joined(self, keys: Keys, count: int) -> NDArray[Any]:
        """The arrays of all parts in the examples' order, one value per example."""
        values = np.concatenate([self.array(keys[p]).whole() for p in PARTS if p in keys])
        if len(values) != count:
            raise DataError(f"{self.name}: {', '.join(keys.values())} has {len(values):,} "
                            f"values for {count:,} examples")
        return values
