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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
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

    def __post_init__(self) -> None:
        if self.image_size is not None and self.image_size < 1:
            raise DataError(f"{say_option('image_size', self.image_size)}: give at least 1")
        if self.layout not in (None, "NCHW", "NHWC"):
            raise DataError(f"{say_option('layout', self.layout)} is unknown; valid: NCHW "
                            "(channels first), NHWC")


@dataclass(frozen=True)
class NpzOptions(Options):
    """``key`` chooses the examples, ``label`` the labels."""

    key: str | None = None
    label: str | None = None


def open_array(x: Any, y: Any = None, *, how: Options, store: Store, maps: bool,
               ids: str | None) -> Source:
    """A ``.npy`` file, or an array in memory with one label for each example (clip) or ``None``."""
    file = isinstance(x, Path)
    openers = {"x": partial(in_npy, x) if file else partial(in_memory, np.asarray(x))}
    if y is not None:
        openers["y"] = partial(in_memory, np.asarray(y), "y")
    more = NpzOptions(**asdict(how), label=None if y is None else "y")
    return Arrays(openers, str(x) if file else "array", more).read(store, "", maps, ids)


def open_npz(path: Path | IO[bytes], *, how: NpzOptions, name: str = "") -> Arrays:
    """A ``.npz`` of one or more arrays."""
    name = name or str(path)
    with readable(name, "cannot be read as .npz"), zipfile.ZipFile(path) as archive:
        keys = [n[:-4] for n in archive.namelist() if n.endswith(".npy")]
    if not keys:
        raise DataError(f"{name} holds no arrays")
    return Arrays({key: partial(in_zip, path, key, name) for key in keys}, name, how)


class Arrays:
    """The arrays of a file.

    Keys are recognised with or without their part of the data (``x_train``, ``train_images``):
    ``roles`` are their names without it, in lower case. A ``shape`` key beside bytes whose last
    axis is an eighth of it means packed bits.

    Args:
        openers: what opens the array of each key, which is called for those that are needed.
        name: of the file.
    """

    def __init__(self, openers: Mapping[str, Callable[[], Array]], name: str,
                 how: NpzOptions) -> None:
        self.openers, self.name, self.how = openers, name, how
        self.used: set[str] = set()
        self.roles: dict[str, Keys] = {}
        for key in openers:
            match = PART.search(key)
            part = match[1].lower() if match else "all"
            role = (PART.sub("", key, count=1).strip("_") if match else key).lower()
            part = "validation" if part.startswith("val") else part
            self.roles.setdefault(role, {}).setdefault(part, key)

    def array(self, key: str) -> Array:
        self.used.add(key)
        return self.openers[key]()

    def keys(self, names: Sequence[str], chosen: str | None = None, option: str = "key") -> Keys:
        """The keys that are chosen, with those of the other parts, or the first of these names."""
        if not chosen:
            return next((self.roles[name] for name in names if name in self.roles), {})
        if chosen in self.openers:
            parts = next((keys for keys in self.roles.values() if chosen in keys.values()), {})
            return parts if len(parts) > 1 else {"all": chosen}
        if chosen.lower() in self.roles:
            return self.roles[chosen.lower()]
        raise DataError(f"{self.name}: {unknown(option, chosen, self.openers)}")

    def sides(self, pair: str | None, paired: bool | None) -> tuple[Arrays, Arrays, bool] | None:
        """Two arrays of images; what are examples and their labels is one side."""
        def overlie(a: Array, b: Array) -> bool:
            """As many images of one height and width, wherever their channels are."""
            return min(len(a.shape), len(b.shape)) >= 3 and a.shape[0] == b.shape[0] and bool(
                {a.shape[1:3], a.shape[-2:]} & {b.shape[1:3], b.shape[-2:]})

        two: tuple[Keys, ...] = ()
        if self.how.key is None and self.how.label is None:
            x, y = self.keys(ITEMS), self.keys(LABELS)
            a, b = ({p: k for p, k in self.roles.get(name.lower(), {}).items()
                     if name in k.split("_")} for name in "AB")  # arrays a and b stay a choice
            if x and x.keys() == y.keys() and all(
                    overlie(self.array(x[p]), self.array(y[p])) for p in x):
                two = x, y
            elif a and b and not x and all(
                    len(self.array(key).shape) >= 3 for key in (*a.values(), *b.values())):
                two = a, b
        if two:
            first, second = (Arrays(
                {k: opener for k, opener in self.openers.items() if k not in other.values()},
                self.name, replace(self.how, key=next(iter(side.values())), label="none"))
                for side, other in (two, two[::-1]))
            return first, second, paired is not False
        if paired is not None:
            raise DataError(f"{self.name}: {say_option('paired')} is for two arrays of images, "
                            "such as A and B")
        return None

    def read(self, store: Store, name: str, maps: bool = False, ids: str | None = None) -> Source:
        """The examples of the file, or of the side; ``name`` is by default the file's."""
        items = self.keys(ITEMS, self.how.key)
        if not items:
            wide = [k for k in self.openers if len(self.array(k).shape) >= 2]
            if len(wide) != 1:
                raise self.undecided()
            items = {"all": wide[0]}
        self.used.clear()
        arrays = {p: self.array(items[p]) for p in PARTS if p in items}
        if "shape" in self.openers and len(arrays) == 1:
            arrays = {p: self._unpacked(array) for p, array in arrays.items()}
        counts, notes = {p: a.shape[0] for p, a in arrays.items() if a.shape}, list[str]()
        codes, classes = self._classes(counts, notes)
        data = read_arrays(list(arrays.values()), store, self.how, maps, ids)
        data = self._annotated(data.with_labels(codes, classes), counts)
        if data.clip is not None:
            counts = {p: n * arrays[p].shape[1] for p, n in counts.items()}
        ignored = self.keys(LABELS).values() if self.how.label == "none" else ()
        unused = [k for k in self.openers if k not in self.used and k not in ignored]
        notes += [f"not used: {', '.join(unused)}"] if unused else []
        return dataset.make(name or Path(self.name).stem, data, notes=tuple(notes),
                            parts=dataset.joined_parts(counts))

    def undecided(self) -> DataError:
        """No array is that of the examples."""
        return DataError(f"{self.name} holds {', '.join(self.openers)}; choose the examples with "
                         f"{say_option('key')}")

    def _unpacked(self, array: Array) -> Array:
        """The array, or its bits if they are of the ``shape`` in the file."""
        shape = self.array("shape")
        if array.dtype == np.uint8 and shape.dtype.kind in "iu" and len(shape.shape) == 1:
            full = tuple(shape.whole().tolist())
            if full and array.shape == (*full[:-1], -(-full[-1] // 8)):
                return Array(array.name, full, np.dtype(bool), lambda: (
                    np.unpackbits(piece, axis=-1)[..., :full[-1]] for piece in array.pieces()))
        return array

    def _annotated(self, data: Dataset, counts: Mapping[str, int]) -> Dataset:
        """With groups and factors, if the file has them for these parts and they are no clips."""
        group, factors = (self.keys(names) if data.clip is None else {}
                          for names in (GROUPS, FACTORS))
        if group.keys() == counts.keys():
            values = self._joined(group, counts, 1).reshape(-1)
            levels, codes = np.unique(values, return_inverse=True)
            numbers = np.array([hash_of(str(level)) for level in levels.tolist()], np.uint64)
            data = replace(data, group=numbers[codes].view(np.int64))
        if factors.keys() == counts.keys():
            values = self._joined(factors, counts).reshape(len(data.x), -1)
            if values.dtype.kind not in "buif":
                raise DataError(f"{self.name}: {', '.join(factors.values())} holds "
                                f"{values.dtype}, not numbers")
            space = data.space.replace(
                factors=tuple(f"factor{i}" for i in range(values.shape[1])))
            data = replace(data, factors=values.astype(np.float32), space=space)
        return data

    def _joined(self, keys: Keys, counts: Mapping[str, int], most: int = MOST_CLASSES,
                way_out: str = "") -> Any:
        """The arrays of all parts in the examples' order: one value for each example, or a few."""
        arrays = [self.array(keys[p]) for p in PARTS if p in keys]
        lengths = [(array.name, array.shape[0] if array.shape else 0) for array in arrays]
        expected = [*counts.values()]
        if keys.keys() != counts.keys():  # such as one array of all parts
            expected = [sum(expected)]
            lengths = [(", ".join(name for name, _ in lengths), sum(n for _, n in lengths))]
        for (name, length), count in zip(lengths, expected, strict=True):
            if length != count:
                raise DataError(f"{name} has {length:,} values for {count:,} examples{way_out}")
        for array in arrays:
            if (width := math.prod(array.shape[1:])) > most:
                raise DataError(f"{array.name} has {width:,} values for each example; give "
                                f"{most:,} at most")
        return np.concatenate([array.whole() for array in arrays])

    def _classes(self, counts: Mapping[str, int], notes: list[str]) -> tuple[
            Rows | None, tuple[str, ...]]:
        """Codes and class names; labels nobody asked for are left out if they are no classes."""
        keys = {} if self.how.label == "none" else self.keys(LABELS, self.how.label, "label")
        if not keys:
            return None, ()
        arrays = [self.array(key) for key in keys.values()]
        where, values = ", ".join(array.name for array in arrays), None
        lacking = keys.keys() < counts.keys() and "all" not in keys
        unfit = next((array for array in arrays if array.dtype.hasobject or math.prod(
            array.shape[1:]) > MOST_CLASSES or len(array.shape) not in (1, 2)), None)
        if not lacking and unfit is None:  # their damage is no reason to leave them out
            values = self._joined(keys, counts, way_out=(
                f"; {say_option('label', 'none')} leaves them out"))
        names = (self.array(key) for key in NAMES if key in self.openers)
        classes = next((tuple(v.whole().tolist()) for v in names
                        if len(v.shape) == 1 and v.dtype.kind == "U"), ())
        try:
            if unfit is not None:
                refuse_objects(unfit.dtype, unfit.name)
                raise DataError(f"{unfit.name} holds {unfit.dtype} of shape {unfit.shape}, not one "
                                "label per example")
            if lacking:
                raise DataError(f"{where} is for some of the parts alone")
            return encode_labels(values, where, classes)
        except DataError as error:
            if self.how.label is not None:
                raise
            notes.append(f"left out: {error}")
            return None, ()


def read_arrays(arrays: Sequence[Array], store: Store, how: Options, maps: bool = False,
                ids: str | None = None) -> Dataset:
    """The examples of all arrays, one after the other; clips become frames that know theirs.

    With ``maps`` pixels are class ids, ``ids`` those of the channels, commas between.
    """
    clip = None
    if how.frames or all(len(array.shape) == CLIPS for array in arrays):
        frames = [array.frames() for array in arrays]
        lengths = np.concatenate([np.full(array.shape[0], array.shape[1]) for array in arrays])
        arrays, clip = frames, np.repeat(np.arange(len(lengths)), lengths)
    name, stored = arrays[0].name, np.result_type(*(array.dtype for array in arrays))
    item, shape, last = _layout(arrays, how)
    size = how.image_size if len(shape) == 3 and not maps else None
    shape = (shape[0], size, size) if size else shape
    dtype: Any = np.float32
    if len(shape) == 1:
        dtype = np.float32 if np.can_cast(stored, np.float32) else np.float64
    elif stored.kind in "bu" and stored.itemsize <= 2:
        dtype = np.uint8 if stored.kind == "b" else stored

    def examples() -> Iterator[NDArray[Any]]:
        for chunk in (chunk for array in arrays for chunk in array.pieces()):
            chunk = chunk.reshape(len(chunk), *item)
            chunk = np.moveaxis(chunk, -1, 1) if last else chunk
            if size and stored.kind == "b":  # between ink and paper there are more than two levels
                chunk = (chunk * 255).astype(np.uint8)
            yield images.resize_planes(chunk, size) if size else chunk

    x = (Store() if maps else store).gather((sum(array.shape[0] for array in arrays), *shape),
                                            dtype, examples())
    space: Space = Table.of_numbers(
        x.shape[1], dtype="Float64" if x.dtype == np.float64 else "Float32")
    if x.ndim == 4:
        x, space = image_space(x, None if maps else how.levels, name)
    elif np.isinf(x).any():
        raise DataError(f"{name} holds {int(np.isinf(x).sum()):,} infinite numbers; "
                        "replace them, by NaN if they are missing")
    if maps:
        x = images.resize_planes(x, how.image_size, nearest=True) if (
            how.image_size and x.ndim == 4) else x
        x, space = images.one_hot(x, store, ids, name)
    data = Dataset(x, space)
    return data if clip is None else as_clips(data, clip)


def _layout(arrays: Sequence[Array], how: Options) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Shape of an example as stored, its shape channels first, and whether channels come last;
    DataError unless these are arrays of numbers, of one shape and range."""
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
    item = _shape(how.shape, first) if how.shape else first.shape[1:]
    if len(item) < 3:
        item = item if len(item) == 1 else (1, *item)
        return item, item, False
    last = item[2] <= 4 and (item[0] > 4 or item[0] == item[1] != item[2])
    last = last if how.layout is None else how.layout == "NHWC"
    return item, ((item[2], *item[:2]) if last else item), last


def _shape(text: str, array: Array) -> tuple[int, ...]:
    """That of an example of this array, written as ``1x28x28``."""
    sides = re.split("[x,]", text.lower())
    if not all(side.strip().isdecimal() for side in sides):
        raise DataError(f"{say_option('shape', text)} is not a shape; write it as 1x28x28")
    shape, stored = tuple(map(int, sides)), array.shape[1:]
    if math.prod(shape) != math.prod(stored):
        raise DataError(f"shape={text} has {math.prod(shape)} numbers, but an example of "
                        f"{array.name} has {math.prod(stored)} (shape {stored})")
    return shape


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
