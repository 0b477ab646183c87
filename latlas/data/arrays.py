"""Arrays of pictures or rows, in memory or as readers of a file, to one array in data units.

What an array is follows from its shape: (N, d) a table, (N, H, W) grey pictures, (N, C, H, W) or
(N, H, W, C) pictures, where a last axis of 1 to 4 after a second axis of more means channels last.
Bytes and 16-bit words stay as they are; whole numbers of any wider type become the smallest of the
two that holds them; other numbers are kept as float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latlas.core.errors import DataError
from latlas.core.space import Space
from latlas.data.resize import resize_planes
from latlas.data.store import Store

CHUNK = 1 << 24  # bytes read at a time


class Reader(Protocol):
    """An array that can be read piece by piece."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def chunks(self) -> Iterator[NDArray[Any]]: ...  # pieces (n, *shape[1:]), in order


class ArrayReader:
    """A reader of an array in memory."""

    def __init__(self, array: NDArray[Any], name: str = "array") -> None:
        self.array, self.name = array, name
        self.shape, self.dtype = array.shape, array.dtype

    def chunks(self) -> Iterator[NDArray[Any]]:
        step = chunk_rows(self.shape, self.dtype)
        for start in range(0, len(self.array), step):
            yield self.array[start:start + step]


def chunk_rows(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """How many items of an array (N, ...) make one chunk."""
    item = int(np.prod(shape[1:], dtype=np.int64)) * max(1, dtype.itemsize)
    return max(1, CHUNK // max(1, item))


@dataclass(frozen=True)
class Options:
    """How to read an array: see the options of the same names in ``docs/data.md``."""

    levels: int | None = None
    image_size: int | None = None
    layout: str | None = None
    shape: str | None = None
    bits: tuple[int, ...] | None = None  # full shape of an array whose last axis is packed bits


def load(readers: list[Reader], store: Store, options: Options) -> tuple[NDArray[Any], Space]:
    """All readers' items one after another: (N, \\*shape) in data units, and their space."""
    plan = _plan(readers, options)
    x = _fill(readers, store, plan)
    if x.ndim == 2:
        if np.isinf(x).any():
            raise DataError(f"{readers[0].name} holds {int(np.isinf(x).sum()):,} infinite numbers; "
                            "replace them, by NaN if they are missing")
        names = tuple(f"x{i}" for i in range(x.shape[1]))
        return x, Space("table", x.shape[1:], columns=names)
    x = _narrowed(x)
    return x, picture_space(x, options.levels, plan.binary, readers[0].name)


@dataclass(frozen=True)
class _Plan:
    shape: tuple[int, ...]  # of the result
    view: tuple[int, ...]  # of one item before its axes are moved
    last: bool  # channels last
    size: int | None
    bits: int  # width of unpacked rows; 0: not packed
    dtype: np.dtype[Any]
    binary: bool


def _plan(readers: list[Reader], options: Options) -> _Plan:
    first = readers[0]
    item = _common_item(readers) if options.bits is None else options.bits[1:]
    if options.shape:
        item = _parse_shape(options.shape, item, first.name)
    view, shape, last = _layout(item, options.layout, first.name)
    if options.image_size and len(shape) == 3:
        shape = (shape[0], options.image_size, options.image_size)
    kind, width = first.dtype.kind, first.dtype.itemsize
    small = kind == "b" or (kind == "u" and width <= 2)
    dtype = np.dtype(np.float32) if not small or len(shape) == 1 else first.dtype
    total = sum(r.shape[0] for r in readers)
    return _Plan((total, *shape), view, last, options.image_size if len(shape) == 3 else None,
                 options.bits[-1] if options.bits else 0,
                 np.dtype(np.uint8) if dtype.kind == "b" else dtype,
                 kind == "b" or options.bits is not None)


def _common_item(readers: list[Reader]) -> tuple[int, ...]:
    for reader in readers:
        if reader.dtype.kind not in "buif" or not 2 <= len(reader.shape) <= 4:
            raise DataError(f"{reader.name} holds {reader.dtype} of shape {reader.shape}; wanted "
                            "numbers of shape (N, d), (N, H, W), (N, C, H, W) or (N, H, W, C), "
                            "of clips with t after N")
        if not reader.shape[0] or not np.prod(reader.shape):
            raise DataError(f"{reader.name} is empty (shape {reader.shape})")
        if reader.shape[1:] != readers[0].shape[1:]:
            raise DataError(f"{reader.name} holds items of shape {reader.shape[1:]}, but "
                            f"{readers[0].name} of shape {readers[0].shape[1:]}")
    return readers[0].shape[1:]


def _parse_shape(text: str, item: tuple[int, ...], name: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.lower().replace(",", "x").split("x"))
    except ValueError:
        raise DataError(f"shape={text!r} is not a shape; write it as 1x28x28") from None
    if np.prod(shape) != np.prod(item):
        raise DataError(f"shape={text} has {np.prod(shape)} numbers, but an item of {name} has "
                        f"{np.prod(item)} (shape {item})")
    return shape


def _layout(item: tuple[int, ...], layout: str | None, name: str) -> tuple[
        tuple[int, ...], tuple[int, ...], bool]:
    """Shape of an item with three axes as stored, its shape channels first, and the order."""
    if layout not in (None, "NCHW", "NHWC"):
        raise DataError(f"layout={layout!r} is unknown; valid: NCHW (channels first), NHWC")
    if len(item) == 1:
        return item, item, False
    if len(item) == 2:
        return (1, *item), (1, *item), False
    guess = item[2] <= 4 < item[0] or (item[2] <= 4 and item[0] == item[1] != item[2])
    last = guess if layout is None else layout == "NHWC"
    return item, ((item[2], *item[:2]) if last else item), last


def _fill(readers: list[Reader], store: Store, plan: _Plan) -> NDArray[Any]:
    x, done = store.allocate(plan.shape, plan.dtype), 0
    for reader in readers:
        for chunk in reader.chunks():
            part = _conform(chunk, plan)
            with np.errstate(over="ignore"):  # becomes infinite, and is refused later
                x[done:done + len(part)] = part
            done += len(part)
            store.done(done, len(x))
    return x


def _conform(chunk: NDArray[Any], plan: _Plan) -> NDArray[Any]:
    if plan.bits:
        chunk = np.unpackbits(chunk, axis=-1)[..., :plan.bits]
    chunk = chunk.reshape(len(chunk), *plan.view)
    if plan.last:
        chunk = np.moveaxis(chunk, -1, 1)
    if plan.size is None:
        return chunk
    if plan.binary:  # grey levels between ink and paper need more than two levels
        chunk = (chunk * 255).astype(np.uint8)
    top = None if chunk.dtype.kind == "f" else float(np.iinfo(chunk.dtype).max)
    return resize_planes(chunk, plan.size, top)


def _narrowed(x: NDArray[Any]) -> NDArray[Any]:
    """Float pictures that hold whole numbers as the integers they are."""
    if x.dtype.kind != "f":
        return x
    if not np.isfinite(x).all():
        raise DataError(f"{int((~np.isfinite(x)).sum()):,} pixels are not finite numbers; "
                        "repair the array first")
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 65535 or high <= 1 or not all(
            np.array_equal(part, np.rint(part)) for part in ArrayReader(x).chunks()):
        return x
    return x.astype(np.uint8 if high <= 255 else np.uint16)


def picture_space(x: NDArray[Any], levels: int | None, binary: bool, name: str) -> Space:
    """The space of pictures (N, C, H, W): levels from the type, 2 if they hold only 0 and 1.

    Real-valued pictures in [0, 1] or [−1, 1] keep that as their range; others take their own.
    """
    if x.dtype.kind == "f":
        return _real_space(x, levels, name)
    high = int(x.max())
    if levels is None:
        levels = 2 if high <= 1 else int(np.iinfo(x.dtype).max) + 1
    if not max(high + 1, 2) <= levels <= 65536:
        raise DataError(f"{name}: levels={levels}, but the largest pixel value is {high}; "
                        f"give at least {high + 1}")
    return Space.picture(x.shape[1:], levels)


def _real_space(x: NDArray[Any], levels: int | None, name: str) -> Space:
    low, high = float(x.min()), float(x.max())
    if levels is not None:
        raise DataError(f"{name}: levels={levels} is for pictures of integers, "
                        f"but these are real numbers from {low:.4g} to {high:.4g}")
    low, high = next(((a, b) for a, b in ((0.0, 1.0), (-1.0, 1.0)) if a <= low and high <= b),
                     (low, high))
    scale = (high - low) / 2 or 1.0
    return Space("picture", x.shape[1:], location=(low + high) / 2, scale=scale)

